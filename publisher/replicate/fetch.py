"""Objects on their way from the source into the replica: hundreds at a time, each verified before it can be seen.

Where there are many small ones, and the storage is a local directory, other processes carry them (`carriers.py`). Else they are
hashed where they arrive and written in batches, since handing one to a thread costs more than hashing it; larger ones are hashed
and written by threads, very large ones on their way through a file. Bytes in memory are bounded as a whole.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog
from cachetools import LRUCache

from mirror.errors import NotFound
from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.errors import RepositoryDamaged
from publisher.objects.http_client import RepositoryClient
from publisher.objects.local import LocalObjectStore
from publisher.replicate.budget import ByteBudget
from publisher.replicate.carrier import LARGEST as LARGEST_CARRIED
from publisher.replicate.carrier import Order
from publisher.replicate.carriers import Carriers
from publisher.replicate.listing import WantedObject
from publisher.replicate.model import Step
from publisher.replicate.transfer import PART_SUFFIX, Transfer
from publisher.replicate.workbench import Workbench
from publisher.replicate.wrong import WrongContent, verify

OnStored = Callable[[], None]

_SMALL = 64 << 10
_BATCH_OBJECTS = 128
_BATCH_BYTES = 2 << 20
_RECENT = 1 << 16
"""Objects stored last: other catalogs may have looked for them before, and ask for them now."""
_QUICK_SECONDS = 0.0003
_BOOKKEEPING = 1 << 10
"""Bytes that an object on its way takes beside its content."""

log = structlog.get_logger()


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
        self._writers = max(1, limits.threads // 2)
        self._idle = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._fetching = 0
        self._small: deque[_Small] = deque()
        self._filled = asyncio.Event()
        self._pace = _Pace()
        self._processes = min(limits.processes, _carried(limits.http.connections))
        self._order = _order(client, bench, self._processes)
        self._carriers: Carriers | None = None
        self._left_over = {file.name for file in bench.scratch.glob(f"*{PART_SUFFIX}")}

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
        if wanted.size > LARGEST_CARRIED or not await self._is_carried(wanted):
            await self._fetch_here(wanted)

    async def catalog(self, content: ContentHash, limit: int, target: Path) -> None:
        """Fetch the stored form of a catalog, of at most `limit` bytes, into a file.

        Raises NotFound, WrongContent, RepositoryDamaged, StorageFull, Unavailable.
        """
        transfer = Transfer(self._client, self._bench.threads, target, WantedObject(content, ObjectKind.CATALOG, 0), limit)
        try:
            await self._twice(lambda fresh: transfer.ask(fresh=fresh), lambda: transfer.gained)
        finally:
            transfer.close()

    def stop(self) -> None:
        """End the tasks; nothing may be under way."""
        for task in self._tasks:
            task.cancel()
        if self._carriers is not None:
            self._carriers.stop()

    async def close(self) -> None:
        """Return when nothing is stored any more, whatever ended the tasks."""
        if self._carriers is not None:
            await self._carriers.close()

    async def _is_carried(self, wanted: WantedObject) -> bool:
        """Whether a process fetches it, now or as soon as it can."""
        if self._order is None or self._bench.progress.found <= self._bench.limits.carried_above:
            return False
        if self._carriers is None:
            self._carriers = Carriers(self._order, self._group, on_stored=self._stored, on_refused=self._fetch_here)
            await self._carriers.start(self._processes)
        self._bench.on_step(Step.OBJECTS)
        return await self._carriers.take(wanted)

    async def _fetch_here(self, wanted: WantedObject) -> None:
        if self._idle == 0 and self._fetching < self._own_connections:
            self._start()
        await self._queue.put(wanted)

    @property
    def _own_connections(self) -> int:
        """What the processes leave of them, at least one."""
        carried = self._order.connections * self._processes if self._order and self._carriers else 0
        return self._bench.limits.http.connections - carried

    def _start(self) -> None:
        """One more task that fetches, and with the first of them those that write."""
        if not self._tasks:
            for _ in range(self._writers):
                self._tasks.append(self._group.create_task(self._write_small()))
        self._fetching += 1
        self._tasks.append(self._group.create_task(self._fetch_all()))

    async def _fetch_all(self) -> None:
        """Fetch one after another, until the processes have this task's connection."""
        while self._fetching <= self._own_connections:
            self._idle += 1
            try:
                wanted = await self._queue.get()
            finally:
                self._idle -= 1
            try:
                await self._take(wanted)
            except NotFound as error:
                raise RepositoryDamaged(f"an object of the repository is missing at the source: {error}") from error
        self._fetching -= 1

    async def _take(self, wanted: WantedObject) -> None:
        """Fetch an object and store it, or have it stored with other small ones."""
        file = self._bench.scratch / f"{wanted.content}{wanted.kind.value}{PART_SUFFIX}"
        large: list[Transfer] = []
        if file.name in self._left_over:
            large.append(self._transfer(wanted, file))
            await large[0].recover()
        try:
            await self._twice(partial(self._fetch, wanted, file, large), lambda: large[0].gained if large else 0)
            if large:
                await self._store_large(wanted, large[0])
        except RepositoryDamaged:
            if large:
                await self._bench.threads.run(partial(file.unlink, missing_ok=True))
            raise
        finally:
            for transfer in large:
                transfer.close()

    async def _twice(self, attempt: Callable[[bool], Awaitable[None]], gained: Callable[[], int]) -> None:
        """Try again past all caches if wrong bytes came: one of them may have spoilt them."""
        try:
            await self._client.retrying(lambda: attempt(False), gained)
        except WrongContent as error:
            log.warning("wrong_content", error=str(error), next="once more, past all caches")
            await self._client.retrying(lambda: attempt(True), gained)

    async def _fetch(self, wanted: WantedObject, file: Path, large: list[Transfer], fresh: bool) -> None:
        """One attempt. large: the object's transfer, once it is known to need one."""
        if large:
            await large[0].ask(fresh=fresh)
            return
        limit = self._limit(wanted)
        async with await self._client.begin(wanted.content.object_path(wanted.kind), limit, fresh=fresh) as body:
            length = limit if body.length is None else body.length
            if length > self._bench.limits.spooled_above:
                large.append(self._transfer(wanted, file))
                await large[0].take(body)
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

    def _transfer(self, wanted: WantedObject, file: Path) -> Transfer:
        return Transfer(self._client, self._bench.threads, file, wanted, self._limit(wanted))

    def _limit(self, wanted: WantedObject) -> int:
        return min(stored_limit(wanted.size), self._bench.limits.object_bytes)

    async def _store_large(self, wanted: WantedObject, transfer: Transfer) -> None:
        bench, size = self._bench, transfer.size
        transfer.close()
        await bench.threads.run(lambda: bench.store.put_file(wanted.content, wanted.kind, transfer.target))
        bench.on_step(Step.OBJECTS)
        self._stored(wanted, size)

    def _verify_and_put(self, wanted: WantedObject, data: bytes) -> None:
        verify(data, wanted.content, wanted.kind)
        self._bench.store.put(wanted.content, wanted.kind, data)

    async def _write_small(self) -> None:
        while True:
            await self._filled.wait()
            batch: list[_Small] = []
            size = 0
            most = _BATCH_OBJECTS if self._pace.is_quick else min(_BATCH_OBJECTS, -(-len(self._small) // self._writers))
            while self._small and len(batch) < most and size < _BATCH_BYTES:
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


def _carried(connections: int) -> int:
    """How many of them the processes get: three quarters, so that some are left for what they cannot fetch."""
    return connections * 3 // 4


def _order(client: RepositoryClient, bench: Workbench, processes: int) -> Order | None:
    """For so many processes; None if there are to be none, or the store is not on a disk."""
    http = bench.limits.http
    if not processes or not isinstance(bench.store, LocalObjectStore):
        return None
    return Order(
        url=client.url,
        storage=str(bench.store.root),
        connections=_carried(http.connections) // processes,
        connect_seconds=http.connect_seconds,
        silence_seconds=http.silence_seconds,
        slowest_rate=http.slowest_rate,
    )


def stored_limit(size: int) -> int:
    """Most bytes that content of this size may take in stored form: no compressor adds more."""
    return size + size // 8 + (64 << 10)
