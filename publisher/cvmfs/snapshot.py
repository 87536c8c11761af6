"""One revision of a repository: the tree below one root catalog."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from typing import NamedTuple

from cachetools import LRUCache

from mirror.errors import InvalidInput, NotFound
from publisher.cvmfs.catalog import Catalog, NestedReference
from publisher.cvmfs.entry import Directory, Entry
from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.cvmfs.objects import VerifiedObjects
from publisher.cvmfs.path import ROOT, PathKey, check_names, normalise, path_key, show
from publisher.cvmfs.row import MARKER_NAME, Flags, Row, row_entry
from publisher.errors import RepositoryDamaged


class Located(NamedTuple):
    """A row and the catalog that holds it; for a nested catalog's directory, the nested one."""

    catalog: Catalog
    row: Row


class Snapshot:
    """Reads one revision. Paths are bytes, with or without a leading slash; symbolic links are not followed.

    All methods raise RepositoryDamaged for objects that are missing or wrong, Unavailable where the source cannot be reached, and
    InvalidInput for impossible paths.
    """

    def __init__(self, objects: VerifiedObjects, root: ContentHash, size: int | None, cached_catalogs: int) -> None:
        """root, size: hash and uncompressed bytes of the root catalog."""
        self._objects = objects
        self._cache: LRUCache[tuple[bytes, ContentHash], Catalog] = LRUCache(cached_catalogs)
        self.root_hash = root
        self.root = Catalog(objects.metadata(root, ObjectKind.CATALOG, size))

    def nested(self, reference: NestedReference) -> Catalog:
        """Open a nested catalog, or take it from memory."""
        place = (reference.path, reference.content)
        catalog = self._cache.get(place)
        if catalog is None:
            data = self._objects.metadata(reference.content, ObjectKind.CATALOG, reference.size)
            catalog = self._cache[place] = Catalog(data, reference.path)
        return catalog

    def locate(self, path: bytes) -> Located | None:
        """The row of a path, if it exists."""
        path = normalise(path)
        catalog = self.root
        while reference := catalog.nested_towards(path):
            catalog = self.nested(reference)
        row = catalog.row(path_key(path))
        return Located(catalog, row) if row else None

    def lookup(self, path: bytes) -> Entry | None:
        """The object at a path, if it exists."""
        found = self.locate(path)
        return row_entry(found.row, found.catalog.chunks(found.row)) if found else None

    def listing(self, path: bytes = ROOT) -> dict[bytes, Entry]:
        """A directory's objects by name, as a client shows them, marker files included; hard links are the same object.

        Raises NotFound if there is no such directory.
        """
        catalog, row = self._directory(path)
        return {name: entry for name, _, entry in _entries(catalog, row.key)}

    def walk(self, path: bytes = ROOT) -> Iterator[tuple[bytes, Entry]]:
        """Every object below a directory, depth first, with its path from there; marker files included. Raises NotFound."""
        base = normalise(path)
        catalog, row = self._directory(base)
        pending = [(name, catalog, row, entry) for name, row, entry in _entries(catalog, row.key)][::-1]
        while pending:
            relative, catalog, row, entry = pending.pop()
            yield relative, entry
            if row.is_directory and not row.flags & Flags.BIND_MOUNTPOINT:
                inner = self._entered(catalog, row, base + b"/" + relative)
                below = [(relative + b"/" + name, inner, row, entry) for name, row, entry in _entries(inner, row.key)]
                pending += reversed(below)

    def tree(self, path: bytes = ROOT) -> Directory:
        """A directory with everything below it, across nested catalogs, without their marker files. Raises NotFound."""
        base = normalise(path)
        catalog, row = self._directory(base)
        top = Directory(row_entry(row))
        pending = [(top, base, catalog, row.key)]
        while pending:
            directory, place, catalog, key = pending.pop()
            for name, row, entry in _entries(catalog, key):
                if not row.is_directory:
                    if name != MARKER_NAME:
                        directory.children[name] = entry
                    continue
                child = directory.children[name] = Directory(entry)
                if row.flags & Flags.BIND_MOUNTPOINT:
                    continue
                below = place + b"/" + name
                pending.append((child, below, self._entered(catalog, row, below), row.key))
        return top

    def content(self, entry: Entry) -> Iterator[bytes]:
        """Content of a regular file, piece by piece."""
        return self._objects.content(entry)

    def read(self, path: bytes) -> bytes:
        """Content of a regular file as a whole. Raises NotFound, InvalidInput if it is something else."""
        entry = self.lookup(path)
        if entry is None:
            raise NotFound(f"{show(normalise(path))} does not exist in this revision")
        if not stat.S_ISREG(entry.mode):
            raise InvalidInput(f"{show(normalise(path))} is not a regular file")
        return b"".join(self.content(entry))

    def catalogs(self, path: bytes = ROOT) -> Iterator[tuple[Catalog, ContentHash]]:
        """Every catalog, parents first, with its hash; below a path, if one is given: then those that hang at it or below."""
        base = normalise(path)
        pending = [NestedReference(ROOT, self.root_hash, 0)]
        while pending:
            reference = pending.pop()
            catalog = self.nested(reference) if reference.path else self.root
            if reference.path == base or reference.path.startswith(base + b"/"):
                yield catalog, reference.content
            pending += [
                nested
                for nested in reversed(catalog.nested())
                if (nested.path + b"/").startswith(base + b"/") or (base + b"/").startswith(nested.path + b"/")
            ]

    def _directory(self, path: bytes) -> Located:
        found = self.locate(path)
        if found is None or not found.row.is_directory:
            raise NotFound(f"{show(normalise(path))} is no directory of this revision")
        return found

    def _entered(self, catalog: Catalog, row: Row, path: bytes) -> Catalog:
        """The catalog that holds a directory's entries: another one if the directory is a mountpoint."""
        if not row.flags & Flags.MOUNTPOINT:
            return catalog
        reference = catalog.nested_towards(path)
        if reference is None or reference.path != path:
            raise RepositoryDamaged(f"{catalog.what} does not name the nested catalog at {show(path)}")
        return self.nested(reference)


def _entries(catalog: Catalog, key: PathKey) -> Iterator[tuple[bytes, Row, Entry]]:
    """A directory's objects; rows of one hard-link group share one entry."""
    rows = [row for row in catalog.children(key) if not row.flags & Flags.HIDDEN]
    try:
        check_names([row.name for row in rows])
    except InvalidInput as error:
        raise RepositoryDamaged(f"{catalog.what} holds an impossible name: {error}") from error
    groups: dict[int, Entry] = {}
    for row in rows:
        group = row.link_group
        entry = groups.get(group) if group else None
        if entry is None:
            entry = row_entry(row, catalog.chunks(row) if row.flags & Flags.CHUNKED else ())
            if group:
                groups[group] = entry
        yield row.name, row, entry
