"""From the event loop to the end of a part file, in pieces that are worth a thread's while.

Chunks are gathered while the previous batch is written and hashed: a fast upstream makes large batches, a slow one is not kept
waiting. What is pending is bounded; `put` waits when the disk is slower than the upstream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from mirror.fetch.disk import DiskThreads
from mirror.store.part import PartFile

BATCH_BYTES = 512 * 1024
"""A batch this large is written without waiting for more."""
PENDING_BYTES = 4 << 20
"""Bytes in memory, at most (and one chunk), that are not written yet."""
GATHER_SECONDS = 0.01
"""For which a small batch waits to become larger."""
_CATCH_UP_BYTES = 64 << 20


class PartWriter:
    """Appends to a locked part in a task of its own; an async context manager around the appending."""

    def __init__(self, part: PartFile, disk: DiskThreads, on_written: Callable[[int], None]) -> None:
        """on_written: called with the size of the part after each batch."""
        self._part = part
        self._disk = disk
        self._on_written = on_written
        self._pending: list[bytes] = []
        self._length = 0
        self._ended = False
        self._some = asyncio.Event()
        self._enough = asyncio.Event()
        self._room = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._write())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self._task.done():
            self._task.cancel()
        await asyncio.wait([self._task])
        if not self._task.cancelled():
            # Whoever cares has got it from `put` or `finish`.
            self._task.exception()

    async def put(self, chunk: bytes) -> None:
        """Append. Raises StorageFull, Unavailable of this or an earlier chunk."""
        self._pending.append(chunk)
        self._length += len(chunk)
        self._some.set()
        if self._length >= BATCH_BYTES:
            self._enough.set()
        while self._length >= PENDING_BYTES and not self._task.done():
            self._room.clear()
            await self._room.wait()
        if self._task.done():
            await self._task

    async def finish(self) -> None:
        """Return once everything is written and hashed. Raises StorageFull, Unavailable."""
        self._ended = True
        self._some.set()
        self._enough.set()
        await self._task

    async def _write(self) -> None:
        try:
            while not self._part.is_hashed:
                await self._disk.run(self._part.catch_up, _CATCH_UP_BYTES)
            while not self._ended or self._pending:
                await self._some.wait()
                if self._length < BATCH_BYTES and self._part.size:
                    await self._gather()
                await self._write_batch()
        finally:
            self._room.set()

    async def _gather(self) -> None:
        try:
            async with asyncio.timeout(GATHER_SECONDS):
                await self._enough.wait()
        except TimeoutError:
            return

    async def _write_batch(self) -> None:
        batch, self._pending = self._pending, []
        self._length = 0
        if not self._ended:
            self._some.clear()
            self._enough.clear()
        self._room.set()
        if batch:
            await self._disk.run(self._part.append, batch)
            self._on_written(self._part.size)
