"""Indexes in indexes, read through the mirror's own fetch of manifests, within bounds of depth, number and time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import structlog
from cachetools import TTLCache

from mirror.errors import Denied, IntegrityError, InvalidInput, MirrorError, NotFound
from mirror.oci.digest import Digest
from mirror.oci.manifest import INDEX_TYPES, Descriptor, Index, parse_manifest
from mirror.oci.reference import RepositoryName

log = structlog.get_logger()

Fetch = Callable[[RepositoryName, Digest], Awaitable[tuple[bytes, str]]]
"""Bytes and media type of a manifest. Raises MirrorError."""


@dataclass(frozen=True, slots=True)
class NestedLimits:
    """Bounds for one index that was pulled.

    depth: of indexes in one another, the pulled one included. indexes: that are read for it. children: listed by all of them.
    seconds: for reading them. pause: seconds for which a registry that did not answer is not asked for the sake of this.
    """

    depth: int = 4
    indexes: int = 32
    children: int = 1000
    seconds: float = 10.0
    pause: float = 60.0


@dataclass(frozen=True, slots=True)
class Flattened:
    """What an index lists, that of inner indexes in the place where they are named.

    is_complete: False if some could not be read now. Beyond the limits nothing is read, which does not change by trying again.
    """

    children: tuple[Descriptor, ...]
    is_complete: bool


class NestedIndexes:
    """Reads what inner indexes list."""

    def __init__(self, fetch: Fetch, limits: NestedLimits | None = None) -> None:
        self._fetch = fetch
        self._limits = limits or NestedLimits()
        self._silent: TTLCache[str, bool] = TTLCache(1000, self._limits.pause)

    async def flatten(self, name: RepositoryName, index: Index) -> Flattened:
        """Everything that is listed by an index of this repository. Never fails."""
        reading = _Reading(self._fetch, name, self._limits)
        if not any(child.media_type in INDEX_TYPES for child in index.manifests):
            return Flattened(index.manifests[: self._limits.children], True)
        if name.registry in self._silent:
            return Flattened(tuple(child for child in index.manifests if child.media_type not in INDEX_TYPES), False)
        try:
            async with asyncio.timeout(self._limits.seconds):
                await reading.add(index, None, 1)
        except (MirrorError, TimeoutError) as error:
            self._silent[name.registry] = True
            log.warning("inner_index_not_read", name=str(name), reason=str(error) or "no answer in time")
            return Flattened(tuple(reading.children), False)
        if reading.beyond:
            log.warning("nested_index_beyond_limits", name=str(name), read=reading.indexes, listed=len(reading.children))
        return Flattened(tuple(reading.children), True)


class _Reading:
    """One index on its way to be flat."""

    def __init__(self, fetch: Fetch, name: RepositoryName, limits: NestedLimits) -> None:
        self._fetch = fetch
        self._name = name
        self._limits = limits
        self.children: list[Descriptor] = []
        self.indexes = 1
        self.beyond = False

    async def add(self, index: Index, outer: Descriptor | None, depth: int) -> None:
        """outer: how the index is listed; its platform is that of images that say none."""
        for child in index.manifests:
            if len(self.children) >= self._limits.children:
                self.beyond = True
                return
            listed = replace(child, platform=outer.platform) if outer is not None and child.platform is None else child
            if child.media_type not in INDEX_TYPES:
                self.children.append(listed)
            elif depth >= self._limits.depth or self.indexes >= self._limits.indexes:
                self.beyond = True
            else:
                self.indexes += 1
                inner = await self._inner(child.digest)
                if inner is not None:
                    await self.add(inner, listed, depth + 1)

    async def _inner(self, digest: Digest) -> Index | None:
        """None for what will never be one. Raises MirrorError for what cannot be had now."""
        try:
            inner = parse_manifest(*await self._fetch(self._name, digest))
        except (InvalidInput, NotFound, Denied, IntegrityError) as error:
            log.warning("inner_index_left_out", name=str(self._name), digest=str(digest), reason=str(error))
            return None
        return inner if isinstance(inner, Index) else None
