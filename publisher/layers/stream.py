"""The bytes of a layer: recognised, inflated, hashed and counted on the way, never more in memory than a few blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from isal import igzip_lib

from publisher.errors import BrokenLayer, UnsafeLayer
from publisher.layers.limits import LayerLimits

if TYPE_CHECKING:
    from hashlib import _Hash

_READ = 256 << 10
_BLOCK = 256 << 10
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_GZIP_ERROR: type[Exception] = igzip_lib.IsalError  # type: ignore[assignment]  # its stub declares an instance


class Readable(Protocol):
    """A blob as it lies in the store, such as an open file."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; empty at the end."""


class LayerStream:
    """The uncompressed archive of a gzip-compressed or uncompressed layer, read forward only.

    Raises BrokenLayer where the compression is damaged or cut, UnsafeLayer where it expands beyond the limits.
    """

    def __init__(self, source: Readable, limits: LayerLimits, hasher: _Hash) -> None:
        """hasher: fed with every uncompressed byte, those behind the archive's end included."""
        self._source = source
        self._limits = limits
        self._hasher = hasher
        self._compressed = 0
        self._holes = 0
        self._produced = 0
        self._block = b""
        self._at = 0
        first = b""
        while len(first) < len(_ZSTD) and (more := self._fetch()):
            first += more
        if first.startswith(_ZSTD):
            raise BrokenLayer("the layer is compressed with zstd, which cannot be unpacked yet; gzip and plain tar can")
        self._pending = first
        self._inflater = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP) if first.startswith(_GZIP) else None

    @property
    def position(self) -> int:
        """Offset of the next byte in the uncompressed archive."""
        return self._produced - len(self._block) + self._at

    @property
    def size(self) -> int:
        """Uncompressed bytes so far; the archive's size once it is drained."""
        return self._produced

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes, or fewer at the end."""
        end = self._at + size
        if end <= len(self._block):
            piece = self._block[self._at : end]
            self._at = end
            return piece
        pieces = [self._block[self._at :]]
        size -= len(pieces[0])
        while size > 0 and self._next():
            pieces.append(self._block[:size])
            self._at = len(pieces[-1])
            size -= self._at
        return b"".join(pieces)

    def skip(self, size: int) -> int:
        """Pass over `size` bytes; how many there were."""
        left = size
        while left > 0:
            here = min(left, len(self._block) - self._at)
            self._at += here
            left -= here
            if left and not self._next():
                break
        return size - left

    def drain(self) -> None:
        """Read to the end; what stands behind an archive's end is part of its digest."""
        while self._next():
            pass

    def count_hole(self, size: int) -> None:
        """Let `size` bytes that a sparse file expands to count as if the stream had held them."""
        self._holes += size
        self._check()

    def _next(self) -> bool:
        """Go to the next block; false at the end, where the current block is left empty."""
        self._block = self._inflate() if self._inflater is not None else (self._take_pending() or self._fetch())
        self._at = 0
        self._hasher.update(self._block)
        self._produced += len(self._block)
        self._check()
        return bool(self._block)

    def _check(self) -> None:
        expanded = self._produced + self._holes
        if expanded > self._limits.expanded_bytes:
            raise UnsafeLayer(f"the layer expands to more than the {self._limits.expanded_bytes} bytes that are allowed")
        if expanded > self._limits.ratio_from and expanded > self._limits.ratio * self._compressed:
            raise UnsafeLayer(f"the layer expands to more than {self._limits.ratio} times its compressed size")

    def _inflate(self) -> bytes:
        while self._inflater is not None:
            if self._inflater.eof:
                self._begin_next_member(self._inflater.unused_data)
                continue
            given = b""
            if self._inflater.needs_input:
                given = self._take_pending() or self._fetch()
                if not given:
                    raise BrokenLayer(f"the layer's gzip stream is cut after {self._compressed} bytes")
            try:
                block: bytes = self._inflater.decompress(given, _BLOCK)
            except _GZIP_ERROR as error:
                raise BrokenLayer(f"the layer's gzip stream is damaged near byte {self._compressed}: {error}") from error
            if block:
                return block
        return b""

    def _begin_next_member(self, rest: bytes) -> None:
        """A gzip stream may be a series of members, and may be padded with zeros (RFC 1952, section 2.2)."""
        rest = rest.lstrip(b"\0")
        while len(rest) < len(_GZIP):
            more = self._fetch()
            if not more:
                break
            rest = (rest + more).lstrip(b"\0")
        self._inflater = None
        if rest:
            if not rest.startswith(_GZIP):
                raise BrokenLayer(f"the layer's gzip stream is followed by something else, near byte {self._compressed}")
            self._pending = rest
            self._inflater = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)

    def _take_pending(self) -> bytes:
        pending, self._pending = self._pending, b""
        return pending

    def _fetch(self) -> bytes:
        data = self._source.read(_READ)
        self._compressed += len(data)
        return data
