"""Manifests that are here: in memory, in the store, and in the table that says of which repositories they are.

Failures of the store or of SQL are logged and cost the next request more; they never fail a pull.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar

import structlog
from cachetools import LRUCache

from mirror.errors import InvalidInput, MirrorError, NotFound, Unavailable
from mirror.fetch.manifest_answer import ManifestAnswer, ManifestLimits
from mirror.fetch.ports import LinkStore
from mirror.fetch.result import CacheResult
from mirror.oci.digest import Digest
from mirror.oci.manifest import Descriptor, manifest_type, parse_manifest
from mirror.oci.reference import RepositoryName
from mirror.store.blobs import BlobStore
from mirror.upstream.model import FetchedManifest

log = structlog.get_logger()
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes of a manifest and what they are."""

    raw: bytes
    media_type: str

    def answer(self, digest: Digest, result: CacheResult, age: float | None = None) -> ManifestAnswer:
        """An answer with it. age: seconds since the upstream said so, of a stale one."""
        return ManifestAnswer(self.raw, self.media_type, digest, result, age)


class ManifestContents:
    """By digest, what is here is right for ever; it is given out only under the name of a repository that is known to have it.

    Its bytes are the same wherever they come from. What they are, each repository's own upstream says, and no other one.
    """

    def __init__(self, store: BlobStore, links: LinkStore, limits: ManifestLimits) -> None:
        self._store = store
        self._links = links
        self._limits = limits
        self._raw: LRUCache[Digest, bytes] = LRUCache(limits.memory_bytes, getsizeof=lambda raw: len(raw) + 512)
        self._media_types: LRUCache[tuple[RepositoryName, Digest], str] = LRUCache(limits.max_remembered)

    async def of_repository(self, name: RepositoryName, digest: Digest) -> Content | None:
        """The manifest, if it is here and the repository is known to have it."""
        media_type = self._media_types.get((name, digest))
        if media_type is None:
            link = await recall(self._links.find(name, digest))
            if link is None:
                return None
            media_type = link.media_type
        raw = await self._find(digest)
        if raw is None:
            return None
        self._media_types[name, digest] = media_type
        return Content(raw, media_type)

    async def is_here(self, digest: Digest) -> bool:
        """Whether the manifest is here on behalf of whatever repository."""
        return await self._find(digest) is not None

    async def adopt(self, name: RepositoryName, digest: Digest, stated: str | None) -> Content | None:
        """The manifest, if it is here, for a repository whose upstream says that it has it. stated: as which media type."""
        raw = await self._find(digest)
        if raw is None:
            return None
        content = Content(raw, manifest_type(stated or "", raw))
        await self.link(name, digest, content)
        return content

    async def _find(self, digest: Digest) -> bytes | None:
        known = self._raw.get(digest)
        if known is not None:
            return known
        if await recall(self._links.manifest(digest)) is None:
            return None
        try:
            raw = await asyncio.to_thread(self._store.read, digest, self._limits.max_manifest_bytes)
        except MirrorError as error:
            if not isinstance(error, NotFound):
                log.warning("manifest_unreadable", digest=str(digest), reason=str(error))
            return None
        if Digest.of(raw, digest.algorithm) != digest:
            log.error("manifest_damaged", digest=str(digest), path=str(self._store.path(digest)))
            await asyncio.to_thread(self._store.delete, digest)
            return None
        self._remember(digest, raw)
        return raw

    async def keep(self, name: RepositoryName, fetched: FetchedManifest) -> ManifestAnswer:
        """Keep what the repository's upstream gave, if there is room, and answer with it."""
        content = Content(fetched.raw, fetched.media_type)
        try:
            await asyncio.to_thread(self._store.put, fetched.digest, fetched.raw)
        except Unavailable as error:
            log.warning("manifest_not_kept", digest=str(fetched.digest), reason=str(error))
        self._remember(fetched.digest, fetched.raw)
        await self.link(name, fetched.digest, content)
        return content.answer(fetched.digest, CacheResult.MISS)

    async def link(self, name: RepositoryName, digest: Digest, content: Content) -> None:
        """Note that the repository has this manifest, and all that it names."""
        self._media_types[name, digest] = content.media_type
        try:
            references = parse_manifest(content.raw, content.media_type).references
        except InvalidInput as error:
            log.warning("manifest_not_understood", name=str(name), digest=str(digest), reason=str(error))
            references = ()
        await recall(self._links.add(name, Descriptor(content.media_type, digest, len(content.raw)), references))

    def _remember(self, digest: Digest, raw: bytes) -> None:
        if len(raw) <= self._limits.memory_bytes // 8:
            self._raw[digest] = raw


async def recall(question: Awaitable[T]) -> T | None:
    """What SQL says; None also while it is away."""
    try:
        return await question
    except Unavailable as error:
        log.warning("state_unavailable", reason=str(error))
        return None
