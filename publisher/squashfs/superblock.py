"""The superblock: where everything else of a squashfs is. Pure."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from publisher.errors import BrokenLayer

SIZE = 96
NOTHING = (1 << 64) - 1
"""The position of a table that is not there."""

_LAYOUT = struct.Struct("<IIIIIHHHHHHQQQQQQQQ")
_MAGIC = 0x73717368
_VERSION = (4, 0)
_SMALLEST_BLOCK = 12
_LARGEST_BLOCK = 20
"""As powers of two."""


@dataclass(frozen=True, slots=True)
class Superblock:
    """Positions are bytes from the begin of the squashfs."""

    inodes: int
    """How many there are."""
    block_size: int
    """Bytes of content that a data block has, the last one of a file perhaps fewer."""
    fragments: int
    """How many blocks there are that the ends of several files share."""
    compressor: int
    ids: int
    """How many owners and groups there are."""
    root: int
    """Reference to the root's inode."""
    bytes_used: int
    id_table: int
    xattr_table: int
    inode_table: int
    directory_table: int
    fragment_table: int


def parse_superblock(data: bytes) -> Superblock:
    """Read the first 96 bytes. Raises BrokenLayer for anything but squashfs 4.0."""
    if len(data) < SIZE:
        raise BrokenLayer("the squashfs is shorter than its superblock")
    (magic, inodes, _, block_size, fragments, compressor, block_log, _, ids, major, minor, root, used, *tables) = _LAYOUT.unpack(
        data[:SIZE]
    )
    id_table, xattr_table, inode_table, directory_table, fragment_table, _ = tables
    if magic != _MAGIC:
        raise BrokenLayer("the file system is no squashfs: its first bytes are others")
    if (major, minor) != _VERSION:
        raise BrokenLayer(f"the squashfs has version {major}.{minor}; only 4.0 can be unpacked")
    if not _SMALLEST_BLOCK <= block_log <= _LARGEST_BLOCK or block_size != 1 << block_log:
        raise BrokenLayer(f"the squashfs has blocks of {block_size} bytes (2^{block_log}), which cannot be")
    return Superblock(
        inodes=inodes,
        block_size=block_size,
        fragments=fragments,
        compressor=compressor,
        ids=ids,
        root=root,
        bytes_used=used,
        id_table=id_table,
        xattr_table=xattr_table,
        inode_table=inode_table,
        directory_table=directory_table,
        fragment_table=fragment_table,
    )
