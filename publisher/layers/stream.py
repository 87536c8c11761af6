"""The bytes of a layer: recognised, unpacked, hashed and counted on the way, never more in memory than a few blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from publisher.errors import BrokenLayer, UnsafeLayer
from publisher.layers import gzip_members, zstd_frames
from publisher.layers.gzip_members import GzipMembers
from publisher.layers.limits import LayerLimits
from publisher.layers.packed import Decompressor, Packed, Readable, Uncompressed
from publisher.layers.zstd_frames import ZstdFrames

if TYPE_CHECKING:
    from hashlib import _Hash

_BLOCK = 256 << 10
_TAR_MAGIC = slice(257, 262)
"""Where a tar header since POSIX.1-1988 says `ustar`."""
"""Bytes that are looked at."""
_FOREIGN_FORMATS = {b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x04\x22\x4d\x18": "lz4"}
"""What some tools can make, but no specification of images has."""


class LayerStream:
    """The uncompressed archive of a layer, which may be compressed with gzip or zstd or not at all; read forward only.

    Raises BrokenLayer where the compression is damaged or cut, UnsafeLayer where it expands beyond the limits.
    """

    def __init__(self, source: Readable, limits: LayerLimits, hasher: _Hash) -> None:
        """hasher: fed with every uncompressed byte, those behind the archive's end included."""
        self._packed = Packed(source)
        self._limits = limits
        self._hasher = hasher
        self._holes = 0
        self._produced = 0
        self._block = b""
        self._at = 0
        self._content = _recognised(self._packed, limits)

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
        self._block = self._content.read(_BLOCK)
        self._at = 0
        self._hasher.update(self._block)
        self._produced += len(self._block)
        self._check()
        return bool(self._block)

    def _check(self) -> None:
        expanded = self._produced + self._holes
        if expanded > self._limits.expanded_bytes:
            raise UnsafeLayer(f"the layer expands to more than the {self._limits.expanded_bytes} bytes that are allowed")
        if expanded > self._limits.ratio_from and expanded > self._limits.ratio * self._packed.position:
            raise UnsafeLayer(f"the layer expands to more than {self._limits.ratio} times its compressed size")


def _recognised(packed: Packed, limits: LayerLimits) -> Decompressor:
    """What the first bytes show, whatever the media type says: clients do not look at that either."""
    head = packed.peek(_TAR_MAGIC.stop)
    if head[_TAR_MAGIC] == b"ustar":
        # A name may begin with the same bytes as compressed content.
        return Uncompressed(packed)
    if head.startswith(gzip_members.MAGIC):
        return GzipMembers(packed)
    if zstd_frames.begins_frame(head):
        return ZstdFrames(packed, limits.window_bytes)
    for magic, name in _FOREIGN_FORMATS.items():
        if head.startswith(magic):
            raise BrokenLayer(f"the layer is compressed with {name}; images have gzip, zstd, or no compression")
    return Uncompressed(packed)
