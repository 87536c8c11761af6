"""The registry API (OCI distribution specification 1.1, pull and content discovery) in front of fetchers and store."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from aiohttp import web

from mirror.errors import Unavailable
from mirror.fetch.manifests import ManifestAnswer
from mirror.fetch.result import CacheResult
from mirror.observe.events import Pull, PullQueue
from mirror.oci.accept import parse_accept
from mirror.oci.digest import Digest
from mirror.oci.reference import ImageReference, Reference, RepositoryName
from mirror.proxy.access import Access
from mirror.proxy.blob_response import SendLimits, blob_headers, send_blob
from mirror.proxy.conditions import client_has, wants_revalidation
from mirror.proxy.exchange import Exchange, current_exchange
from mirror.proxy.hint_artifacts import Publications
from mirror.proxy.hint_content import HintContent
from mirror.proxy.hints import STATE_HEADER, hint_headers
from mirror.proxy.listing import Discovery
from mirror.proxy.logins import Logins
from mirror.proxy.manifest_response import manifest_response
from mirror.proxy.redirects import Redirects
from mirror.proxy.routes import Kind, Route, UpstreamNames, endpoint_of, parse_path
from mirror.proxy.warm import WarmAnswers
from mirror.report.accesslog import RequestKind
from mirror.upstream.client import UpstreamClient

API_HEADERS = {"Docker-Distribution-Api-Version": "registry/2.0"}
PRIVATE_HEADERS = {"Cache-Control": "private", "Vary": "Authorization"}
"""For caches between the mirror and its clients."""
NEGOTIATED_HEADERS = {"Vary": "Accept"}
"""The same, for tags: on each answer, or a cache gives the usual one to those who would get another (RFC 9111, section 4.1)."""
CACHE_HEADER = "X-Debark-Cache"
"""How the answer came about: hit, miss, joined, stale or redirected. A stale manifest also has its `Age` (RFC 9111, section
5.1)."""

_KINDS = {
    Kind.MANIFEST: RequestKind.MANIFEST,
    Kind.BLOB: RequestKind.BLOB,
    Kind.TAGS: RequestKind.TAGS,
    Kind.REFERRERS: RequestKind.REFERRERS,
    None: RequestKind.OTHER,
}


@dataclass(frozen=True, slots=True)
class Registry:
    """Everything that answering a pull takes; its methods are the handlers."""

    upstreams: UpstreamNames
    access: Access
    discovery: Discovery
    publications: Publications
    pulls: PullQueue | None
    """None if nothing is to be published."""
    limits: SendLimits
    warm: WarmAnswers
    logins: Logins | None = None
    """None if no upstream takes clients' own credentials."""
    redirects: Redirects | None = None
    """None if nobody is sent elsewhere for blobs."""
    hint_content: HintContent | None = None
    """None if the mirror has no artifacts of its own."""
    clock: Callable[[], float] = time.time

    def routes(self) -> list[web.RouteDef]:
        """Everything to be mounted at the server's root. Writing is not offered, which is a 405."""
        return [web.get("/v2/", self.ping), web.get("/v2", self.ping), web.get(r"/v2/{path:[\s\S]+}", self.pull)]

    async def ping(self, request: web.Request) -> web.Response:
        """`GET /v2/`: this is a registry, and it wants no credentials; or it says how to give some."""
        current_exchange(request).kind = RequestKind.PING
        if self.logins is not None:
            self.logins.greet(request)
        return web.json_response({}, headers=API_HEADERS)

    async def pull(self, request: web.Request) -> web.StreamResponse:
        """A manifest, a blob, or a list of tags or referrers."""
        exchange = current_exchange(request)
        path = request.match_info["path"]
        exchange.kind = _KINDS[endpoint_of(path)]
        namespace = request.query.get("ns")
        route = parse_path(path, namespace, self.upstreams.at(request.host))
        if route is None:
            offered = "manifests, blobs, tag lists and referrers"
            raise web.HTTPNotFound(text=f"{request.path} is no endpoint that this mirror offers: it serves {offered}")
        exchange.route = route
        if self.logins is not None:
            exchange.visitor = self.logins.visitor(request, route.name)
        headers = {**API_HEADERS}
        if namespace and self.upstreams.find(namespace) == route.name.registry:
            headers["OCI-Namespace"] = namespace
        own = await self.hint_content.answer(request, exchange, route) if self.hint_content is not None else None
        if own is not None:
            own.headers.update({**headers, CACHE_HEADER: CacheResult.HIT.value})
            return own
        match route:
            case Route(Kind.MANIFEST, name, Reference() as reference):
                return await self._manifest(request, exchange, ImageReference(name, reference), headers)
            case Route(Kind.BLOB, name, Reference(digest=Digest() as digest)):
                return await self._blob(request, exchange, name, digest, headers)
            case Route(Kind.REFERRERS, name, Reference(digest=Digest() as subject)):
                response, exchange.cache = await self.discovery.referrers(request, name, subject, exchange.visitor)
            case _:
                response, exchange.cache = await self.discovery.tags(request, route.name, exchange.visitor)
        if exchange.visitor.credential is not None:
            headers |= PRIVATE_HEADERS
        response.headers.update({**headers, CACHE_HEADER: exchange.cache.value})
        return response

    async def _manifest(
        self, request: web.Request, exchange: Exchange, image: ImageReference, headers: dict[str, str]
    ) -> web.Response:
        way = await self.access.check_manifest(image.name, image.reference, exchange.visitor)
        again = wants_revalidation(request.headers.getall("Cache-Control", []))
        accept = parse_accept(request.headers.getall("Accept", ()))
        try:
            answer = await way.manifests.get(way.client, image.name, image.reference, revalidate=again, accept=accept)
        except Unavailable as error:
            if not way.is_private:
                await self._point_to_published(exchange, image, error)
            raise
        if image.reference.digest is None:
            headers |= NEGOTIATED_HEADERS
        if way.is_private:
            return self._private_manifest(request, exchange, answer, headers)
        hints = hint_headers(await self.publications.lookup(image, answer.digest))
        exchange.digest, exchange.media_type = str(answer.digest), answer.media_type
        exchange.cache, exchange.state = answer.result, hints.get(STATE_HEADER, "")
        pulls = self._pulls_of(request, image, answer)
        if self.pulls is not None:
            for pull in pulls:
                self.pulls.put(pull)
        headers |= {**hints, CACHE_HEADER: answer.result.value}
        if answer.age is not None:
            exchange.age = answer.age
            headers["Age"] = str(int(answer.age))
        response = manifest_response(request, answer.raw, answer.media_type, answer.digest, headers)
        if answer.instead_of is None:
            self.warm.keep(request, exchange, response, pulls[0])
        return response

    async def _point_to_published(self, exchange: Exchange, image: ImageReference, error: Unavailable) -> None:
        """What cannot be pulled now may be in /cvmfs: raise the error with words about that, which clients show."""
        status = await self.publications.last_known(image)
        if status is not None and status.publication is not None:
            hints = hint_headers(status)
            exchange.hints, exchange.state = hints, hints[STATE_HEADER]
            raise Unavailable(f"{error}; it is unpacked: {status.publication.path}", error.retry_after) from error

    def _pulls_of(self, request: web.Request, image: ImageReference, answer: ManifestAnswer) -> tuple[Pull, ...]:
        """What the publisher is told: of an image that was given in place of its index, what two requests would have told it."""
        usual = answer.instead_of
        if usual is not None:
            by_digest = ImageReference(image.name, Reference(digest=answer.digest))
            return (*self._pulls_of(request, image, usual), *self._pulls_of(request, by_digest, replace(answer, instead_of=None)))
        raw = answer.raw if request.method == "GET" else None
        return (Pull(self.clock(), image, answer.digest, answer.media_type, raw),)

    def _private_manifest(
        self, request: web.Request, exchange: Exchange, answer: ManifestAnswer, headers: dict[str, str]
    ) -> web.Response:
        """Nobody else learns of it: not the publisher, nor who asks next."""
        exchange.digest, exchange.media_type, exchange.cache = str(answer.digest), answer.media_type, answer.result
        vary = [headers["Vary"]] if "Vary" in headers else []
        headers |= PRIVATE_HEADERS
        headers["Vary"] = ", ".join([*vary, PRIVATE_HEADERS["Vary"]])
        headers[CACHE_HEADER] = answer.result.value
        return manifest_response(request, answer.raw, answer.media_type, answer.digest, headers)

    async def _blob(
        self, request: web.Request, exchange: Exchange, name: RepositoryName, digest: Digest, headers: dict[str, str]
    ) -> web.StreamResponse:
        exchange.digest = str(digest)
        way, size = await self.access.check_blob(name, digest, exchange.visitor)
        if way.is_private:
            headers |= PRIVATE_HEADERS
        headers["Content-Type"] = "application/octet-stream"
        if request.method == "HEAD" and size is None and not await way.blobs.is_at_hand(digest):
            size = await _size_of_content(way.client, name, digest)
        if request.method == "HEAD" and size is not None:
            known = {**headers, **blob_headers(digest)}
            if client_has(request.headers.getall("If-None-Match", ()), digest):
                return web.Response(status=304, headers=known)
            return web.Response(headers={**known, "Content-Length": str(size)})
        if self.redirects is not None and not way.is_private:
            elsewhere = await self.redirects.answer(request, exchange, name, digest, size)
            if elsewhere is not None:
                elsewhere.headers.update({**API_HEADERS, CACHE_HEADER: CacheResult.REDIRECTED.value})
                return elsewhere
        with way.blobs.fetch(way.client, name.repository, digest, size) as reader:
            exchange.cache = reader.result
            headers[CACHE_HEADER] = reader.result.value
            sent = await send_blob(request, reader, digest, headers, self.limits)
        exchange.sent = sent.sent
        if isinstance(sent.response, web.Response) and not way.is_private:
            self.warm.keep(request, exchange, sent.response, None)
        return sent.response


async def _size_of_content(client: UpstreamClient, name: RepositoryName, digest: Digest) -> int | None:
    """Size in bytes of a blob of which the upstream's HEAD does not say it, as its content does, of which one byte is asked for.

    None if that does not say it either: then all of it has to come. Raises NotFound, Denied, Unavailable, IntegrityError.
    """
    async with client.open_blob(name.repository, digest, length=1) as stream:
        return stream.total
