"""What must hold inside one catalog, and between it and its mountpoint. Repository format, sections 4, 6 and 10."""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from mirror.errors import InvalidInput
from publisher.cvmfs import xattr
from publisher.cvmfs.catalog import Catalog, NestedReference
from publisher.cvmfs.entry import Compression
from publisher.cvmfs.hash import HASH_SIZE, ContentHash, ObjectKind
from publisher.cvmfs.path import NO_PARENT, ROOT, PathKey, check_name, path_key
from publisher.cvmfs.row import MARKER_NAME, TRANSITION, Flags, Row, count_row
from publisher.cvmfs.statistics import COUNTER_NAMES, Counters
from publisher.errors import RepositoryDamaged

_TYPE_FLAGS = {
    stat.S_IFDIR: Flags.DIRECTORY,
    stat.S_IFREG: Flags.FILE,
    stat.S_IFLNK: Flags.FILE | Flags.SYMLINK,
    stat.S_IFIFO: Flags.FILE | Flags.SPECIAL,
    stat.S_IFSOCK: Flags.FILE | Flags.SPECIAL,
    stat.S_IFCHR: Flags.FILE | Flags.SPECIAL,
    stat.S_IFBLK: Flags.FILE | Flags.SPECIAL,
}
_TYPE_MASK = Flags.DIRECTORY | Flags.FILE | Flags.SYMLINK | Flags.SPECIAL


@dataclass(frozen=True, slots=True)
class WantedObject:
    """An object that a file needs, and the bytes of content that it must expand to."""

    path: bytes
    content: ContentHash
    kind: ObjectKind
    compression: Compression
    size: int


@dataclass(slots=True)
class Findings:
    """What one catalog shows: complaints as path and text, and where to look next."""

    complaints: list[tuple[bytes, str]] = field(default_factory=list)
    objects: list[WantedObject] = field(default_factory=list)
    nested: list[tuple[NestedReference, Row]] = field(default_factory=list)
    """Nested catalogs with their mountpoints' rows."""


class CatalogInspection:
    """Looks at every row of one catalog."""

    def __init__(self, catalog: Catalog, mountpoint: Row | None) -> None:
        """mountpoint: the row in the parent catalog; None for the root catalog."""
        self._catalog = catalog
        self._mountpoint = mountpoint
        self._rows = {row.key: row for row in catalog.rows()}
        self._children: dict[PathKey, list[Row]] = {}
        self._root_key = path_key(catalog.path)
        for row in self._rows.values():
            if row.key != self._root_key:
                self._children.setdefault(row.parent, []).append(row)
        self._chunks: dict[PathKey, list[tuple[int, int, bytes]]] = {}
        for key, offset, size, digest in catalog.chunk_rows():
            self._chunks.setdefault(key, []).append((offset, size, digest))
        self._groups: dict[int, PathKey] = {}
        self._mountpoints: dict[bytes, Row] = {}
        self._findings = Findings()

    def run(self) -> Findings:
        """All that there is to say about this catalog. Raises RepositoryDamaged if it cannot be understood at all."""
        root = self._rows.get(self._root_key)
        if root is None:
            self._complain(self._catalog.path, "the catalog lacks the row of its own root directory")
            return self._findings
        self._check_root(root)
        visited = 1
        pending = [(self._catalog.path, root)]
        while pending:
            path, directory = pending.pop()
            children = self._children.get(directory.key, [])
            visited += len(children)
            self._check_directory(path, directory, children)
            for row in children:
                below = path + b"/" + row.name
                self._check_row(below, row)
                if row.is_directory and not row.flags & (Flags.MOUNTPOINT | Flags.BIND_MOUNTPOINT):
                    pending.append((below, row))
        if visited != len(self._rows):
            self._complain(self._catalog.path, f"{len(self._rows) - visited} rows cannot be reached from the catalog's root")
        self._check_orphaned_chunks()
        self._check_nested()
        self._check_counters()
        return self._findings

    def _complain(self, path: bytes, text: str) -> None:
        self._findings.complaints.append((path, text))

    def _check_root(self, root: Row) -> None:
        path = self._catalog.path
        if not root.is_directory:
            self._complain(path, "the catalog's root is no directory")
        if self._mountpoint is None:
            if root.parent != NO_PARENT or root.name or root.flags & TRANSITION:
                self._complain(path, "the root directory's row has a parent, a name or a flag of nested catalogs")
            return
        expected = self._mountpoint._replace(flags=self._mountpoint.flags & ~int(TRANSITION))
        if root.flags & TRANSITION != Flags.NESTED_ROOT or root._replace(flags=root.flags & ~int(TRANSITION)) != expected:
            self._complain(path, "the directory's rows in the nested catalog and in its parent differ")
        marker = next((row for row in self._children.get(root.key, []) if row.name == MARKER_NAME), None)
        if marker is None or not stat.S_ISREG(marker.mode):
            self._complain(path, f"the nested catalog lacks its marker file {MARKER_NAME.decode()}")

    def _check_directory(self, path: bytes, directory: Row, children: list[Row]) -> None:
        subdirectories = sum(row.is_directory for row in children)
        if directory.link_count != 2 + subdirectories:
            self._complain(path, f"the directory has {subdirectories} sub-directories but the link count {directory.link_count}")
        if path not in {self._catalog.path, ROOT} and any(row.name == MARKER_NAME and stat.S_ISREG(row.mode) for row in children):
            self._complain(path, f"an abandoned {MARKER_NAME.decode()}: the directory is no nested catalog")
        names = Counter(row.name for row in children)
        for name in [name for name, count in names.items() if count > 1]:
            self._complain(path, f"the name {name!r} stands there {names[name]} times")
        groups: dict[int, list[Row]] = {}
        for row in children:
            if row.link_group:
                groups.setdefault(row.link_group, []).append(row)
        for group, members in groups.items():
            self._check_group(path, directory.key, group, members)

    def _check_group(self, path: bytes, directory: PathKey, group: int, members: list[Row]) -> None:
        place = path + b"/" + members[0].name
        if self._groups.setdefault(group, directory) != directory:
            self._complain(place, f"the hard-link group {group} reaches over several directories")
        if any(row.link_count != len(members) for row in members):
            self._complain(place, f"a hard-link group of {len(members)} names has the link count {members[0].link_count}")
        facts = {(*row[4:11], *row[12:]) for row in members}
        chunks = {tuple(self._chunks.get(row.key, ())) for row in members}
        if len(facts) > 1 or len(chunks) > 1:
            self._complain(place, "the names of a hard-link group differ in what they say about their file")

    def _check_row(self, path: bytes, row: Row) -> None:
        try:
            check_name(row.name)
            xattr.decode(row.xattr)
            compression, _ = row.compression, row.algorithm
        except (InvalidInput, RepositoryDamaged) as error:
            self._complain(path, str(error))
            return
        if path_key(path) != row.key:
            self._complain(path, "the row's key is not the hash of its path")
        self._check_type(path, row)
        if row.is_directory:
            self._check_mountpoint(path, row)
        elif not row.link_group and row.link_count != 1:
            self._complain(path, f"it has the link count {row.link_count} but no hard-link group")
        if stat.S_ISREG(row.mode):
            self._check_content(path, row, compression)

    def _check_type(self, path: bytes, row: Row) -> None:
        if row.flags & _TYPE_MASK != _TYPE_FLAGS.get(stat.S_IFMT(row.mode)):
            self._complain(path, f"the flags {row.flags:#x} do not fit the mode {row.mode:o}")
        if row.is_chunked and not stat.S_ISREG(row.mode):
            self._complain(path, "it is chunked but no regular file")
        if row.flags & Flags.NESTED_ROOT:
            self._complain(path, "it says to be the root of a nested catalog in the midst of one")
        if row.hash is not None and not stat.S_ISREG(row.mode):
            self._complain(path, "it has content although it is no regular file")
        if stat.S_ISLNK(row.mode) != bool(row.symlink):
            self._complain(path, "it has no target" if stat.S_ISLNK(row.mode) else "it has a target but is no symbolic link")

    def _check_mountpoint(self, path: bytes, row: Row) -> None:
        if row.flags & (Flags.MOUNTPOINT | Flags.BIND_MOUNTPOINT) and self._children.get(row.key):
            self._complain(path, "the nested catalog's mountpoint has entries in the parent catalog too")
        if row.flags & Flags.MOUNTPOINT:
            self._mountpoints[path] = row

    def _check_content(self, path: bytes, row: Row, compression: Compression) -> None:
        if not row.is_chunked:
            if row.content is None:
                self._complain(path, "it is a regular file without content")
            elif not row.flags & Flags.EXTERNAL:
                self._findings.objects.append(WantedObject(path, row.content, ObjectKind.DATA, compression, row.size))
            return
        if row.content is not None:
            self._findings.objects.append(WantedObject(path, row.content, ObjectKind.DATA, compression, row.size))
        expected = 0
        chunks = self._chunks.get(row.key, [])
        for offset, size, digest in chunks:
            if offset != expected or size < 0 or len(digest) != HASH_SIZE:
                self._complain(path, f"its chunks have a gap, an overlap or a broken hash at offset {expected}")
                return
            expected += size
            if not row.flags & Flags.EXTERNAL:
                content = ContentHash(digest, row.algorithm)
                self._findings.objects.append(WantedObject(path, content, ObjectKind.CHUNK, compression, size))
        if not chunks or expected != row.size:
            self._complain(path, f"its chunks hold {expected} bytes of {row.size}")

    def _check_orphaned_chunks(self) -> None:
        for key in self._chunks:
            owner = self._rows.get(key)
            if owner is None or not owner.is_chunked:
                self._complain(self._catalog.path, "there are chunks that belong to no chunked file")
                return

    def _check_nested(self) -> None:
        references = {reference.path: reference for reference in self._catalog.nested()}
        for path in references.keys() - self._mountpoints.keys():
            self._complain(path, "the catalog names a nested catalog where there is no mountpoint")
        for path, row in self._mountpoints.items():
            if path in references:
                self._findings.nested.append((references[path], row))
            else:
                self._complain(path, "the mountpoint's nested catalog is not named in the catalog")

    def _check_counters(self) -> None:
        own = Counters(nested=len(self._catalog.nested()))
        for key, row in self._rows.items():
            count_row(own, row, len(self._chunks.get(key, ())))
        stated = self._catalog.statistics.own
        self._findings.complaints += [(self._catalog.path, text) for text in differing("self", stated, own)]


def differing(kind: str, stated: Counters, counted: Counters) -> Iterator[str]:
    """A text for each counter that is wrong."""
    for name, said, true in zip(COUNTER_NAMES, stated.values(), counted.values(), strict=True):
        if said != true:
            yield f"the counter {kind}_{name} says {said}, but it is {true}"
