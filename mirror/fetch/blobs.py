"""Blobs, fetched once for all who want them at the same time, in this process and in others that share the store."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable

import structlog
from cachetools import TTLCache

from mirror.errors import NotFound, StorageFull, Unavailable
from mirror.fetch.disk import DiskThreads
from mirror.fetch.download import Source
from mirror.fetch.fill import Fill
from mirror.fetch.filler import FetchLimits, Filler
from mirror.fetch.reader import BlobReader, FillReader, StoredReader
from mirror.fetch.result import CacheResult, FillResult
from mirror.fetch.space import SpaceWatch
from mirror.oci.digest import Digest
from mirror.store.blobs import BlobStore
from mirror.upstream.client import UpstreamClient

log = structlog.get_logger()

_WRONG_DIGESTS = 10_000
_WRONG_SECONDS = 3600.0
"""How many blobs that came wrong are asked of the upstream itself, without its mirrors, and for how long."""


class BlobFetcher:
    """Gives readers of blobs, and keeps the fills that feed them."""

    def __init__(
        self,
        store: BlobStore,
        limits: FetchLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
        on_end: Callable[[FillResult], None] = lambda _: None,
        make_room: Callable[[int], Awaitable[None]] | None = None,
    ) -> None:
        """clock: seconds that only grow. on_end: called when a blob is here, or will not come.

        make_room: frees space for so many bytes more, if it can; None: what the store has is all that there is.
        """
        self._make_room = make_room
        self._on_end = on_end
        self._store = store
        self._limits = limits or FetchLimits()
        self._disk = DiskThreads(self._limits.disk_threads)
        self._fills: dict[Digest, Fill] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._wrong: TTLCache[Digest, bool] = TTLCache(_WRONG_DIGESTS, _WRONG_SECONDS, timer=clock)
        self._closing = False
        self._space = SpaceWatch(store, clock)

    @property
    def active_fills(self) -> int:
        """Blobs on their way in, or waiting for it."""
        return len(self._fills)

    @property
    def storage_problem(self) -> str | None:
        """Why a blob could not be kept that was fetched lately; None if there is room for such a one (again)."""
        return self._space.problem

    async def is_at_hand(self, digest: Digest) -> bool:
        """Whether the blob is in the store, or on its way with an upstream giving it."""
        fill = self._fills.get(digest)
        return (fill is not None and fill.is_started and not fill.has_failed) or self._store.size(digest) is not None

    def fetch(self, client: UpstreamClient, repository: str, digest: Digest, size: int | None = None) -> BlobReader:
        """A reader of the blob, to be closed; begins to fetch it if it is neither in the store nor on its way.

        Whether the asker may read this blob under this repository is for the caller to know. size: in bytes, if a manifest
        says so. Raises Unavailable if too many blobs are on their way.
        """
        stored = self._open_stored(digest)
        if stored is not None:
            return stored
        source = Source(client, repository)
        fill = self._fills.get(digest)
        if fill is not None and not fill.has_failed:
            fill.join(source)
            return FillReader(fill, source, self._limits.download, CacheResult.JOINED, self._came_wrong)
        if self._closing:
            raise Unavailable("the mirror is stopping")
        if len(self._fills) >= self._limits.max_fills:
            raise Unavailable(f"the mirror is fetching {len(self._fills)} blobs already, and takes no more", retry_after=5)
        came_wrong = digest in self._wrong or (fill is not None and fill.is_wrong)
        fill = Fill(digest, size, source, mirrors=not came_wrong)
        reader = FillReader(fill, source, self._limits.download, CacheResult.MISS, self._came_wrong)
        self._begin(fill)
        return reader

    async def close(self) -> None:
        """Stop all fills; what has arrived stays in their part files and is gone on with later."""
        self._closing = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._disk.close()

    def _open_stored(self, digest: Digest) -> BlobReader | None:
        try:
            file = self._store.open(digest)
        except NotFound:
            return None
        return StoredReader(file, os.fstat(file.fileno()).st_size, self._store.path(digest))

    def _begin(self, fill: Fill) -> None:
        self._fills[fill.digest] = fill
        task = asyncio.create_task(Filler(fill, self._store, self._disk, self._limits, self._make_room).run())
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._ended(fill, done))

    def _ended(self, fill: Fill, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._fills.get(fill.digest) is fill:
            del self._fills[fill.digest]
        self._on_end(_result_of(fill))
        if isinstance(fill.not_kept, StorageFull):
            self._space.not_kept(str(fill.not_kept), fill.total or 0)
        elif fill.is_wrong:
            self._came_wrong(fill.digest)
        elif fill.is_stored:
            self._space.kept(fill.total or 0)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("fill_broken", digest=str(fill.digest), exc_info=error)

    def _came_wrong(self, digest: Digest) -> None:
        self._wrong[digest] = True


def _result_of(fill: Fill) -> FillResult:
    if fill.is_stored:
        return "followed" if fill.was_followed else "stored"
    return "streamed" if fill.not_kept is not None else "failed"
