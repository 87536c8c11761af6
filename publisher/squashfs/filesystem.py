"""One squashfs, opened: inodes, listings, owners, attributes and content, by reference. Nothing is held but its tables."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from publisher.errors import BrokenLayer
from publisher.layers.limits import LayerLimits
from publisher.squashfs.compressors import expander
from publisher.squashfs.expansion import Expansion
from publisher.squashfs.inodes import NO_FRAGMENT, Inode, read_inode, read_listing
from publisher.squashfs.metadata import Cursor, LookupTable, MetadataBlocks
from publisher.squashfs.source import Section
from publisher.squashfs.superblock import SIZE, Superblock, parse_superblock
from publisher.squashfs.xattrs import XattrSets

_ID = struct.Struct("<I")
_FRAGMENT = struct.Struct("<QII")
_STORED = 1 << 24
"""Set in a block's size: the block is not compressed."""
_LARGEST_ID = (1 << 32) - 2
"""The largest that a catalog was proven with; the next one means "none" to system calls."""


class SquashFs:
    """For one thread. All methods raise BrokenLayer for what cannot be, UnsafeLayer for what passes a limit."""

    def __init__(self, source: Section, limits: LayerLimits) -> None:
        """Reads the superblock only."""
        self.superblock: Superblock = parse_superblock(source.read(0, min(SIZE, source.size), "its superblock"))
        superblock = self.superblock
        if superblock.bytes_used > source.size:
            raise BrokenLayer(f"the squashfs is cut: it should have {superblock.bytes_used} bytes, but {source.size} are there")
        self.size = source.size
        self._source = source
        self._limits = limits
        self._expand = expander(superblock.compressor)
        blocks = MetadataBlocks(source, self._expand, limits.table_bytes)
        self._blocks = blocks
        self._ids = LookupTable(source, blocks, superblock.id_table, superblock.ids, record=_ID, what="owner")
        self._fragments = LookupTable(
            source, blocks, superblock.fragment_table, superblock.fragments, record=_FRAGMENT, what="fragment"
        )
        self._xattrs = XattrSets(source, blocks, superblock, limits.header_bytes)
        self._last_fragment: tuple[int, bytes] = (NO_FRAGMENT, b"")
        # Files may need a byte of each of many fragments, which may all be the same block.
        self._fragment_expansion = Expansion(limits, source.size)
        self._known_ids: dict[int, int] = {}

    def inode(self, reference: int) -> Inode:
        """The inode of a reference, such as the superblock's `root`."""
        cursor = Cursor(self._blocks, self.superblock.inode_table + (reference >> 16), reference & 0xFFFF)
        return read_inode(cursor, self.superblock.block_size, self._limits)

    def listing(self, directory: Inode) -> Iterator[tuple[bytes, int]]:
        """Names and the references of their inodes, in the order in which they are stored."""
        if directory.size > 3:
            cursor = Cursor(self._blocks, self.superblock.directory_table + directory.start, directory.offset)
            yield from read_listing(cursor, directory.size)

    def id(self, number: int) -> int:
        """A user's or group's id."""
        known = self._known_ids.get(number)
        if known is None:
            (known,) = self._ids[number]
            if known > _LARGEST_ID:
                raise BrokenLayer(f"the squashfs has files that belong to {known}, which no file can")
            self._known_ids[number] = known
        return known

    def xattrs(self, number: int) -> dict[bytes, bytes]:
        """A set of extended attributes by full name."""
        return self._xattrs.read(number)

    def content(self, file: Inode) -> Iterator[bytes]:
        """A file's content block by block; as many bytes as its size says. Files of one fragment are best read in a row."""
        left = file.size
        position = file.start
        for (word,) in struct.iter_unpack("<I", file.blocks):
            expected = min(self.superblock.block_size, left)
            stored = word & ~_STORED
            yield self._data(position, word, expected) if stored else bytes(expected)
            position += stored
            left -= expected
        if left:
            block = self._fragment(file.fragment)
            if file.offset + left > len(block):
                raise BrokenLayer(f"the squashfs has a file whose end is beyond fragment {file.fragment}")
            yield block[file.offset : file.offset + left]

    def _data(self, position: int, word: int, expected: int) -> bytes:
        data = self._block(position, word)
        if len(data) != expected:
            raise BrokenLayer(f"the squashfs has a data block of {len(data)} bytes at {position}, where {expected} are expected")
        return data

    def _fragment(self, number: int) -> bytes:
        if self._last_fragment[0] != number:
            position, word, _ = self._fragments[number]
            self._last_fragment = number, self._block(position, word)
            self._fragment_expansion.add(len(self._last_fragment[1]))
        return self._last_fragment[1]

    def _block(self, position: int, word: int) -> bytes:
        stored = word & ~_STORED
        if stored > self.superblock.block_size:
            raise BrokenLayer(f"the squashfs has a data block of {stored} stored bytes at {position}, more than a block can have")
        data = self._source.read(position, stored, "a data block")
        return data if word & _STORED else self._expand(data, self.superblock.block_size)
