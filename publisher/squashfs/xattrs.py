"""Extended attributes: sets of them, which inodes name by number."""

from __future__ import annotations

import struct

from publisher.errors import BrokenLayer, UnsafeLayer
from publisher.squashfs.metadata import Cursor, LookupTable, MetadataBlocks
from publisher.squashfs.source import Section
from publisher.squashfs.superblock import NOTHING, Superblock

_HEADER = struct.Struct("<QII")
_SET = struct.Struct("<QII")
_NAME = struct.Struct("<HH")
_NUMBER = struct.Struct("<I")
_REFERENCE = struct.Struct("<Q")
_PREFIXES = (b"user.", b"trusted.", b"security.")
_ELSEWHERE = 0x0100
"""In a name's type: the value is stored once, at another place."""
_KIND = 0x00FF


class XattrSets:
    """Sets by their number."""

    def __init__(self, source: Section, blocks: MetadataBlocks, superblock: Superblock, limit: int) -> None:
        """limit: bytes of names and values that one set may have. Raises BrokenLayer."""
        self._blocks = blocks
        self._limit = limit
        self._start, count = 0, 0
        position = superblock.xattr_table
        if position != NOTHING:
            self._start, count, _ = _HEADER.unpack(source.read(position, _HEADER.size, "its table of extended attributes"))
            position += _HEADER.size
        self._sets = LookupTable(source, blocks, position, count, record=_SET, what="set of attributes")

    def read(self, number: int) -> dict[bytes, bytes]:
        """Names with their prefix, and values. Raises BrokenLayer, UnsafeLayer."""
        reference, count, _ = self._sets[number]
        cursor = self._cursor(reference)
        found: dict[bytes, bytes] = {}
        size = 0
        for _ in range(count):
            kind, length = _NAME.unpack(cursor.read(_NAME.size))
            if kind & _KIND >= len(_PREFIXES):
                raise BrokenLayer(f"the squashfs has an extended attribute of type {kind}, which does not exist")
            name = _PREFIXES[kind & _KIND] + cursor.read(length)
            value = self._value(cursor)
            if kind & _ELSEWHERE:
                if len(value) != _REFERENCE.size:
                    raise BrokenLayer("the squashfs has an extended attribute without the place of its value")
                value = self._value(self._cursor(_REFERENCE.unpack(value)[0]))
            size += len(name) + len(value)
            if size > self._limit:
                raise UnsafeLayer(f"the squashfs has a file with more than {self._limit} bytes of extended attributes")
            self._blocks.spend(len(name) + len(value) + _NAME.size)
            found[name] = value
        return found

    def _cursor(self, reference: int) -> Cursor:
        return Cursor(self._blocks, self._start + (reference >> 16), reference & 0xFFFF)

    def _value(self, cursor: Cursor) -> bytes:
        (size,) = _NUMBER.unpack(cursor.read(_NUMBER.size))
        if size > self._limit:
            raise UnsafeLayer(f"the squashfs has an extended attribute of {size} bytes; {self._limit} are allowed")
        return cursor.read(size)
