"""File-system objects as a catalog knows them, and trees of them.

An `Entry` has no name: the directory that holds it has. Two names for the *same* `Entry` object are hard links of one
another; whoever writes a catalog makes link groups of them where the format can hold one (only inside one directory;
repository format, section 6.2) and independent rows elsewhere. A tree holds what users see: marker files such as
`.cvmfscatalog`, link counts and the escaping of `$(` in symbolic links belong to the catalog, not to the tree.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum

from publisher.cvmfs.hash import ContentHash

OPAQUE_XATTRS = ((b"trusted.overlay.opaque", b"y"), (b"user.overlay.opaque", b"y"))
"""What marks a directory of a layer as opaque in overlayfs's own form, for privileged and for unprivileged overlays."""


class Compression(IntEnum):
    """How an object is stored; the value is what catalog flags hold in bits 11 to 13."""

    ZLIB = 0
    NONE = 1


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a chunked file: offset and size in bytes of content, hash of the piece as stored."""

    offset: int
    size: int
    content: ContentHash


@dataclass(slots=True, eq=False)
class Entry:
    """One file-system object. Compared by identity, since identity is what makes hard links.

    Never to be changed: trees share it. It is not frozen because a frozen one takes four times as long to make, for each name of
    each tree.
    """

    mode: int
    """Full st_mode, type bits included."""
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    """Unix seconds, rounded down; may be negative."""
    mtime_ns: int = 0
    """Nanoseconds within the second, 0 to 999,999,999."""
    size: int = 0
    """Bytes of content of a regular file; 0 for all else."""
    content: ContentHash | None = None
    """Of a regular file that is not chunked."""
    chunks: tuple[Chunk, ...] = ()
    """Of a chunked regular file: contiguous from 0, their sizes summing up to `size`."""
    compression: Compression = Compression.ZLIB
    symlink: bytes = b""
    """Target of a symbolic link as the file system shows it, not escaped."""
    rdev: int = 0
    """Device number of a character or block device, as os.makedev builds it."""
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    """Sorted by name."""

    @property
    def is_directory(self) -> bool:
        """Whether the mode is a directory's."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_whiteout(self) -> bool:
        """Whether this deletes a name of a lower layer: overlayfs's character device 0/0."""
        return stat.S_ISCHR(self.mode) and self.rdev == 0

    @property
    def is_opaque(self) -> bool:
        """Whether this directory hides the lower layers' content of the same directory."""
        return OPAQUE_XATTRS[0] in self.xattrs


@dataclass(slots=True, eq=False)
class Directory:
    """A directory with its content; names are single path components, as bytes."""

    entry: Entry
    children: dict[bytes, Directory | Entry] = field(default_factory=dict)

    def walk(self, prefix: bytes = b"") -> Iterator[tuple[bytes, Entry]]:
        """Every object below this directory in depth-first order with its path from here, such as `usr/bin/env`; not itself."""
        for name, child in self.children.items():
            path = prefix + name
            if isinstance(child, Directory):
                yield path, child.entry
                yield from child.walk(path + b"/")
            else:
                yield path, child
