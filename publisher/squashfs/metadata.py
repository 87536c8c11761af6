"""Metadata blocks: the compressed pieces, of at most 8 KiB of content, that all tables of a squashfs are made of."""

from __future__ import annotations

import struct

from publisher.errors import BrokenLayer, UnsafeLayer
from publisher.squashfs.compressors import Expand
from publisher.squashfs.source import Section
from publisher.squashfs.superblock import NOTHING

_BLOCK = 8192
_STORED = 0x8000
"""Set in a block's header: the block is not compressed."""
_OVERHEAD = 256
"""Bytes that remembering a block takes beside its content."""
_POINTER = struct.Struct("<Q")


class MetadataBlocks:
    """Blocks by their position, each expanded once and then kept: however references lead to and fro, the work is linear."""

    def __init__(self, source: Section, expand: Expand, limit: int) -> None:
        """limit: bytes of memory for all blocks."""
        self._source = source
        self._expand = expand
        self._limit = limit
        self._left = limit
        self._blocks: dict[int, tuple[bytes, int]] = {}

    def block(self, position: int) -> tuple[bytes, int]:
        """The content of the block that begins there, and where the next one would. Raises BrokenLayer, UnsafeLayer."""
        known = self._blocks.get(position)
        if known is not None:
            return known
        header = int.from_bytes(self._source.read(position, 2, "a metadata block"), "little")
        size = header & ~_STORED
        if not 0 < size <= _BLOCK:
            raise BrokenLayer(f"the squashfs has a metadata block of {size} bytes at {position}, which cannot be")
        data = self._source.read(position + 2, size, "a metadata block")
        if not header & _STORED:
            data = self._expand(data, _BLOCK)
        if not data:
            raise BrokenLayer(f"the squashfs has an empty metadata block at {position}")
        self.spend(len(data) + _OVERHEAD)
        self._blocks[position] = data, position + 2 + size
        return self._blocks[position]

    def spend(self, size: int) -> None:
        """Count memory or work of so many bytes. Raises UnsafeLayer when all that is allowed is used up."""
        self._left -= size
        if self._left < 0:
            raise UnsafeLayer(f"the squashfs has tables of more than the {self._limit} bytes that are allowed")


class Cursor:
    """Reads on from a place in a row of metadata blocks."""

    __slots__ = ("_at", "_blocks", "_data", "_next")

    def __init__(self, blocks: MetadataBlocks, position: int, offset: int) -> None:
        """position: of the first block; offset: in its content."""
        self._blocks = blocks
        self._data, self._next = blocks.block(position)
        if offset > len(self._data):
            raise BrokenLayer(
                f"the squashfs has a reference to byte {offset} of the metadata block at {position}, which is shorter"
            )
        self._at = offset

    def read(self, size: int) -> bytes:
        """Exactly the next `size` bytes. Raises BrokenLayer, UnsafeLayer."""
        end = self._at + size
        if end <= len(self._data):
            piece = self._data[self._at : end]
            self._at = end
            return piece
        parts = [self._data[self._at :]]
        size -= len(parts[0])
        while size > 0:
            self._data, self._next = self._blocks.block(self._next)
            self._at = min(size, len(self._data))
            parts.append(self._data[: self._at])
            size -= self._at
        return b"".join(parts)


class LookupTable:
    """Records of one size by their number. The list of the table's blocks is at a position of its own."""

    def __init__(
        self, source: Section, blocks: MetadataBlocks, position: int, count: int, *, record: struct.Struct, what: str
    ) -> None:
        """position: of the list of blocks, or NOTHING. what: one record, for messages. Nothing is read yet."""
        self._source = source
        self._blocks = blocks
        self._position = position
        self._count = 0 if position == NOTHING else count
        self._record = record
        self._each = _BLOCK // record.size
        self._what = what

    def __getitem__(self, number: int) -> tuple[int, ...]:
        """The record. Raises BrokenLayer, UnsafeLayer."""
        if not 0 <= number < self._count:
            raise BrokenLayer(f"the squashfs refers to {self._what} {number}, but has {self._count}")
        pointer = self._source.read(
            self._position + number // self._each * _POINTER.size, _POINTER.size, f"the place of {self._what} {number}"
        )
        cursor = Cursor(self._blocks, _POINTER.unpack(pointer)[0], number % self._each * self._record.size)
        return self._record.unpack(cursor.read(self._record.size))
