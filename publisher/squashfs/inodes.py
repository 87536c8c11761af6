"""Inodes of all kinds, from their bytes; and the names that a directory has for them."""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from publisher.errors import BrokenLayer, UnsafeLayer
from publisher.layers.limits import LayerLimits
from publisher.squashfs.metadata import Cursor

NO_FRAGMENT = NO_XATTRS = (1 << 32) - 1

_COMMON = struct.Struct("<HHHHII")
_DIRECTORY = struct.Struct("<IIHHI")
_LARGE_DIRECTORY = struct.Struct("<IIIIHHI")
_FILE = struct.Struct("<IIII")
_LARGE_FILE = struct.Struct("<QQQIIII")
_SYMLINK = struct.Struct("<II")
_NUMBER = struct.Struct("<I")
_KINDS = (
    stat.S_IFDIR,
    stat.S_IFREG,
    stat.S_IFLNK,
    stat.S_IFBLK,
    stat.S_IFCHR,
    stat.S_IFIFO,
    stat.S_IFSOCK,
)
"""From type 1 on; type 8 and higher are the same in their extended form."""
_DEVICE_BYTES = 8
_LISTING_HEADER = struct.Struct("<III")
_LISTING_ENTRY = struct.Struct("<HhHH")
_LONGEST_RUN = 256
_LISTING_EXTRA = 3
"""A directory's size counts `.` and `..`, which are not stored, with so many bytes."""


@dataclass(slots=True)
class Inode:
    """One file-system object, numbers of its owners not yet looked up."""

    kind: int
    """Type bits of st_mode."""
    permissions: int
    owner: int
    """Number in the table of ids; so is `group`."""
    group: int
    mtime: int
    size: int = 0
    """Of a file's content, or of a directory's listing, in bytes."""
    start: int = 0
    """Of a file: position of its first block; of a directory: of its listing's block, in the directory table."""
    offset: int = 0
    """Of a file: where its end begins in its fragment; of a directory: where its listing begins in its block."""
    fragment: int = NO_FRAGMENT
    blocks: bytes = b""
    """Of a file: the size of each block as stored, four bytes each."""
    target: bytes = b""
    xattrs: int = NO_XATTRS


def read_inode(cursor: Cursor, block_size: int, limits: LayerLimits) -> Inode:
    """The inode at which the cursor stands. Raises BrokenLayer, UnsafeLayer where a file or a target is too large."""
    number, mode, owner, group, mtime, _ = _COMMON.unpack(cursor.read(_COMMON.size))
    if not 1 <= number <= 2 * len(_KINDS):
        raise BrokenLayer(f"the squashfs has an inode of type {number}, which does not exist")
    extended = number > len(_KINDS)
    kind = _KINDS[(number - 1) % len(_KINDS)]
    inode = Inode(kind, mode & 0o7777, owner, group, mtime)
    if kind == stat.S_IFDIR:
        _read_directory(inode, cursor, extended=extended)
    elif kind == stat.S_IFREG:
        _read_file(inode, cursor, block_size, limits, extended=extended)
    else:
        if kind == stat.S_IFLNK:
            _read_symlink(inode, cursor, limits)
        else:
            cursor.read(_DEVICE_BYTES if kind in (stat.S_IFBLK, stat.S_IFCHR) else _NUMBER.size)
        if extended:
            (inode.xattrs,) = _NUMBER.unpack(cursor.read(_NUMBER.size))
    return inode


def read_listing(cursor: Cursor, size: int) -> Iterator[tuple[bytes, int]]:
    """The names of a directory, each with the reference of its inode. size: as its inode has it. Raises BrokenLayer."""
    left = size - _LISTING_EXTRA
    while left > 0:
        count, start, _ = _LISTING_HEADER.unpack(cursor.read(_LISTING_HEADER.size))
        left -= _LISTING_HEADER.size
        if count >= _LONGEST_RUN:
            raise BrokenLayer(f"the squashfs has a directory with a run of {count + 1} names, which cannot be")
        for _ in range(count + 1):
            offset, _, _, length = _LISTING_ENTRY.unpack(cursor.read(_LISTING_ENTRY.size))
            left -= _LISTING_ENTRY.size + length + 1
            if left < 0:
                raise BrokenLayer("the squashfs has a directory whose names go beyond its end")
            yield cursor.read(length + 1), start << 16 | offset


def _read_directory(inode: Inode, cursor: Cursor, *, extended: bool) -> None:
    if extended:
        _, inode.size, inode.start, _, _, inode.offset, inode.xattrs = _LARGE_DIRECTORY.unpack(cursor.read(_LARGE_DIRECTORY.size))
    else:
        inode.start, _, inode.size, inode.offset, _ = _DIRECTORY.unpack(cursor.read(_DIRECTORY.size))


def _read_file(inode: Inode, cursor: Cursor, block_size: int, limits: LayerLimits, *, extended: bool) -> None:
    if extended:
        inode.start, inode.size, _, _, inode.fragment, inode.offset, inode.xattrs = _LARGE_FILE.unpack(
            cursor.read(_LARGE_FILE.size)
        )
    else:
        inode.start, inode.fragment, inode.offset, inode.size = _FILE.unpack(cursor.read(_FILE.size))
    if inode.size > limits.file_bytes:
        raise UnsafeLayer(f"the squashfs has a file of {inode.size} bytes; {limits.file_bytes} are allowed")
    whole, rest = divmod(inode.size, block_size)
    blocks = whole + 1 if rest and inode.fragment == NO_FRAGMENT else whole
    inode.blocks = cursor.read(4 * blocks)


def _read_symlink(inode: Inode, cursor: Cursor, limits: LayerLimits) -> None:
    _, size = _SYMLINK.unpack(cursor.read(_SYMLINK.size))
    if size > limits.path_bytes:
        raise UnsafeLayer(f"the squashfs has a symbolic link with a target of {size} bytes; {limits.path_bytes} are allowed")
    inode.target = cursor.read(size)
    if not inode.target or b"\0" in inode.target:
        raise BrokenLayer("the squashfs has a symbolic link without a target, or with a zero byte in it")
