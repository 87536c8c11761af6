"""`/_debark/v1/...`: what scripts and people ask the mirror itself, in JSON.

GET /_debark/v1/images?ref=docker://docker.io/library/debian:12     state of one image
    &platform=linux/arm64 (or just arm64, or what `uname -m` says)  of the one for this platform
GET /_debark/v1/repositories                                        the CVMFS repositories and how to mount them
GET /_debark/v1/repositories/{fqrn}.conf                            a CVMFS client's settings for one of them
GET /_debark/v1/repositories/{fqrn}.pub                             the public key that CVMFS clients need, PEM
GET /healthz                                                        what works and what does not
GET /readyz                                                         whether this server should get traffic
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from aiohttp import web

from mirror.errors import InvalidInput, NotFound
from mirror.jobs.model import ImageStatus, State
from mirror.jobs.repositories import RepositoryFacts
from mirror.oci.digest import Digest
from mirror.oci.platform import Platform
from mirror.oci.reference import ImageReference
from mirror.proxy.client_settings import client_settings
from mirror.proxy.exchange import current_exchange
from mirror.proxy.own_address import own_url
from mirror.proxy.routes import UnknownUpstream, UpstreamNames, parse_user_reference
from mirror.report.accesslog import RequestKind

_PROBE_SECONDS = 1.5
"""Monitors wait for some seconds, and ask one process, which asks the others."""

NO_STORE = {"Cache-Control": "no-store"}


class ImageStates(Protocol):
    """Where images stand."""

    async def status(self, image: ImageReference, platform: Platform | None = None) -> ImageStatus | None:
        """The state of one name, or of its image for one platform, or None if it was never pulled."""

    async def platforms(self, image: ImageReference) -> list[ImageStatus]:
        """The states of a name's images for platforms."""

    async def times(self, manifest: Digest) -> dict[State, float]:
        """When the image last came into each state that it has been in."""


class PinnedNames(Protocol):
    """Which names a recipe keeps."""

    async def is_pinned(self, status: ImageStatus) -> bool:
        """Whether this one is kept whether it is used or not."""


class RepositoryList(Protocol):
    """Which CVMFS repositories there are."""

    async def all(self) -> list[RepositoryFacts]:
        """Every repository of this installation."""


HealthProbe = Callable[[], Awaitable[str | None]]
"""None if all is well, else what is wrong in words."""


class StatusApi:
    """The handlers; `public_url` is where clients find this server, empty where the address that they used is good.

    cvmfs_url: where CVMFS clients find it; empty: as all others do.
    """

    def __init__(
        self,
        images: ImageStates,
        repositories: RepositoryList,
        upstreams: UpstreamNames,
        public_url: str,
        probes: Mapping[str, HealthProbe],
        *,
        cvmfs_url: str = "",
        pins: PinnedNames,
        elsewhere: Callable[[], Awaitable[Mapping[str, str | None]]] | None = None,
        needed: Mapping[str, HealthProbe] | None = None,
    ) -> None:
        """elsewhere: what other processes of this server find wrong, by part. needed: what has to be well to get traffic."""
        self._images = images
        self._pins = pins
        self._repositories = repositories
        self._upstreams = upstreams
        self._url = cvmfs_url or public_url
        self._probes = probes
        self._elsewhere = elsewhere
        self._needed = needed or {}

    def routes(self) -> list[web.RouteDef]:
        """Everything to be mounted at the server's root."""
        return [
            web.get("/_debark/v1/images", self.image),
            web.get("/_debark/v1/repositories", self.repositories),
            web.get("/_debark/v1/repositories/{fqrn}.conf", self.client_settings),
            web.get("/_debark/v1/repositories/{fqrn}.pub", self.public_key),
            web.get("/healthz", self.health),
            web.get("/readyz", self.readiness),
        ]

    async def image(self, request: web.Request) -> web.Response:
        """The state of the image named by `ref`; 404 if it was never pulled through this mirror."""
        current_exchange(request).kind = RequestKind.STATUS
        text = request.query.get("ref")
        if not text:
            raise InvalidInput("which image? add ?ref=docker://<registry>/<repository>:<tag>")
        try:
            image = parse_user_reference(text, request.host, self._upstreams)
        except UnknownUpstream as error:
            raise InvalidInput(str(error)) from error  # It will not be found later either, which a 404 would leave open.
        status = await self._status(image, _platform(request.query.get("platform")))
        platforms = await self._images.platforms(status.image)
        times = await self._images.times(status.manifest)
        document = _image_document(status, platforms, times) | {"pinned": await self._pins.is_pinned(status)}
        return web.json_response(document, headers=NO_STORE)

    async def _status(self, image: ImageReference, platform: Platform | None) -> ImageStatus:
        """Raises NotFound, with what is known instead."""
        status = await self._images.status(image, platform)
        if status is not None:
            return status
        own = await self._images.status(image) if platform is not None else None
        if own is not None and own.publication is None and own.target == own.manifest:
            return own  # Only publishing it shows what it is for.
        known = await self._images.platforms(own.image if own is not None else image)
        if known:
            names = ", ".join(str(found.platform) for found in known)
            wanted = str(platform) if platform is not None else "the platforms that it publishes"
            raise NotFound(f"this mirror has no image for {wanted} of {image}; it knows those for {names}: pull it, or name one")
        raise NotFound(f"{image} was not pulled through this mirror yet; pull it once, and it is unpacked in the background")

    async def repositories(self, request: web.Request) -> web.Response:
        """All CVMFS repositories with their revision and what a client needs to mount them."""
        current_exchange(request).kind = RequestKind.STATUS
        url = own_url(request, self._url)
        documents = [_repository_document(record, url) for record in await self._repositories.all()]
        return web.json_response({"repositories": documents}, headers=NO_STORE)

    async def client_settings(self, request: web.Request) -> web.Response:
        """The settings of one repository, as CVMFS clients want them in /etc/cvmfs/config.d."""
        record = await self._repository(request)
        return web.Response(text=client_settings(record, own_url(request, self._url)), headers=NO_STORE)

    async def public_key(self, request: web.Request) -> web.Response:
        """The master public key of one repository, as CVMFS clients want it in /etc/cvmfs/keys."""
        record = await self._repository(request)
        return web.Response(text=record.public_key, content_type="application/x-pem-file", headers=NO_STORE)

    async def health(self, request: web.Request) -> web.Response:
        """`ok`, or `degraded` with what is wrong in each part; 200 either way, since pulls are served as long as this answers."""
        current_exchange(request).kind = RequestKind.STATUS
        findings = await gathered(self._probes)
        if self._elsewhere is not None:
            findings |= await self._elsewhere()
        status = "ok" if all(finding is None for finding in findings.values()) else "degraded"
        return web.json_response({"status": status, "parts": _in_words(findings)}, headers=NO_STORE)

    async def readiness(self, request: web.Request) -> web.Response:
        """200 if this server should get traffic, 503 if not, with the reason: it is about to stop, or cannot read its store."""
        current_exchange(request).kind = RequestKind.STATUS
        findings = await gathered(self._needed)
        is_ready = all(finding is None for finding in findings.values())
        document = {"status": "ready" if is_ready else "not ready", "parts": _in_words(findings)}
        return web.json_response(document, status=200 if is_ready else 503, headers=NO_STORE)

    async def _repository(self, request: web.Request) -> RepositoryFacts:
        current_exchange(request).kind = RequestKind.STATUS
        fqrn = request.match_info["fqrn"]
        for record in await self._repositories.all():
            if record.fqrn == fqrn:
                return record
        raise NotFound(f"{fqrn} is not a repository of this publisher")


async def gathered(probes: Mapping[str, HealthProbe]) -> dict[str, str | None]:
    """What each of the probes finds, by its name; one that does not come to its end has found that."""

    async def found(probe: HealthProbe) -> str | None:
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                return await probe()
        except TimeoutError:
            return f"no answer within {_PROBE_SECONDS:g} s"

    return dict(zip(probes, await asyncio.gather(*map(found, probes.values())), strict=True))


def _in_words(findings: Mapping[str, str | None]) -> dict[str, str]:
    return {name: finding or "ok" for name, finding in findings.items()}


def _repository_document(record: RepositoryFacts, url: str) -> dict[str, Any]:
    return {
        "fqrn": record.fqrn,
        "revision": record.revision,
        "root_hash": record.root_hash,
        "server_url": record.url_at(url),
        "public_key": record.public_key,
    }


def _platform(text: str | None) -> Platform | None:
    """A platform as a script gives it, in normal form; a single word is an architecture of Linux. Raises InvalidInput."""
    if not text:
        return None
    return Platform.parse(text if "/" in text else f"linux/{text}").normal


def _platform_document(status: ImageStatus) -> dict[str, Any]:
    publication = status.publication
    return {
        "platform": str(status.platform),
        "state": status.state.value,
        "path": publication.path if publication else None,
        "fqrn": publication.fqrn if publication else None,
        "revision": publication.revision if publication else None,
        "manifest": str(status.manifest),
    }


def _image_document(status: ImageStatus, platforms: Sequence[ImageStatus], times: dict[State, float]) -> dict[str, Any]:
    """All times are Unix seconds; `times` has when the image last came into each state.

    `platform` is null for the path without one; `platforms` has the paths for those that are published, or on the way.
    """
    publication = status.publication
    return {
        "image": str(status.image),
        "platform": str(status.platform) if status.platform else None,
        "state": status.state.value,
        "reason": status.reason,
        "fqrn": publication.fqrn if publication else None,
        "path": publication.path if publication else None,
        "revision": publication.revision if publication else None,
        "manifest": str(status.manifest),
        "target": str(status.target),
        "attempts": status.attempts,
        "next_try": status.next_try,
        "requested": status.requested,
        "updated": status.updated,
        "published": status.published,
        "notes": status.notes.as_dict(),
        "platforms": [_platform_document(found) for found in platforms],
        "times": {state.value: time for state, time in times.items()},
    }
