"""Keeps room in the store: in the background, and at once when a transfer finds none.

Any number of processes may share a store. One of them, who holds a lock for as long as it runs, looks after it in the background;
and one at a time deletes. A blob that somebody has open can be read to its end, for its file lives as long as it is open.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog

from mirror.errors import MirrorError, Unavailable
from mirror.oci.digest import Digest
from mirror.store.blobs import BlobStore
from mirror.store.eviction import EvictionPolicy, StoredBlob
from mirror.store.eviction_census import Census, shelves
from mirror.store.part import storage_error

log = structlog.get_logger()

_LOCK_SECONDS = 0.02
_DUTY = 50
"""A look through all blobs is followed by a pause of so many times its length."""


@dataclass(frozen=True, slots=True)
class Needed:
    """What blobs are needed for: by publishing that is about to begin, and by manifests that were asked for lately."""

    busy: frozenset[Digest]
    live: frozenset[Digest]


class Needs(Protocol):
    """What the state database knows of blobs. Every method may raise Unavailable: then nothing is evicted."""

    async def look(self) -> Needed:
        """As it is now."""

    async def held(self, digests: Sequence[Digest]) -> Collection[Digest]:
        """Those that a CVMFS repository holds as layers."""


class Evictor:
    """Makes room in one store."""

    def __init__(
        self,
        store: BlobStore,
        needs: Needs,
        policy: EvictionPolicy,
        *,
        clock: Callable[[], float] = time.time,
        on_evicted: Callable[[int, int], None] = lambda _files, _size: None,
        on_census: Callable[[int, int], None] = lambda _count, _size: None,
    ) -> None:
        """clock: Unix seconds. on_evicted, on_census: told numbers of blobs, and bytes in them."""
        self._store = store
        self._needs = needs
        self._policy = policy
        self._clock = clock
        self._on_evicted = on_evicted
        self._on_census = on_census
        self._turn = asyncio.Lock()

    async def run(self) -> None:
        """Look after the store until cancelled, as soon as no other process does. Raises Unavailable."""
        async with self._locked("eviction.leader", self._policy.look_seconds):
            while True:
                began = time.monotonic()
                await self.keep_room()
                await asyncio.sleep(max(self._policy.look_seconds, _DUTY * (time.monotonic() - began)))

    async def keep_room(self) -> int:
        """Evict what the policy wants gone; bytes that went. Raises Unavailable."""
        census = Census(self._policy.sample, self._policy.document_bytes)
        for shelf in shelves(self._store.layout):
            await self._look(census, shelf)
        self._on_census(census.count, census.bytes)
        excess = self._policy.excess(census.bytes, self._store.free_bytes())
        if excess <= 0:
            return 0
        async with self._alone():
            return await self._evict(census.oldest, excess, at_least=0)

    async def make_room(self, size: int) -> None:
        """Evict so much that `size` more bytes can be stored, if that can be done soon; never fails."""
        with contextlib.suppress(TimeoutError):
            try:
                async with asyncio.timeout(self._policy.patience_seconds), self._alone():
                    await self._make_room(size)
            except MirrorError as error:
                log.warning("room_not_made", size=size, reason=str(error))

    async def _make_room(self, size: int) -> None:
        lacking = self._store.shortage(size)
        if lacking <= 0:
            return
        census = Census(self._policy.sample, self._policy.document_bytes)
        # Digests are spread evenly: in a large store some of its directories show what is old in all of it.
        for shelf in random.sample(found := shelves(self._store.layout), len(found)):
            await self._look(census, shelf)
            if census.count >= self._policy.sample:
                break
        await self._evict(census.oldest, lacking, at_least=lacking)

    async def _look(self, census: Census, shelf: Path) -> None:
        try:
            await asyncio.to_thread(census.look, shelf)
        except FileNotFoundError:
            return
        except OSError as error:
            raise storage_error(error, f"list {shelf}") from error

    async def _evict(self, blobs: Sequence[StoredBlob], wanted: int, at_least: int) -> int:
        """Delete until `wanted` bytes are gone; nothing if there are not `at_least` so many that may go."""
        needed = await self._needs.look()
        limit = self._clock() - self._policy.spared_seconds
        may_go = [blob for blob in blobs if blob.last_use <= limit and blob.digest not in needed.busy]
        if sum(blob.size for blob in may_go) < at_least:
            return 0
        held = await self._needs.held([blob.digest for blob in may_go])
        ordered = self._policy.in_order(may_go, held, needed.live)
        files = size = 0
        for first in range(0, len(ordered), self._policy.batch):
            if size >= wanted:
                break
            batch = ordered[first : first + self._policy.batch]
            gone, freed = await asyncio.to_thread(self._delete, batch, wanted - size)
            files, size = files + gone, size + freed
        if files:
            log.info("blobs_evicted", files=files, size=size, wanted=wanted)
            self._on_evicted(files, size)
        if size < wanted:
            log.warning("too_little_evicted", size=size, wanted=wanted)
        return size

    def _delete(self, blobs: Sequence[StoredBlob], wanted: int) -> tuple[int, int]:
        files = size = 0
        for blob in blobs:
            if size >= wanted:
                break
            if self._store.evict(blob):
                files, size = files + 1, size + blob.size
        return files, size

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Nobody else evicts, in this process or another."""
        async with self._turn, self._locked("eviction.lock", _LOCK_SECONDS):
            yield

    @asynccontextmanager
    async def _locked(self, name: str, pause: float) -> AsyncIterator[None]:
        path = self._store.layout.blobs / name
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise storage_error(error, f"open {path}") from error
        try:
            while not _try_lock(descriptor, path):  # noqa: ASYNC110 - another process holds it
                await asyncio.sleep(pause)
            yield
        finally:
            os.close(descriptor)


def _try_lock(descriptor: int, path: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise Unavailable(f"the store cannot lock {path}: {error.strerror}") from error
    return True
