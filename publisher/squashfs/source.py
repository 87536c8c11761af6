"""Bytes that are read at any place, and a section of them that nobody leaves."""

from __future__ import annotations

import os
from typing import Protocol

from publisher.errors import BrokenLayer


class RandomAccess(Protocol):
    """Bytes that are there as a whole, such as a file."""

    @property
    def size(self) -> int:
        """How many."""

    def read_at(self, offset: int, size: int) -> bytes:
        """The bytes from `offset` on, at most `size` and, but for the end, as many."""


class FileBytes:
    """An open file."""

    def __init__(self, descriptor: int) -> None:
        """descriptor: of a regular file that does not change; stays the caller's."""
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size

    def read_at(self, offset: int, size: int) -> bytes:
        """What `RandomAccess` says."""
        parts = []
        while size > 0 and (part := os.pread(self._descriptor, size, offset)):
            parts.append(part)
            offset += len(part)
            size -= len(part)
        return b"".join(parts)


class Section:
    """A part of such bytes: offsets count from its begin."""

    def __init__(self, source: RandomAccess, begin: int, size: int) -> None:
        """Raises BrokenLayer unless the source has all of it."""
        if begin < 0 or size < 0 or begin + size > source.size:
            raise BrokenLayer(f"its file system should be bytes {begin} to {begin + size}, but the file has {source.size}")
        self._source = source
        self._begin = begin
        self.size = size

    def read(self, offset: int, size: int, what: str) -> bytes:
        """Exactly `size` bytes. Raises BrokenLayer, which says what was looked for."""
        if offset < 0 or size < 0 or offset + size > self.size:
            raise BrokenLayer(f"the squashfs has {what} at {offset}, which is beyond its end or leads there")
        data = self._source.read_at(self._begin + offset, size)
        if len(data) < size:
            raise BrokenLayer(f"the squashfs is cut within {what} at {offset}")
        return data
