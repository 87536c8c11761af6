"""Tag lists and lists of referrers: asked of the upstream once for all who want them, kept for a while, given stale in an outage.

They are kept whole and in memory only, so that pages of any size are cut from one list.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import structlog
from cachetools import LRUCache

from mirror.errors import IntegrityError, InvalidInput, NotFound, Unavailable
from mirror.fetch.manifests import ManifestFetcher
from mirror.fetch.result import CacheResult
from mirror.oci.digest import Digest
from mirror.oci.listing import fallback_tag, in_order, parse_referrers
from mirror.oci.manifest import INDEX_TYPES
from mirror.oci.reference import Reference, RepositoryName
from mirror.upstream.client import UpstreamClient
from mirror.upstream.flight import SingleFlight

log = structlog.get_logger()

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_ENTRY_BYTES = 128
"""What an entry takes beyond its text, about."""


@dataclass(frozen=True, slots=True)
class ListingLimits:
    """Bounds of lists; times in seconds."""

    fresh_seconds: float = 60.0
    hold_seconds: float = 5.0
    """How long an upstream that failed for a list is not asked for it again, if there is a last known one."""
    memory_bytes: int = 64 << 20
    """Of lists in memory, about; each kind has half of it."""


@dataclass(slots=True)
class _Kept(Generic[V]):
    value: V
    size: int
    fresh_until: float
    is_stale: bool = False


class Listings:
    """Answers requests for lists."""

    def __init__(
        self, manifests: ManifestFetcher, limits: ListingLimits | None = None, *, timer: Callable[[], float] = time.monotonic
    ) -> None:
        """manifests: where the fallback of the referrers API is found. timer: seconds that only grow."""
        limits = limits or ListingLimits()
        self._manifests = manifests
        self._tags: _Lists[RepositoryName, tuple[str, ...]] = _Lists(limits, timer)
        self._referrers: _Lists[tuple[RepositoryName, Digest], list[dict[str, Any]]] = _Lists(limits, timer)

    async def tags(self, client: UpstreamClient, name: RepositoryName) -> tuple[tuple[str, ...], CacheResult]:
        """All tags of a repository in the order of ASCII. Raises NotFound, Denied, Unavailable, IntegrityError."""

        async def ask() -> tuple[tuple[str, ...], int]:
            tags = in_order(await client.tags(name.repository))
            return tags, sum(len(tag) + _ENTRY_BYTES for tag in tags)

        return await self._tags.get(name, ask)

    async def referrers(
        self, client: UpstreamClient, name: RepositoryName, subject: Digest
    ) -> tuple[list[dict[str, Any]], CacheResult]:
        """Descriptors of all that refers to a manifest; none where the upstream knows nothing of it.

        Raises Denied, Unavailable, IntegrityError.
        """

        async def ask() -> tuple[list[dict[str, Any]], int]:
            try:
                found = await client.referrers(name.repository, subject)
            except NotFound:
                found = await self._by_fallback_tag(client, name, subject)
            return found, sum(len(str(descriptor)) + _ENTRY_BYTES for descriptor in found)

        return await self._referrers.get((name, subject), ask)

    async def close(self) -> None:
        """Give up what is under way."""
        await self._tags.close()
        await self._referrers.close()

    async def _by_fallback_tag(self, client: UpstreamClient, name: RepositoryName, subject: Digest) -> list[dict[str, Any]]:
        try:
            answer = await self._manifests.get(client, name, Reference(tag=fallback_tag(subject)))
        except NotFound:
            return []
        if answer.media_type not in INDEX_TYPES:
            return []
        try:
            return parse_referrers(answer.raw)
        except InvalidInput as error:
            raise IntegrityError(f"{name.registry} keeps nonsense as the referrers of {name}@{subject}: {error}") from error


class _Lists(Generic[K, V]):
    """Lists of one kind."""

    def __init__(self, limits: ListingLimits, timer: Callable[[], float]) -> None:
        self._limits = limits
        self._timer = timer
        self._kept: LRUCache[K, _Kept[V]] = LRUCache(limits.memory_bytes // 2, getsizeof=lambda kept: kept.size)
        self._flights: SingleFlight[K, V] = SingleFlight()

    async def get(self, key: K, ask: Callable[[], Coroutine[Any, Any, tuple[V, int]]]) -> tuple[V, CacheResult]:
        """ask: for the list and the bytes that it takes in memory."""
        kept = self._kept.get(key)
        if kept is not None and self._timer() < kept.fresh_until:
            return kept.value, CacheResult.STALE if kept.is_stale else CacheResult.HIT
        try:
            value, joined = await self._flights.run(key, lambda: self._fetch(key, ask))
        except (Unavailable, IntegrityError) as error:
            if kept is None:
                raise
            log.warning("list_stale", of=str(key), reason=str(error))
            kept.fresh_until, kept.is_stale = self._timer() + self._limits.hold_seconds, True
            return kept.value, CacheResult.STALE
        except NotFound:
            self._kept.pop(key, None)
            raise
        return value, CacheResult.JOINED if joined else CacheResult.MISS

    async def close(self) -> None:
        await self._flights.close()

    async def _fetch(self, key: K, ask: Callable[[], Coroutine[Any, Any, tuple[V, int]]]) -> V:
        value, size = await ask()
        if _ENTRY_BYTES + size <= self._kept.maxsize:
            self._kept[key] = _Kept(value, _ENTRY_BYTES + size, self._timer() + self._limits.fresh_seconds)
        return value
