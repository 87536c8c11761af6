"""One asker's view of a blob: from the store, from a part file that grows, or straight from the upstream."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from mirror.errors import IntegrityError, MirrorError
from mirror.fetch.download import Download, DownloadPolicy, Source
from mirror.fetch.fill import Detached, Fill, OpenFile
from mirror.fetch.result import CacheResult
from mirror.oci.digest import Digest


@dataclass(frozen=True, slots=True)
class FileSpan:
    """Bytes of a blob that are in a file: its descriptor stays open while the reader is."""

    file: OpenFile
    offset: int
    length: int

    def read(self) -> bytes:
        """The bytes themselves, for who cannot use the file. May be short if the file is."""
        return os.pread(self.file.fileno(), self.length, self.offset)


class BlobReader(ABC):
    """Reads one blob; a context manager, and to be closed.

    result: hit if the blob was in the store, miss if this asker began the fill, joined otherwise.
    """

    result: CacheResult

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Stop reading. A fill goes on nevertheless."""

    @abstractmethod
    async def started(self) -> int | None:
        """Size in bytes of the blob, None if the upstream does not say, as soon as that is sure to be there.

        Raises NotFound, Denied, Unavailable, IntegrityError.
        """

    @abstractmethod
    def spans(self, start: int = 0, end: int | None = None) -> AsyncGenerator[FileSpan | bytes, None]:
        """The bytes from `start` to `end` (exclusive; None: the blob's end) in order, each piece as soon as it can be had.

        To be called after `started`. The blob's last byte comes only when the whole is verified. Raises Unavailable,
        IntegrityError: what was given out must then not be taken for complete.
        """

    @abstractmethod
    async def stored(self) -> Path:
        """The committed, verified file, once it is there.

        Raises NotFound, Denied, Unavailable, IntegrityError; StorageFull if the store could not keep it.
        """


class StoredReader(BlobReader):
    """Reads a committed blob."""

    result = CacheResult.HIT

    def __init__(self, file: OpenFile, size: int, path: Path) -> None:
        """Owns the file from now on."""
        self._file = file
        self._size = size
        self._path = path

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    async def started(self) -> int:
        """Size in bytes of the blob."""
        return self._size

    async def spans(self, start: int = 0, end: int | None = None) -> AsyncGenerator[FileSpan | bytes, None]:
        """The bytes, in one piece."""
        last = self._size if end is None else min(end, self._size)
        if last > start:
            yield FileSpan(self._file, start, last - start)

    async def stored(self) -> Path:
        """The committed file."""
        return self._path


class FillReader(BlobReader):
    """Reads along with a fill."""

    def __init__(
        self, fill: Fill, source: Source, policy: DownloadPolicy, result: CacheResult, on_wrong: Callable[[Digest], None]
    ) -> None:
        """on_wrong: called if what passes by unkept is not what the digest promises."""
        self.result = result
        self._on_wrong = on_wrong
        self._fill = fill
        self._source = source
        self._policy = policy
        self._open = True
        fill.retain()

    def close(self) -> None:
        """Let go of the fill."""
        if self._open:
            self._open = False
            self._fill.release()

    async def started(self) -> int | None:
        """See BlobReader."""
        return await self._fill.started(self._source)

    async def spans(self, start: int = 0, end: int | None = None) -> AsyncGenerator[FileSpan | bytes, None]:
        """See BlobReader."""
        fill = self._fill
        position = start
        while end is None or position < end:
            available = await fill.wait_for(position)
            if available > position:
                upto = available if end is None else min(available, end)
                yield FileSpan(fill.file, position, upto - position)
                position = upto
            elif fill.detached is not None:
                async with aclosing(self._from_upstream(fill.detached, position, end)) as pieces:
                    async for piece in pieces:
                        yield piece
                return
            else:
                return

    async def stored(self) -> Path:
        """See BlobReader."""
        await self.started()
        return await self._fill.stored()

    async def _from_upstream(self, detached: Detached, position: int, end: int | None) -> AsyncGenerator[bytes, None]:
        """Go on from the upstream, with this asker's own rights.

        Whoever reads to the blob's end reads what is between the detaching and the position too: it belongs to the hash.
        """
        total = self._fill.total
        verified = end is None or (total is not None and end >= total)
        place = detached.offset if verified else position
        hasher = detached.hasher.copy()
        held = b""
        download = Download(
            self._fill.ways(self._source),
            self._fill.digest,
            offset=place,
            size=total,
            policy=self._policy,
            on_start=_ignore_start,
            on_refusal=_ignore_refusal,
            in_progress=True,
        )
        async with aclosing(download.chunks()) as chunks:
            async for chunk in chunks:
                if verified:
                    hasher.update(chunk)
                piece = held + chunk[max(position - place, 0) :]
                place += len(chunk)
                if verified:
                    piece, held = piece[:-1], piece[-1:]
                elif end is not None and place >= end:
                    yield piece[: len(piece) - (place - end)]
                    return
                if piece:
                    yield piece
        if hasher.hexdigest() != self._fill.digest.hex:
            self._on_wrong(self._fill.digest)
            raise IntegrityError(f"what came as {self._fill.digest} from {self._source.name} has another digest")
        if held:
            yield held


def _ignore_start(total: int | None) -> None:
    """The size is known from before, and was compared."""


def _ignore_refusal(source: Source, error: MirrorError) -> None:
    """The last one is raised."""
