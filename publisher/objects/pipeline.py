"""From content to stored objects: chunk, compress, hash, put, on as many threads as there are cores.

The thread that reads a layer hands over content and gets tickets; worker threads do the rest while it reads on. Bytes on their
way are bounded over all layers that share the pipeline; small files travel in batches, since handing one over costs as much as
compressing a kilobyte. Compression, hashing and file system calls release the interpreter lock. Content that the repository is
known to have is only looked for in the store.
"""

from __future__ import annotations

import io
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeAlias

from mirror.errors import InvalidInput
from publisher.cvmfs.entry import Chunk
from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.objects.compress import Compressor
from publisher.objects.known import KnownContent, KnownObject
from publisher.objects.store import ObjectStore

_WORTH_KNOWING = 8192
"""Bytes of content; to compress less takes no longer than to look it up."""


@dataclass(frozen=True, slots=True)
class PipelineLimits:
    """All in bytes, but for threads and numbers of files."""

    chunk_above: int = 8 << 20
    """A larger file is stored in chunks, a smaller or equal one as one object."""
    chunk_size: int = 8 << 20
    bytes_in_flight: int = 64 << 20
    """Content that was handed over and is not yet stored, of all layers together."""
    batch: int = 256 << 10
    """Small files are handed over together until they have this much content."""
    batch_files: int = 256
    threads: int = len(os.sched_getaffinity(0))
    small: int = 16 << 10
    """Up to this size a file is small: its work is a row of short calls."""
    small_threads: int = 1
    """Threads for small files alone. Several of them only take the interpreter lock from one another, unless the store is far."""
    known: int = 1_000_000
    """Contents of which is remembered what became of them, so that they are not compressed again; twice as many at the most."""

    def __post_init__(self) -> None:
        """Raises InvalidInput where one piece could never fit in."""
        if min(self.chunk_above, self.chunk_size, self.batch, self.batch_files, self.threads, self.small_threads) < 1:
            raise InvalidInput("sizes, batches and threads of the object pipeline must be at least 1")
        if self.bytes_in_flight < max(self.chunk_size, self.chunk_above, self.batch) * 2:
            raise InvalidInput("bytes_in_flight must be at least twice chunk_size, chunk_above and batch")


class Ticket:
    """Content that was handed over. What it became is known once its intake is finished."""

    __slots__ = ("_pieces", "content", "size")

    def __init__(self, size: int, pieces: int) -> None:
        """Content of `size` bytes, in one piece (pieces = 0) or in chunks."""
        self.size = size
        self.content: ContentHash | None = None
        """Hash of the object; stays None for a chunked file."""
        self._pieces: list[Chunk | None] | None = [None] * pieces if pieces else None

    @property
    def chunks(self) -> tuple[Chunk, ...]:
        """Chunks of a chunked file in their order; empty for others."""
        return tuple(chunk for chunk in self._pieces or () if chunk is not None)

    def settle(self, piece: int, offset: int, size: int, content: ContentHash) -> None:
        """Note what one piece became; each piece exactly once, from any thread."""
        if self._pieces is None:
            self.content = content
        else:
            self._pieces[piece] = Chunk(offset, size, content)

    @property
    def kind(self) -> ObjectKind:
        """What the pieces are stored as."""
        return ObjectKind.DATA if self._pieces is None else ObjectKind.CHUNK


@dataclass(slots=True)
class _Piece:
    ticket: Ticket
    number: int
    offset: int
    data: bytes

    def settle(self, content: ContentHash) -> None:
        self.ticket.settle(self.number, self.offset, len(self.data), content)


_Keep: TypeAlias = Callable[[Sequence[_Piece], Callable[[], bool]], None]
"""Stores pieces, unless it is to stop meanwhile."""


class Pipeline:
    """Worker threads, one compressor and one store, shared by all layers in work. To be closed, or used in a `with`."""

    def __init__(
        self, store: ObjectStore, compressor: Compressor, limits: PipelineLimits, known: KnownContent | None = None
    ) -> None:
        """known: what this compressor has made for this store; closed with the pipeline."""
        self._store = store
        self._compressor = compressor
        self._limits = limits
        self._known = known
        self._pool = ThreadPoolExecutor(limits.threads, thread_name_prefix="objects")
        self._small_pool = ThreadPoolExecutor(limits.small_threads, thread_name_prefix="small objects")
        self._budget = _Budget(limits.bytes_in_flight)

    def intake(self) -> Intake:
        """A way in for the files of one layer, to be used by one thread in a `with`. Its failures do not touch other layers."""
        return Intake(self._pool, self._small_pool, self._budget, self._limits, self._keep)

    def close(self) -> None:
        """End the worker threads, once they have done what they were given."""
        self._pool.shutdown()
        self._small_pool.shutdown()
        if self._known is not None:
            self._known.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _keep(self, pieces: Sequence[_Piece], is_stopped: Callable[[], bool]) -> None:
        if self._known is None:
            for piece in pieces:
                if not is_stopped():
                    self._store_piece(piece)
            return
        key_of = self._known.key
        keys = [key_of(piece.data, piece.ticket.kind) if len(piece.data) >= _WORTH_KNOWING else b"" for piece in pieces]
        found = self._known.find({key for key in keys if key})
        for piece, key in zip(pieces, keys, strict=True):
            if is_stopped():
                return
            known = found.get(key)
            if known is not None and self._store.renew(known.content, piece.ticket.kind, known.size):
                piece.settle(known.content)
                continue
            stored = self._store_piece(piece)
            if key:
                self._known.note(key, stored)

    def _store_piece(self, piece: _Piece) -> KnownObject:
        stored = memoryview(self._compressor.compress(piece.data))
        content = ContentHash.of(stored)
        self._store.put(content, piece.ticket.kind, stored)
        piece.settle(content)
        return KnownObject(content, len(stored))


class _Lane:
    """Pieces that wait for being handed over together, and the threads that take them."""

    __slots__ = ("pieces", "pool", "size")

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.pool = pool
        self.pieces: list[_Piece] = []
        self.size = 0


class Intake:
    """Takes the files of one layer. Leaving the `with` block waits for all of them, or drops what waits if the block failed."""

    def __init__(
        self, pool: ThreadPoolExecutor, small: ThreadPoolExecutor, budget: _Budget, limits: PipelineLimits, keep: _Keep
    ) -> None:
        """Not to be called directly: `Pipeline.intake` is."""
        self._lane = _Lane(pool)
        self._small = _Lane(small)
        self._budget = budget
        self._limits = limits
        self._keep = keep
        self._running: deque[tuple[Future[None], int]] = deque()
        self._stopped = False

    def add(self, size: int, read: Callable[[int], bytes]) -> Ticket:
        """Take a file of `size` bytes; `read` gives exactly as many of its next bytes as it is asked for.

        A file that is chunked is read and handed over chunk by chunk. Raises what `read` raises, and the first failure of the
        store (StorageFull, Unavailable), be it of an earlier file.
        """
        step = self._limits.chunk_size
        if size <= max(step, self._limits.chunk_above):
            ticket = Ticket(size, 0)
            lane = self._small if size <= self._limits.small else self._lane
            lane.pieces.append(_Piece(ticket, 0, 0, read(size)))
            lane.size += size
            if lane.size >= self._limits.batch or len(lane.pieces) >= self._limits.batch_files:
                self._hand_over(lane)
            return ticket
        self._hand_over(self._lane)
        ticket = Ticket(size, -(-size // step))
        for number, offset in enumerate(range(0, size, step)):
            length = min(step, size - offset)
            self._budget.take(length)
            try:
                piece = _Piece(ticket, number, offset, read(length))
            except BaseException:
                self._budget.give_back(length)
                raise
            self._submit(self._lane.pool, [piece], length)
        return ticket

    def add_bytes(self, content: bytes) -> Ticket:
        """Take a small file that is in memory anyway. Raises as `add` does."""
        return self.add(len(content), io.BytesIO(content).read)

    def add_pieces(self, pieces: Sequence[bytes]) -> Ticket:
        """Take content that is in memory, as a chunked file whose chunks are these pieces. Raises as `add` does."""
        self._hand_over(self._lane)
        ticket = Ticket(sum(map(len, pieces)), len(pieces))
        offset = 0
        for number, data in enumerate(pieces):
            self._budget.take(len(data))
            self._submit(self._lane.pool, [_Piece(ticket, number, offset, data)], len(data))
            offset += len(data)
        return ticket

    def finish(self) -> None:
        """Return when everything taken so far is stored. Raises the first failure of the store."""
        self._hand_over(self._small)
        self._hand_over(self._lane)
        while self._running:
            self._running.popleft()[0].result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            self._abandon()

    def _hand_over(self, lane: _Lane) -> None:
        if lane.pieces:
            pieces, size = lane.pieces, lane.size
            lane.pieces, lane.size = [], 0
            self._budget.take(size)
            self._submit(lane.pool, pieces, size)

    def _submit(self, pool: ThreadPoolExecutor, pieces: list[_Piece], size: int) -> None:
        self._running.append((pool.submit(self._work, pieces, size), size))
        while self._running and (self._stopped or self._running[0][0].done()):
            self._running.popleft()[0].result()

    def _work(self, pieces: list[_Piece], size: int) -> None:
        done = False
        try:
            self._keep(pieces, lambda: self._stopped)
            done = True
        finally:
            self._stopped = self._stopped or not done
            self._budget.give_back(size)

    def _abandon(self) -> None:
        """Let nothing of a failed layer run on: what has not begun is dropped, what runs is awaited."""
        if not self._running:
            return
        self._stopped = True
        for future, size in self._running:
            if future.cancel():
                self._budget.give_back(size)
        wait([future for future, _ in self._running])
        self._running.clear()


class _Budget:
    """Bytes that may be on their way at the same time."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._changed = threading.Condition()

    def take(self, size: int) -> None:
        with self._changed:
            while self._free < size:
                self._changed.wait()
            self._free -= size

    def give_back(self, size: int) -> None:
        with self._changed:
            self._free += size
            self._changed.notify_all()
