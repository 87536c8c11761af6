"""One object on its way into a file: hashed as it arrives, gone on with where a transfer broke, not believed before its end.

An object's name says what its bytes must be, so what came over several connections, even in several runs, is verified as a whole.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from functools import partial
from io import FileIO
from pathlib import Path

from mirror.upstream.model import UpstreamUnavailable
from publisher.cvmfs.hash import ContentHash, ContentHasher
from publisher.objects.http_client import Body, RepositoryClient
from publisher.replicate.files import local_failures
from publisher.replicate.listing import WantedObject
from publisher.replicate.workbench import Threads
from publisher.replicate.wrong import wrong

PART_SUFFIX = ".part"
"""Of files that the next replication may go on with."""

_PIECE = 256 << 10
_WORTH_A_TRY = 1 << 20
"""Bytes that must have come before a transfer that breaks counts as one that gets on."""


class _PartFile:
    """The file. All methods block, and may be called while a thread, which nobody waits for any more, writes."""

    def __init__(self, path: Path, content: ContentHash) -> None:
        self._path = path
        self._content = content
        self._hasher = ContentHasher(content.algorithm)
        self._file: FileIO | None = None
        self._closed = False
        self._lock = threading.Lock()
        self.size = 0

    def recover(self) -> None:
        """Take what an earlier run left."""
        with self._lock, local_failures(self._path):
            file = self._path.open("r+b", buffering=0)
            self._file = file
            while data := file.read(_PIECE):
                self._hasher.update(data)
                self.size += len(data)

    def write(self, data: bytes) -> None:
        """The first time makes the file."""
        with self._lock, local_failures(self._path):
            if self._closed:
                return
            if self._file is None:
                self._file = self._path.open("wb", buffering=0)
            self._hasher.update(data)
            remaining = memoryview(data)
            while remaining:
                remaining = remaining[self._file.write(remaining) :]
            self.size += len(data)

    def restart(self) -> None:
        """Begin with nothing."""
        with self._lock, local_failures(self._path):
            self._hasher = ContentHasher(self._content.algorithm)
            self.size = 0
            if self._file is not None and not self._closed:
                self._file.seek(0)
                self._file.truncate()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._file is not None:
                self._file.close()

    def is_right(self) -> bool:
        return self._hasher.result() == self._content


class Transfer:
    """One object, in as many attempts as it takes; to be closed."""

    def __init__(self, client: RepositoryClient, threads: Threads, target: Path, wanted: WantedObject, limit: int) -> None:
        """target: the file to write. limit: most bytes as stored."""
        self._client = client
        self._threads = threads
        self._wanted = wanted
        self._limit = limit
        self._part = _PartFile(target, wanted.content)
        self._if_range: str | None = None
        self.target = target

    @property
    def size(self) -> int:
        """Bytes that are in the file."""
        return self._part.size

    @property
    def gained(self) -> int:
        """Grows with each part of the object that is worth trying again for."""
        return self._part.size // _WORTH_A_TRY

    async def recover(self) -> None:
        """Go on with what an earlier run left in the file. Raises Unavailable."""
        await self._threads.run(self._part.recover)

    async def ask(self, *, fresh: bool) -> None:
        """Ask for what is still missing; past all caches, and for everything, if `fresh`.

        Raises NotFound, WrongContent (after which nothing is kept), RepositoryDamaged if there is too much, StorageFull,
        Unavailable (after which it can be asked again).
        """
        if fresh or self._part.size > self._limit:
            await self._threads.run(self._part.restart)
        if self._part.size and self._part.is_right():
            return
        path = self._wanted.content.object_path(self._wanted.kind)
        async with await self._client.begin(
            path, self._limit, fresh=fresh, offset=self._part.size, if_range=self._if_range
        ) as body:
            await self.take(body)

    async def take(self, body: Body) -> None:
        """Write an answer's content and verify the whole. Raises as `ask`."""
        part, run = self._part, self._threads.run
        if body.offset != part.size:
            await run(part.restart)
        self._if_range = body.if_range
        async for data in _pieces(body):
            await run(partial(part.write, data))
        if part.size == 0:
            await run(partial(part.write, b""))
        if not part.is_right():
            await run(part.restart)
            raise wrong(self._wanted.content, self._wanted.kind)

    def close(self) -> None:
        """End it; what is in the file stays there."""
        self._part.close()


async def _pieces(body: Body) -> AsyncIterator[bytes]:
    """An answer's content in pieces that are worth a thread's while; all that came, also if it breaks."""
    gathered: list[bytes] = []
    size = 0
    try:
        while piece := await body.read():
            gathered.append(piece)
            size += len(piece)
            if size >= _PIECE:
                yield b"".join(gathered)
                gathered, size = [], 0
    except UpstreamUnavailable:
        if gathered:
            yield b"".join(gathered)
        raise
    if gathered:
        yield b"".join(gathered)
