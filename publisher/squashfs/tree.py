"""The tree of a squashfs, read from its tables: names are checked, what is dropped by rule is counted, content is left for later.

Rules: a directory has one name, anything else as many as it likes (hard links: names that lead to the same inode); no directory
has a name twice; the rest is as for members of a layer's archive.
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import dataclass, field

from publisher.cvmfs.entry import Directory, Entry
from publisher.errors import BrokenLayer, UnsafeLayer
from publisher.layers import names
from publisher.layers.keeping import Keeping
from publisher.layers.limits import LayerLimits
from publisher.squashfs.expansion import Expansion
from publisher.squashfs.filesystem import SquashFs
from publisher.squashfs.inodes import NO_XATTRS, Inode

_DROPPED = frozenset({stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK})


@dataclass(slots=True, eq=False)
class Unread:
    """A regular file whose content was not read yet."""

    inode: Inode
    attributes: Entry
    """Everything but the content."""
    places: list[tuple[Directory, bytes]] = field(default_factory=list)
    """All directories that have it, with its name there."""


@dataclass(slots=True)
class Tree:
    """All of a squashfs but its files' content."""

    root: Directory
    """Regular files are not in it yet."""
    files: list[Unread]
    entries: int = 0
    """Names, those of files included, the root not."""


def read_tree(filesystem: SquashFs, limits: LayerLimits, keeping: Keeping, progress: Callable[[], None]) -> Tree:
    """Read all names and inodes. progress: called for each directory; may raise. Raises BrokenLayer, UnsafeLayer."""
    walk = _Walk(filesystem, limits, keeping)
    while walk.pending:
        progress()
        walk.next_directory()
    return walk.tree


class _Walk:
    def __init__(self, filesystem: SquashFs, limits: LayerLimits, keeping: Keeping) -> None:
        self._filesystem = filesystem
        self._limits = limits
        self._seen_directories: set[int] = set()
        self._others: dict[int, Unread | Entry | None] = {}
        """By reference; None for what is dropped."""
        self._xattrs: dict[int, dict[bytes, bytes]] = {}
        self._expansion = Expansion(limits, filesystem.size)
        self._keeping = keeping
        reference = filesystem.superblock.root
        inode = filesystem.inode(reference)
        if inode.kind != stat.S_IFDIR:
            raise BrokenLayer("the root of the squashfs is no directory")
        root = Directory(self._attributes(inode))
        self._seen_directories.add(reference)
        self.tree = Tree(root, [])
        self.pending: list[tuple[Directory, Inode, names.Path]] = [(root, inode, ())]

    def next_directory(self) -> None:
        """Read one directory that was found; those in it are pending then."""
        directory, inode, path = self.pending.pop()
        seen: set[bytes] = set()
        length = sum(map(len, path)) + len(path)
        for name, reference in self._filesystem.listing(inode):
            self._check(path, length, name)
            if name in seen:
                raise BrokenLayer(f"'{names.shown((*path, name))}' is in its directory twice")
            seen.add(name)
            if names.is_marker(name):
                self._keeping.drop_name()
            else:
                self._take(directory, path, name, reference)

    def _take(self, directory: Directory, path: names.Path, name: bytes, reference: int) -> None:
        if reference in self._others:
            found = self._others[reference]
        else:
            inode = self._filesystem.inode(reference)
            if inode.kind == stat.S_IFDIR:
                self._take_directory(directory, inode, (*path, name), reference)
                return
            found = self._others[reference] = self._made(inode)
        if found is None:
            self._keeping.drop_device()
            return
        self._count()
        if isinstance(found, Unread):
            found.places.append((directory, name))
        else:
            directory.children[name] = found

    def _take_directory(self, parent: Directory, inode: Inode, path: names.Path, reference: int) -> None:
        if reference in self._seen_directories:
            raise BrokenLayer(f"'{names.shown(path)}' is a directory that has another name, too")
        self._seen_directories.add(reference)
        self._count()
        directory = Directory(self._attributes(inode))
        parent.children[path[-1]] = directory
        self.pending.append((directory, inode, path))

    def _made(self, inode: Inode) -> Unread | Entry | None:
        if inode.kind in _DROPPED:
            return None
        attributes = self._attributes(inode)
        if inode.kind != stat.S_IFREG:
            return attributes
        self._expansion.add(inode.size)
        unread = Unread(inode, attributes)
        self.tree.files.append(unread)
        return unread

    def _attributes(self, inode: Inode) -> Entry:
        return Entry(
            mode=self._keeping.mode(inode.kind | inode.permissions),
            uid=self._filesystem.id(inode.owner),
            gid=self._filesystem.id(inode.group),
            mtime=inode.mtime,
            symlink=inode.target,
            xattrs=self._keeping.xattrs(self._set(inode.xattrs)) if inode.xattrs != NO_XATTRS else (),
        )

    def _set(self, number: int) -> dict[bytes, bytes]:
        known = self._xattrs.get(number)
        if known is None:
            known = self._xattrs[number] = self._filesystem.xattrs(number)
        return known

    def _check(self, path: names.Path, length: int, name: bytes) -> None:
        if name in (b"", b".") or b"/" in name:
            raise UnsafeLayer(
                f"the directory '{names.shown(path)}' of the squashfs has the name '{names.shown(name)}', which is none"
            )
        names.split(name, self._limits, "entry")
        if len(path) >= self._limits.depth:
            raise UnsafeLayer(f"'{names.shown((*path, name))}' is deeper than the {self._limits.depth} levels that are allowed")
        if length + len(name) > self._limits.path_bytes:
            raise UnsafeLayer(f"a path that ends in '{names.shown(name)}' has more than {self._limits.path_bytes} bytes")

    def _count(self) -> None:
        self.tree.entries += 1
        if self.tree.entries > self._limits.entries:
            raise UnsafeLayer(f"the squashfs has more than the {self._limits.entries} names that are allowed")
