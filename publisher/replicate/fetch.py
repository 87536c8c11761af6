"""Objects on their way from the source into the replica: hundreds at a time, each verified before it can be seen.

Small ones are hashed where they arrive and written in batches, since handing one to a thread costs more than hashing it; larger
ones are hashed and written by threads, very large ones on their way through a file. Bytes in memory are bounded as a whole.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from io import FileIO
from pathlib import Path

import structlog
from cachetools import LRUCache

from mirror.errors import NotFound
from publisher.cvmfs.hash import ContentHash, ContentHasher, ObjectKind
from publisher.errors import RepositoryDamaged
from publisher.objects.http_client import Body, RepositoryClient
from publisher.objects.store import ObjectStore
from publisher.replicate.budget import ByteBudget
from publisher.replicate.files import local_failures
from publisher.replicate.listing import WantedObject
from publisher.replicate.model import Step
from publisher.replicate.workbench import Workbench

OnStored = Callable[[], None]

_SMALL = 64 << 10
_PIECE = 256 << 10
_BATCH_OBJECTS = 128
_BATCH_BYTES = 2 << 20
_RECENT = 1 << 16
"""Objects stored last: other catalogs may have looked for them before, and ask for them now."""
_QUICK_SECONDS = 0.0003
_BOOKKEEPING = 1 << 10
"""Bytes that an object on its way takes beside its content."""

log = structlog.get_logger()


class WrongContent(RepositoryDamaged):
    """The source sent bytes that do not have the hash of what was asked for."""


@dataclass(frozen=True, slots=True)
class _Small:
    wanted: WantedObject
    data: bytes
    taken: int


class _Pace:
    """Whether the store is so quick that to hand over work to threads costs more than the work.

    On a local disk a put takes 40 us, and twice as much in a thread that competes for the interpreter lock; a replication as a
    whole needs 0.28 ms of CPU time an object without threads and 0.42 ms with them. Across a network it is the other way round.
    """

    def __init__(self) -> None:
        self.is_quick = False

    def note(self, objects: int, seconds: float) -> None:
        """How long the store took last."""
        self.is_quick = seconds < objects * _QUICK_SECONDS


class _Sink:
    """A file that an object goes into, hashed on the way. Closed at once also while a thread, which nobody waits for, writes."""

    def __init__(self, path: Path, content: ContentHash) -> None:
        self._path = path
        self._content = content
        self._hasher = ContentHasher(content.algorithm)
        self._file: FileIO | None = None
        self._closed = False
        self._lock = threading.Lock()

    def write(self, data: bytes) -> None:
        """Blocking; the first time makes the file. Raises StorageFull, Unavailable."""
        with self._lock, local_failures(self._path):
            if self._closed:
                return
            if self._file is None:
                self._file = self._path.open("wb", buffering=0)
            self._hasher.update(data)
            remaining = memoryview(data)
            while remaining:
                remaining = remaining[self._file.write(remaining) :]

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._file is not None:
                self._file.close()

    def is_right(self) -> bool:
        return self._hasher.result() == self._content


class ObjectFetcher:
    """Fetches what it is told into the store. Its tasks run in the given group, which the first failure ends."""

    def __init__(self, client: RepositoryClient, bench: Workbench, group: asyncio.TaskGroup) -> None:
        self._client = client
        self._bench = bench
        self._group = group
        limits = bench.limits
        self._budget = ByteBudget(limits.held_bytes)
        self._queue: asyncio.Queue[WantedObject] = asyncio.Queue(2 * limits.http.connections)
        self._under_way: dict[tuple[ContentHash, ObjectKind], list[OnStored]] = {}
        self._recent: LRUCache[tuple[ContentHash, ObjectKind], None] = LRUCache(_RECENT)
        self._idle = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._fetching = 0
        self._small: deque[_Small] = deque()
        self._filled = asyncio.Event()
        self._pace = _Pace()

    async def want(self, wanted: WantedObject, on_stored: OnStored) -> None:
        """Fetch an object that the store lacks, once for all who want it; waits while too many are under way."""
        key = (wanted.content, wanted.kind)
        if key in self._recent:
            on_stored()
            return
        if key in self._under_way:
            self._under_way[key].append(on_stored)
            return
        self._under_way[key] = [on_stored]
        self._bench.progress.found += 1
        if self._idle == 0 and self._fetching < self._bench.limits.http.connections:
            self._start()
        await self._queue.put(wanted)

    async def catalog(self, content: ContentHash, limit: int, target: Path) -> None:
        """Fetch the stored form of a catalog, of at most `limit` bytes, into a file.

        Raises NotFound, WrongContent, RepositoryDamaged, StorageFull, Unavailable.
        """

        async def attempt(fresh: bool) -> None:
            async with await self._client.begin(content.object_path(ObjectKind.CATALOG), limit, fresh=fresh) as body:
                await self._into(target, body, content, ObjectKind.CATALOG)

        await self._twice(attempt)

    def stop(self) -> None:
        """End the tasks; nothing may be under way."""
        for task in self._tasks:
            task.cancel()

    def _start(self) -> None:
        """One more task that fetches, and with the first of them those that write."""
        if not self._tasks:
            for _ in range(max(1, self._bench.limits.threads // 2)):
                self._tasks.append(self._group.create_task(self._write_small()))
        self._fetching += 1
        self._tasks.append(self._group.create_task(self._fetch_all()))

    async def _fetch_all(self) -> None:
        while True:
            self._idle += 1
            try:
                wanted = await self._queue.get()
            finally:
                self._idle -= 1
            try:
                await self._twice(partial(self._fetch, wanted))
            except NotFound as error:
                raise RepositoryDamaged(f"an object of the repository is missing at the source: {error}") from error

    async def _twice(self, attempt: Callable[[bool], Awaitable[None]]) -> None:
        """Try again past all caches if wrong bytes came: one of them may have spoilt them."""
        try:
            await self._client.retrying(lambda: attempt(False))
        except WrongContent as error:
            log.warning("wrong_content", error=str(error), next="once more, past all caches")
            await self._client.retrying(lambda: attempt(True))

    async def _fetch(self, wanted: WantedObject, fresh: bool) -> None:
        limits = self._bench.limits
        limit = min(stored_limit(wanted.size), limits.object_bytes)
        async with await self._client.begin(wanted.content.object_path(wanted.kind), limit, fresh=fresh) as body:
            length = limit if body.length is None else body.length
            if length > limits.spooled_above:
                await self._fetch_large(wanted, body)
                return
            taken = await self._budget.take(length + _BOOKKEEPING)
            try:
                data = await body.whole()
                if length <= _SMALL:
                    verify(data, wanted.content, wanted.kind)
                    self._small.append(_Small(wanted, data, taken))
                    self._filled.set()
                    taken = 0
                    return
                await self._bench.threads.run(lambda: self._verify_and_put(wanted, data))
                self._bench.on_step(Step.OBJECTS)
                self._stored(wanted, len(data))
            finally:
                self._budget.give_back(taken)

    async def _fetch_large(self, wanted: WantedObject, body: Body) -> None:
        bench = self._bench
        file = bench.scratch / f"{wanted.content}{wanted.kind.value}"
        try:
            size = await self._into(file, body, wanted.content, wanted.kind)
            await bench.threads.run(lambda: put_file(bench.store, wanted.content, wanted.kind, file))
        finally:
            await bench.threads.run(lambda: file.unlink(missing_ok=True))
        bench.on_step(Step.OBJECTS)
        self._stored(wanted, size)

    async def _into(self, target: Path, body: Body, content: ContentHash, kind: ObjectKind) -> int:
        """Write an answer's content to a file and verify it; its bytes."""
        sink = _Sink(target, content)
        size = 0
        try:
            while data := await _piece(body):
                size += len(data)
                await self._bench.threads.run(partial(sink.write, data))
            if size == 0:
                await self._bench.threads.run(partial(sink.write, b""))
        finally:
            sink.close()
        if not sink.is_right():
            raise _wrong(content, kind)
        return size

    def _verify_and_put(self, wanted: WantedObject, data: bytes) -> None:
        verify(data, wanted.content, wanted.kind)
        self._bench.store.put(wanted.content, wanted.kind, data)

    async def _write_small(self) -> None:
        while True:
            await self._filled.wait()
            batch: list[_Small] = []
            size = 0
            while self._small and len(batch) < _BATCH_OBJECTS and size < _BATCH_BYTES:
                item = self._small.popleft()
                batch.append(item)
                size += len(item.data)
            if not self._small:
                self._filled.clear()
            if not batch:
                continue
            self._bench.on_step(Step.OBJECTS)
            if self._pace.is_quick:
                self._put_all(batch)
            else:
                await self._bench.threads.run(partial(self._put_all, batch))
            for item in batch:
                self._budget.give_back(item.taken)
                self._stored(item.wanted, len(item.data))

    def _put_all(self, batch: list[_Small]) -> None:
        began = time.perf_counter()
        for item in batch:
            self._bench.store.put(item.wanted.content, item.wanted.kind, item.data)
        self._pace.note(len(batch), time.perf_counter() - began)

    def _stored(self, wanted: WantedObject, size: int) -> None:
        progress = self._bench.progress
        progress.objects += 1
        progress.bytes += size
        self._bench.on_progress(progress)
        key = (wanted.content, wanted.kind)
        self._recent[key] = None
        for on_stored in self._under_way.pop(key):
            on_stored()


def put_file(store: ObjectStore, content: ContentHash, kind: ObjectKind, path: Path) -> int:
    """Put a file's bytes without having them all in memory; how many. Blocking. Raises StorageFull, Unavailable."""
    with local_failures(path), path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            store.put(content, kind, b"")
            return 0
        with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as data:
            store.put(content, kind, data)
        return size


def stored_limit(size: int) -> int:
    """Most bytes that content of this size may take in stored form: no compressor adds more."""
    return size + size // 8 + (64 << 10)


def verify(data: bytes, content: ContentHash, kind: ObjectKind) -> None:
    """Refuse bytes that are not what was asked for. Raises WrongContent."""
    if ContentHash.of(data, content.algorithm) != content:
        raise _wrong(content, kind)


async def _piece(body: Body) -> bytes:
    """Some of an answer's content, enough to be worth a thread's while; empty at the end."""
    pieces, size = [], 0
    while size < _PIECE and (piece := await body.read()):
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)


def _wrong(content: ContentHash, kind: ObjectKind) -> WrongContent:
    return WrongContent(f"the source sent other bytes than those of the object {content.object_path(kind)}: their hash differs")
