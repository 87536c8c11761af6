"""A layer as it is stored: read forward, counted, with what was read too far put back; and what decompressors of it look like."""

from __future__ import annotations

from typing import Protocol

_READ = 256 << 10


class Readable(Protocol):
    """A blob as it lies in the store, such as an open file."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; empty at the end."""


class Packed:
    """The bytes of the blob."""

    def __init__(self, source: Readable) -> None:
        self._source = source
        self._pending = b""
        self.position = 0
        """Bytes taken from the source so far."""

    def take(self) -> bytes:
        """The next bytes, as many as come at once; empty at the end."""
        if self._pending:
            pending, self._pending = self._pending, b""
            return pending
        data = self._source.read(_READ)
        self.position += len(data)
        return data

    def put_back(self, data: bytes) -> None:
        """Let these bytes come next."""
        self._pending = data + self._pending

    def peek(self, size: int) -> bytes:
        """At least the next `size` bytes, which will come again; fewer only at the end."""
        while len(self._pending) < size:
            data = self._source.read(_READ)
            if not data:
                break
            self.position += len(data)
            self._pending += data
        return self._pending


class Decompressor(Protocol):
    """One format of compression, over all of a blob."""

    def read(self, size: int, /) -> bytes:
        """The next uncompressed bytes, at least one and at most `size`; empty at the end.

        Raises BrokenLayer where the compression is damaged or cut, UnsafeLayer where it asks for more memory than is allowed.
        """


class Uncompressed:
    """No compression: what is stored is what is meant."""

    def __init__(self, packed: Packed) -> None:
        self._packed = packed

    def read(self, size: int, /) -> bytes:
        """The next bytes, as they are."""
        data = self._packed.take()
        if len(data) > size:
            self._packed.put_back(data[size:])
            data = data[:size]
        return data
