"""Rows of a catalog and what they mean. Repository format, sections 4.1, 4.2 and 6."""

from __future__ import annotations

import stat
from typing import NamedTuple

from mirror.errors import InvalidInput
from publisher.cvmfs import symlink, xattr
from publisher.cvmfs.entry import Chunk, Compression, Entry
from publisher.cvmfs.hash import HASH_SIZE, ContentHash, HashAlgorithm
from publisher.cvmfs.path import PathKey
from publisher.cvmfs.statistics import Counters
from publisher.errors import RepositoryDamaged

DIRECTORY_SIZE = 4096
MARKER_NAME = b".cvmfscatalog"
"""The empty file that every nested catalog has in its root directory."""

GROUP_SHIFT = 32
_COUNT_MASK = 0xFFFFFFFF
_HASH_SHIFT = 8
_COMPRESSION_SHIFT = 11
_FIELD_MASK = 7
_TYPE_MASK = 0o170000
_ID_MAX = 0xFFFFFFFE
_NANOSECONDS = 1_000_000_000
_COMPRESSIONS = {int(compression): compression for compression in Compression}
_HASH_ALGORITHMS = {int(algorithm): algorithm for algorithm in HashAlgorithm}


class Flags:
    """Bits of the flags column; hash algorithm and compression stand in bits 8 to 10 and 11 to 13.

    Plain integers, not an enumeration, since they are looked at for every row.
    """

    DIRECTORY = 0x1
    MOUNTPOINT = 0x2
    """Of a nested catalog; the row in the parent."""
    FILE = 0x4
    """Also set for symbolic links and special files."""
    SYMLINK = 0x8
    SPECIAL = 0x10
    NESTED_ROOT = 0x20
    """The row in the nested catalog."""
    CHUNKED = 0x40
    EXTERNAL = 0x80
    """Content is not in this repository."""
    BIND_MOUNTPOINT = 0x4000
    HIDDEN = 0x8000
    DIRECT_IO = 0x10000


TRANSITION = Flags.MOUNTPOINT | Flags.NESTED_ROOT | Flags.BIND_MOUNTPOINT


Columns = tuple[
    int, int, int, int, int, bytes | None, int, int, int, int | None, int, bytes, bytes, int, int, bytes | None
]  # fmt: skip
"""A row as a plain tuple, which SQLite takes faster."""


class Row(NamedTuple):
    """One row of the table `catalog`, columns in the order of the format."""

    md5path_1: int
    md5path_2: int
    parent_1: int
    parent_2: int
    hardlinks: int
    hash: bytes | None
    size: int
    mode: int
    mtime: int
    mtimens: int | None
    flags: int
    name: bytes
    symlink: bytes
    uid: int
    gid: int
    xattr: bytes | None

    @property
    def key(self) -> PathKey:
        """Key of the row's own path."""
        return self.md5path_1, self.md5path_2

    @property
    def parent(self) -> PathKey:
        """Key of the directory that holds it."""
        return self.parent_1, self.parent_2

    @property
    def link_group(self) -> int:
        """Number of the hard-link group within the catalog; 0 for none."""
        return self.hardlinks >> GROUP_SHIFT

    @property
    def link_count(self) -> int:
        """What stat shows as number of links."""
        return self.hardlinks & _COUNT_MASK

    @property
    def is_directory(self) -> bool:
        """Whether the mode is a directory's."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_chunked(self) -> bool:
        """Whether the content is described by rows of the table `chunks`."""
        return bool(self.flags & Flags.CHUNKED)

    @property
    def algorithm(self) -> HashAlgorithm:
        """Of this row's own hash and its chunks'. Raises RepositoryDamaged if it is unknown."""
        return hash_algorithm(self.flags)

    @property
    def compression(self) -> Compression:
        """Of this row's object and its chunks. Raises RepositoryDamaged if it is unknown."""
        compression = _COMPRESSIONS.get(self.flags >> _COMPRESSION_SHIFT & _FIELD_MASK)
        if compression is None:
            raise RepositoryDamaged(f"{self.name!r} has a compression that this version does not know (flags {self.flags:#x})")
        return compression

    @property
    def content(self) -> ContentHash | None:
        """Hash of a file in one piece."""
        return None if self.hash is None else ContentHash(self.hash, self.algorithm)


SELECT_ROWS = """SELECT md5path_1, md5path_2, parent_1, parent_2, hardlinks, hash, size, mode, mtime, mtimens, flags, name,
  symlink, uid, gid, xattr FROM catalog """
INSERT_ROW = "INSERT INTO catalog VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, CAST(? AS TEXT), CAST(? AS TEXT), ?, ?, ?)"
"""Names are byte strings in TEXT cells, which only a cast makes of a bound value."""


def hash_algorithm(flags: int) -> HashAlgorithm:
    """Algorithm in the flags of a row. Raises RepositoryDamaged if it is unknown."""
    algorithm = _HASH_ALGORITHMS.get(flags >> _HASH_SHIFT & _FIELD_MASK)
    if algorithm is None:
        raise RepositoryDamaged(f"a catalog row has a hash algorithm that this version does not know (flags {flags:#x})")
    return algorithm


def hardlinks(count: int, group: int = 0) -> int:
    """Value of the column for a link count within a group."""
    return group << GROUP_SHIFT | count


def entry_row(key: PathKey, parent: PathKey, name: bytes, entry: Entry, *, links: int = 1, transition: int = 0) -> Row:
    """The row of an entry; as `entry_columns`."""
    return Row._make(entry_columns(key, parent, name, entry, links, transition))


def entry_columns(  # noqa: PLR0917 (called for every row: keywords would cost)
    key: PathKey, parent: PathKey, name: bytes, entry: Entry, links: int = 1, transition: int = 0
) -> Columns:
    """The columns of an entry's row.

    links: value of the column `hardlinks`; transition: flag of a mountpoint or a nested root.
    Raises InvalidInput for what the format cannot hold.
    """
    mode = entry.mode
    content = entry.content
    if not (0 <= entry.uid <= _ID_MAX and 0 <= entry.gid <= _ID_MAX and 0 <= entry.mtime_ns < _NANOSECONDS):
        raise InvalidInput(f"{name!r} has an owner or a time that no file can have")
    target = b""
    digest = None
    kind = stat.S_IFMT(mode)
    if kind == stat.S_IFREG:
        size = entry.size
        flags = Flags.FILE | entry.compression << _COMPRESSION_SHIFT
        if entry.chunks:
            flags |= Flags.CHUNKED | entry.chunks[0].content.algorithm << _HASH_SHIFT
        elif content is not None:
            digest = content.value
            flags |= content.algorithm << _HASH_SHIFT
        else:
            raise InvalidInput(f"{name!r} is a regular file without content")
    elif kind == stat.S_IFDIR:
        size = DIRECTORY_SIZE
        flags = Flags.DIRECTORY | transition
    elif kind == stat.S_IFLNK:
        if not entry.symlink or b"\0" in entry.symlink:
            raise InvalidInput(f"{name!r} is a symbolic link with an impossible target")
        target = symlink.escape(entry.symlink)
        size = len(target)
        flags = Flags.FILE | Flags.SYMLINK
    elif kind in {stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK}:
        size = entry.rdev if kind in {stat.S_IFCHR, stat.S_IFBLK} else 0
        flags = Flags.FILE | Flags.SPECIAL
    else:
        raise InvalidInput(f"{name!r} has no file type in its mode {mode:o}")
    blob = xattr.encode(xattr.representable(entry.xattrs)) if entry.xattrs else None
    return (
        *key, *parent, links, digest, size, mode, entry.mtime, entry.mtime_ns, flags, name, target, entry.uid, entry.gid, blob
    )  # fmt: skip


def row_entry(row: Row, chunks: tuple[Chunk, ...] = ()) -> Entry:
    """What users see of a row. Raises RepositoryDamaged if the row cannot be understood."""
    kind = row.mode & _TYPE_MASK
    if kind == stat.S_IFREG:
        content, compression, size = row.content, row.compression, row.size
    else:
        content, compression, size = None, Compression.ZLIB, 0
    return Entry(
        mode=row.mode,
        uid=row.uid,
        gid=row.gid,
        mtime=row.mtime,
        mtime_ns=row.mtimens or 0,
        size=size,
        content=content,
        chunks=chunks,
        compression=compression,
        symlink=symlink.unescape(row.symlink) if kind == stat.S_IFLNK else b"",
        rdev=row.size if kind in {stat.S_IFCHR, stat.S_IFBLK} else 0,
        xattrs=xattr.decode(row.xattr) if row.xattr else (),
    )


def chunk_of(offset: int, size: int, digest: bytes, algorithm: HashAlgorithm) -> Chunk:
    """A row of the table `chunks`. Raises RepositoryDamaged if its hash is not one."""
    if len(digest) != HASH_SIZE:
        raise RepositoryDamaged(f"a chunk at offset {offset} has no proper hash")
    return Chunk(offset, size, ContentHash(digest, algorithm))


def count_row(counters: Counters, row: Columns | Row, chunks: int, sign: int = 1) -> None:
    """Add a row with its number of chunks to a catalog's own counters, or take it off by sign -1."""
    size, mode, flags = row[6], row[7], row[10]
    kind = mode & _TYPE_MASK
    if kind == stat.S_IFREG:
        counters.regular += sign
        counters.file_size += sign * size
        if flags & Flags.CHUNKED:
            counters.chunked += sign
            counters.chunked_size += sign * size
            counters.chunks += sign * chunks
        if flags & Flags.EXTERNAL:
            counters.external += sign
            counters.external_file_size += sign * size
    elif kind == stat.S_IFDIR:
        counters.dir += sign
    elif kind == stat.S_IFLNK:
        counters.symlink += sign
    else:
        counters.special += sign
    if row[15] is not None:
        counters.xattr += sign
