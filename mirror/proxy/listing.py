"""Content discovery: tag lists and referrers (OCI distribution specification 1.1, end-8 and end-12)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aiohttp import web

from mirror.fetch.result import CacheResult
from mirror.oci.digest import Digest
from mirror.oci.listing import link_to_next, page_of, parse_count, referrers_page
from mirror.oci.manifest import OCI_INDEX
from mirror.oci.reference import Reference, RepositoryName
from mirror.proxy.access import Access
from mirror.proxy.hint_artifact import HintArtifact
from mirror.proxy.hint_artifacts import HintArtifacts
from mirror.proxy.visitor import ANYBODY, Visitor
from mirror.proxy.ways import Way


@dataclass(frozen=True, slots=True)
class Discovery:
    """Answers what there is; with each answer comes how the list came about."""

    access: Access
    hints: HintArtifacts | None = None
    """None if published images have no referrer of the mirror's own."""

    async def tags(
        self, request: web.Request, name: RepositoryName, visitor: Visitor = ANYBODY
    ) -> tuple[web.Response, CacheResult]:
        """A page of the tag list: `n` tags behind the tag `last`, with a `Link` to the next page if there is one."""
        count = parse_count(request.query.get("n"))
        way = await self.access.check_listing(name, visitor)
        tags, result = await way.listings.tags(way.client, name)
        page = page_of(tags, count, request.query.get("last"))
        headers = _next(request, page.tags[-1]) if page.more else {}
        return web.json_response({"name": name.repository, "tags": list(page.tags)}, headers=headers), result

    async def referrers(
        self, request: web.Request, name: RepositoryName, subject: Digest, visitor: Visitor = ANYBODY
    ) -> tuple[web.Response, CacheResult]:
        """An index of everything that refers to a manifest; `artifactType` selects. Without any it is an empty one, not a 404.

        What is too much for one index comes in pages, with a `Link` to the next one. To the list of the upstream, without which
        there is no answer, the mirror adds the hint artifact of what is published. What refers to such an artifact no upstream
        knows: nothing.
        """
        own = None if self.access.has_shown_right(name, visitor) else await self._own(name, subject)
        way = await self.access.check_manifest(name, Reference(digest=own.subject.digest if own else subject), visitor)
        descriptors: list[dict[str, Any]] = []
        result = CacheResult.HIT
        if own is None or way.is_private:
            descriptors, result = await self._listed(way, name, subject)
        # No media type has a space: that was a plus, as in "+json", which the client did not encode.
        artifact_type = request.query.get("artifactType", "").replace(" ", "+")
        page = referrers_page(descriptors, artifact_type, request.query.get("last"))
        headers = {"Content-Type": OCI_INDEX, **({"OCI-Filters-Applied": "artifactType"} if artifact_type else {})}
        if page.last is not None:
            headers |= _next(request, page.last)
        return web.Response(body=page.index, headers=headers), result

    async def _own(self, name: RepositoryName, subject: Digest) -> HintArtifact | None:
        found = await self.hints.find(name, subject) if self.hints is not None else None
        return found if found is not None and found.digest == subject else None

    async def _listed(self, way: Way, name: RepositoryName, subject: Digest) -> tuple[list[dict[str, Any]], CacheResult]:
        descriptors, result = await way.listings.referrers(way.client, name, subject)
        hint = await self.hints.of(name, subject) if self.hints is not None and not way.is_private else None
        return [*descriptors, hint.descriptor] if hint is not None else descriptors, result


def _next(request: web.Request, last: str) -> dict[str, str]:
    """The header that leads to the page behind `last`, all else being as this request has it."""
    return {"Link": link_to_next(request.rel_url.raw_path, {**request.query, "last": last})}
