"""Requests for manifests of one upstream, one try each (OCI distribution specification 1.1, "Pulling manifests")."""

from __future__ import annotations

import aiohttp

from mirror.errors import IntegrityError, InvalidInput, MirrorError, NotFound
from mirror.oci.accept import EVERYTHING
from mirror.oci.digest import Digest
from mirror.oci.manifest import SCHEMA1_TYPES, manifest_type
from mirror.oci.reference import Reference
from mirror.upstream.body import read_limited, refuse_encoding, stated_length
from mirror.upstream.budget import BudgetWatch
from mirror.upstream.model import FetchedManifest, ManifestInfo, Upstream
from mirror.upstream.transport import Transport

_NOT_ACCEPTABLE = frozenset({400, 406})
"""Answers to who does not take what there is, where they are not 404: of distribution 3, and of RFC 9110, section 15.5.7."""


class ManifestRequests:
    """Asks for manifests, and notes what the answers say of the pulls that are left.

    Waiting in order and trying again are the caller's. Raises NotFound, Denied, UpstreamUnavailable, IntegrityError.
    """

    def __init__(self, transport: Transport, upstream: Upstream, budget: BudgetWatch) -> None:
        self._transport = transport
        self._upstream = upstream
        self._budget = budget

    async def head(self, repository: str, reference: Reference, accept: str) -> ManifestInfo:
        """See `UpstreamClient.head_manifest`."""
        what = manifest_name(repository, reference)
        response = await self._ask("HEAD", repository, reference, accept, what)
        try:
            if response.status != 200:
                raise await self._failure(response, accept, what)
            return ManifestInfo(self._stated_digest(response, what), _content_type(response) or None, stated_length(response))
        finally:
            response.release()

    async def get(self, repository: str, reference: Reference, accept: str) -> FetchedManifest:
        """See `UpstreamClient.get_manifest`."""
        what = manifest_name(repository, reference)
        response = await self._ask("GET", repository, reference, accept, what)
        try:
            if response.status != 200:
                raise await self._failure(response, accept, what)
            refuse_encoding(response, self._upstream.name, what)
            limit = self._upstream.max_manifest_bytes
            with self._transport.wrapped(what):
                raw = await read_limited(response, limit)
            if raw is None:
                raise IntegrityError(f"upstream {self._upstream.name} sends more than {limit} bytes as {what}")
            media_type = manifest_type(_content_type(response), raw)
            if media_type in SCHEMA1_TYPES:
                # Before its digest is looked at, which is not that of these bytes: signatures are left out of it.
                raise InvalidInput(
                    f"upstream {self._upstream.name} has {what} only in Docker's schema 1 ({media_type}), "
                    "which this mirror does not serve; push it again with a current tool"
                )
            digest = reference.digest or self._stated_digest(response, what) or Digest.of(raw)
            if Digest.of(raw, digest.algorithm) != digest:
                raise IntegrityError(f"upstream {self._upstream.name} sends {what} with another digest than {digest}")
            return FetchedManifest(raw, media_type, digest)
        finally:
            response.close()

    async def _ask(self, method: str, repository: str, reference: Reference, accept: str, what: str) -> aiohttp.ClientResponse:
        path = f"/v2/{repository}/manifests/{reference}"
        response = await self._transport.send(method, path, {"Accept": accept}, repository=repository, what=what)
        self._budget.note(response.headers)
        return response

    async def _failure(self, response: aiohttp.ClientResponse, accept: str, what: str) -> MirrorError:
        failure = await self._transport.failure(response, what)
        is_refused = accept != EVERYTHING and response.status in _NOT_ACCEPTABLE
        return NotFound(f"{failure}; this client takes {accept}") if is_refused else failure

    def _stated_digest(self, response: aiohttp.ClientResponse, what: str) -> Digest | None:
        text = response.headers.get("Docker-Content-Digest", "").strip()
        if not text:
            return None
        try:
            return Digest.parse(text)
        except InvalidInput as error:
            raise IntegrityError(f"upstream {self._upstream.name} states no digest for {what}, but {text[:100]!r}") from error


def _content_type(response: aiohttp.ClientResponse) -> str:
    return response.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def manifest_name(repository: str, reference: Reference) -> str:
    """A manifest in messages."""
    return f"manifest {repository}{'@' if reference.digest else ':'}{reference}"
