"""Answers with the mirror's own artifacts: manifests and blobs that no upstream has, for who may read what they refer to."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from mirror.fetch.result import CacheResult
from mirror.oci.manifest import OCI_MANIFEST
from mirror.oci.reference import Reference
from mirror.proxy.access import Access
from mirror.proxy.blob_response import small_blob
from mirror.proxy.exchange import Exchange
from mirror.proxy.hint_artifacts import HintArtifacts
from mirror.proxy.manifest_response import manifest_response
from mirror.proxy.routes import Kind, Route
from mirror.report.accesslog import RequestKind


@dataclass(frozen=True, slots=True)
class HintContent:
    """Serves hint artifacts. They are in no store, no pull is recorded, and accounts count them as discovery, not as content."""

    access: Access
    hints: HintArtifacts

    async def answer(self, request: web.Request, exchange: Exchange, route: Route) -> web.StreamResponse | None:
        """The answer to a request for a manifest or a blob by digest that is the mirror's own; None if it is not.

        Raises Denied, NotFound, Unauthenticated, Unavailable if the client must not read what the artifact refers to.
        """
        digest = route.reference.digest if route.reference is not None else None
        if digest is None or route.kind not in (Kind.MANIFEST, Kind.BLOB):
            return None
        if self.access.has_shown_right(route.name, exchange.visitor):
            return None
        artifact = await self.hints.find(route.name, digest)
        if artifact is None or (route.kind is Kind.MANIFEST) != (digest == artifact.digest):
            return None
        way = await self.access.check_manifest(route.name, Reference(digest=artifact.subject.digest), exchange.visitor)
        if way.is_private:
            return None
        exchange.kind, exchange.digest, exchange.cache = RequestKind.REFERRERS, str(digest), CacheResult.HIT
        if route.kind is Kind.BLOB:
            return small_blob(request, artifact.blobs[digest], digest, {"Content-Type": "application/octet-stream"})
        exchange.media_type = OCI_MANIFEST
        return manifest_response(request, artifact.manifest, OCI_MANIFEST, digest, {})
