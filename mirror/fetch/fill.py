"""One blob on its way in, as those who read it see it: how far it is, whether it is right, what became of it.

No I/O happens here. A `Fill` is told of events by its `Filler` (`mirror.fetch.filler`) and asked by any number of readers.
The last byte of a blob is given out only when the digest of the whole is verified, so that nobody who reads a wrong body can take
it for complete.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mirror.errors import IntegrityError, MirrorError
from mirror.fetch.download import Source
from mirror.oci.digest import Digest

if TYPE_CHECKING:
    from hashlib import _Hash


class OpenFile(Protocol):
    """Something with a descriptor to read from at explicit offsets."""

    def fileno(self) -> int:
        """The descriptor."""

    def close(self) -> None:
        """Close it."""


@dataclass(frozen=True, slots=True)
class Detached:
    """The store cannot take more: from `offset` on, every reader gets the blob from the upstream for itself.

    hasher: of all bytes before the offset; to be copied, not fed.
    """

    offset: int
    hasher: _Hash
    reason: MirrorError


class Fill:
    """The state of one blob that is being fetched."""

    def __init__(self, digest: Digest, size: int | None, source: Source, *, mirrors: bool = True) -> None:
        """size: in bytes, if a manifest says so. mirrors: whether those of the upstream may be asked."""
        self.digest = digest
        self.total = size
        self.is_started = False
        self.was_followed = False
        """Whether another process brought it in."""
        self.detached: Detached | None = None
        self._mirrors = mirrors
        self._sources = list(self.ways(source))
        self._refusals: dict[Source, MirrorError] = {}
        self._file: OpenFile | None = None
        self._users = 0
        self._available = 0
        self._is_verified = False
        self._path: Path | None = None
        self._not_stored: MirrorError | None = None
        self._error: MirrorError | None = None
        self._changed = asyncio.Event()

    # For readers

    @property
    def sources(self) -> Sequence[Source]:
        """Everybody's ways to the blob, the first asker's first; they grow while others join."""
        return self._sources

    @property
    def file(self) -> OpenFile:
        """What has arrived is in here; to be read by who has retained the fill and waited for the offset."""
        if self._file is None:
            raise RuntimeError("nothing has arrived yet")
        return self._file

    def join(self, source: Source) -> None:
        """Another reader, whose repository may be tried if the others' do not give the blob."""
        self._sources += [way for way in self.ways(source) if way not in self._sources]

    def ways(self, source: Source) -> tuple[Source, ...]:
        """Whom to ask for the blob on behalf of a source."""
        return source.ways if self._mirrors else (source,)

    def retain(self) -> None:
        """Keep the file open until `release` is called as often as this."""
        self._users += 1

    def release(self) -> None:
        """Undo one `retain`."""
        self._users -= 1
        if self._users == 0 and self._file is not None:
            self._file.close()
            self._file = None

    async def started(self, source: Source) -> int | None:
        """Size in bytes of the blob, None if nobody says, as soon as an upstream has begun to give it.

        Raises what stands in this source's way: NotFound, Denied, Unavailable, IntegrityError.
        """
        while not self.is_started:
            if self._error is not None:
                raise self._refusals.get(source, self._error)
            await self._changed.wait()
        return self.total

    async def wait_for(self, offset: int) -> int:
        """The end of what can be read now, greater than `offset`; equal to it where the blob ends or the fill was detached.

        Raises Unavailable, IntegrityError.
        """
        while True:
            if self._is_verified:
                return max(self._available, offset)
            end = self._visible_end()
            if end > offset:
                return end
            if self.detached is not None:
                return offset
            if self._error is not None:
                raise self._error
            await self._changed.wait()

    async def stored(self) -> Path:
        """Where the blob is, once it is committed. Raises StorageFull if it passed by unkept, and why it failed."""
        while self._path is None:
            reason = self._error or self.not_kept
            if reason is not None:
                raise reason
            await self._changed.wait()
        return self._path

    @property
    def not_kept(self) -> MirrorError | None:
        """Why the blob, right as far as is known, is not in the store and will not be."""
        return self._not_stored or (self.detached.reason if self.detached is not None else None)

    @property
    def has_failed(self) -> bool:
        """Whether nothing more will come of it: who asks now begins another one."""
        return self._error is not None

    @property
    def is_wrong(self) -> bool:
        """Whether it failed because what came was not what the digest promises."""
        return isinstance(self._error, IntegrityError)

    @property
    def is_stored(self) -> bool:
        """Whether it is committed."""
        return self._path is not None

    def _visible_end(self) -> int:
        if self.detached is not None:
            return self.detached.offset
        last = self._available if self.total is None else min(self._available, self.total)
        holds_last_byte = self.total is None or last == self.total
        return max(last - 1, 0) if holds_last_byte else last

    # For the filler

    def refuse(self, source: Source, error: MirrorError) -> None:
        """This source does not give the blob."""
        self._refusals[source] = error

    def use_file(self, file: OpenFile) -> None:
        """What arrives is in this file; another one than before may only come while nobody reads, before the start."""
        if self._file is not None and self._file is not file:
            self._file.close()
            self._available = 0
        self._file = file

    def start(self, total: int | None) -> None:
        """The blob exists. Raises IntegrityError if it cannot have the digest: an empty one has no last byte to hold back."""
        if total == 0 and self.digest.hasher().hexdigest() != self.digest.hex:
            raise IntegrityError(f"{self.digest} is empty upstream, which is not what the digest promises")
        self.total = total
        self.is_started = True
        self._notify()

    def advance(self, available: int) -> None:
        """So many bytes are in the file."""
        if available > self._available:
            self._available = available
            self._notify()

    def verify(self, total: int) -> None:
        """All bytes are in the file, and right. Raises IntegrityError if readers were promised another number of them."""
        if self.is_started and self.total not in (None, total):
            raise IntegrityError(f"{self.digest} has {total} bytes, {self.total} were promised")
        self.total = self._available = total
        self.is_started = self._is_verified = True
        self._notify()

    def store(self, path: Path) -> None:
        """It is committed."""
        self._path = path
        self._notify()

    def keep_nothing(self, reason: MirrorError) -> None:
        """It is right, but could not be committed."""
        self._not_stored = reason
        self._notify()

    def detach(self, detached: Detached) -> None:
        """Readers are on their own from an offset."""
        self.detached = detached
        self._notify()

    def fail(self, error: MirrorError) -> None:
        """It will not get further."""
        self._error = error
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
