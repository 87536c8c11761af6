"""Writes a whole tree as new catalogs, bottom-up, in one pass over its entries. Repository format, sections 4 and 6."""

from __future__ import annotations

import stat
from collections import Counter
from dataclasses import dataclass

import structlog

from mirror.errors import InvalidInput
from publisher.cvmfs import codec, schema
from publisher.cvmfs.catalog import NestedReference
from publisher.cvmfs.cuts import CutLimits, cut
from publisher.cvmfs.entry import Directory, Entry
from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.cvmfs.path import PathKey, basename, check_names, parent_key, path_key, show
from publisher.cvmfs.row import INSERT_ROW, MARKER_NAME, Columns, Flags, Row, count_row, entry_columns, hardlinks
from publisher.cvmfs.statistics import Counters, Statistics
from publisher.errors import PublishError
from publisher.objects.store import ObjectStore

SCHEMA = ("2.5", "7")
"""Schema and its revision as all catalogs state them."""
INSERT_CHUNK = "INSERT INTO chunks VALUES (?, ?, ?, ?, ?)"
INSERT_NESTED = "INSERT INTO nested_catalogs VALUES (CAST(? AS TEXT), ?, ?)"
INSERT_PROPERTY = "INSERT OR REPLACE INTO properties VALUES (?, CAST(? AS TEXT))"
INSERT_COUNTER = "INSERT OR REPLACE INTO statistics VALUES (?, ?)"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Stamp:
    """What a publication writes into every catalog that it touches: number of the revision and Unix seconds."""

    revision: int
    modified: int


@dataclass(frozen=True, slots=True)
class BuiltCatalog:
    """A catalog that is stored; its parent needs the reference, the mountpoint's row, and the totals for its own counters."""

    reference: NestedReference
    mountpoint: Row
    total: Counters


def store_metadata(store: ObjectStore, content: bytes, kind: ObjectKind) -> ContentHash:
    """Compress and put a catalog, history, certificate or meta-info. Raises StorageFull, Unavailable."""
    exact = kind in {ObjectKind.CERTIFICATE, ObjectKind.METAINFO}
    stored = codec.compress_like_reference(content) if exact else codec.compress(content)
    result = ContentHash.of(stored)
    store.put(result, kind, stored)
    return result


def marker_entry(store: ObjectStore, mtime: int) -> Entry:
    """The file that marks the root directory of a nested catalog; its empty object is put into the store."""
    return Entry(mode=stat.S_IFREG | 0o644, mtime=mtime, content=store_metadata(store, b"", ObjectKind.DATA))


def build(store: ObjectStore, path: bytes, tree: Directory, stamp: Stamp, limits: CutLimits) -> BuiltCatalog:
    """Write a tree as a nested catalog for a path, with further ones below it where it is too large for one.

    Names `.cvmfscatalog` in the tree are left out: they belong to the format.
    Raises PublishError for what the format cannot hold, StorageFull, Unavailable.
    """
    marker = marker_entry(store, stamp.modified)
    built: dict[Directory, BuiltCatalog] = {}
    for place, directory in cut(tree, path, limits):
        writer = _CatalogWriter(place, directory, marker, built)
        built[directory] = writer.write(store, stamp)
    return built[tree]


class _CatalogWriter:
    """Collects the rows of one catalog."""

    def __init__(self, path: bytes, root: Directory, marker: Entry, built: dict[Directory, BuiltCatalog]) -> None:
        self._path = path
        self._root = root
        self._marker = marker
        self._built = built
        self._rows: list[Columns] = []
        self._chunks: list[tuple[int, int, int, int, bytes]] = []
        self._nested: list[NestedReference] = []
        self._statistics = Statistics(Counters(), Counters())
        self._groups = 0
        self._left_out = 0

    def write(self, store: ObjectStore, stamp: Stamp) -> BuiltCatalog:
        key = path_key(self._path)
        try:
            root = self._directory_row(key, parent_key(self._path), basename(self._path), self._root, Flags.NESTED_ROOT)
            self._rows.append(root)
            self._rows.append(entry_columns(path_key(self._path + b"/" + MARKER_NAME), key, MARKER_NAME, self._marker))
            self._fill(key)
            if self._left_out:
                log.warning("markers_left_out", path=show(self._path), count=self._left_out)
        except InvalidInput as error:
            raise PublishError(f"{show(self._path)} holds what a catalog cannot: {error}") from error
        self._count()
        data = self._database(stamp)
        content = store_metadata(store, data, ObjectKind.CATALOG)
        row = Row._make(root)
        mountpoint = row._replace(flags=row.flags ^ Flags.NESTED_ROOT ^ Flags.MOUNTPOINT)
        return BuiltCatalog(NestedReference(self._path, content, len(data)), mountpoint, self._statistics.total)

    def _fill(self, root_key: PathKey) -> None:
        pending = [(self._path + b"/", root_key, self._root)]
        rows = self._rows
        while pending:
            prefix, parent, directory = pending.pop()
            below = []
            check_names(directory.children)
            links = self._link_groups(directory)
            for name, child in directory.children.items():
                path = prefix + name
                if name == MARKER_NAME:
                    self._left_out += 1
                elif isinstance(child, Entry):
                    if stat.S_ISDIR(child.mode):
                        raise InvalidInput(f"{name!r} has a directory's mode but is none")
                    key = path_key(path)
                    rows.append(entry_columns(key, parent, name, child, links.get(id(child), 1)))
                    if child.chunks:
                        self._add_chunks(key, child)
                elif child in self._built:
                    self._mount(self._built[child])
                else:
                    key = path_key(path)
                    rows.append(self._directory_row(key, parent, name, child))
                    below.append((path + b"/", key, child))
            below.reverse()
            pending += below

    def _add_chunks(self, key: PathKey, entry: Entry) -> None:
        for chunk in entry.chunks:
            self._chunks.append((*key, chunk.offset, chunk.size, chunk.content.value))

    def _mount(self, built: BuiltCatalog) -> None:
        self._rows.append(built.mountpoint)
        self._nested.append(built.reference)
        self._statistics.own.nested += 1
        self._statistics.subtree += built.total

    def _directory_row(self, key: PathKey, parent: PathKey, name: bytes, directory: Directory, transition: int = 0) -> Columns:
        if not directory.entry.is_directory:
            raise InvalidInput(f"{name!r} has entries but not a directory's mode")
        inner = sum(isinstance(child, Directory) for name, child in directory.children.items() if name != MARKER_NAME)
        return entry_columns(key, parent, name, directory.entry, hardlinks(2 + inner), transition)

    def _link_groups(self, directory: Directory) -> dict[int, int]:
        """Value of the column `hardlinks` by identity, for entries that the directory names more than once."""
        entries = [id(child) for name, child in directory.children.items() if name != MARKER_NAME]
        if len(set(entries)) == len(entries):
            return {}
        result = {}
        for identity, count in Counter(entries).items():
            if count > 1:
                self._groups += 1
                result[identity] = hardlinks(count, self._groups)
        return result

    def _count(self) -> None:
        own = self._statistics.own
        for row in self._rows:
            count_row(own, row, 0)
        own.chunks = len(self._chunks)

    def _database(self, stamp: Stamp) -> bytes:
        connection = schema.create(schema.CATALOG)
        connection.execute("BEGIN")
        connection.executemany(INSERT_ROW, self._rows)
        connection.executemany(INSERT_CHUNK, self._chunks)
        connection.executemany(INSERT_NESTED, [(item.path, str(item.content), item.size) for item in self._nested])
        connection.executemany(INSERT_COUNTER, self._statistics.rows())
        connection.executemany(INSERT_PROPERTY, properties(self._path, stamp).items())
        connection.execute("COMMIT")
        try:
            return connection.serialize()
        finally:
            connection.close()


def properties(path: bytes, stamp: Stamp, previous: ContentHash | None = None) -> dict[str, str | bytes]:
    """The properties that every catalog has. previous: the root catalog that a root catalog replaces.

    Nested catalogs do not name the ones before them, though the format would let them: replicas follow these names too, and do
    not forgive one that was collected, as they do for root catalogs. A replica that was away for long could never catch up.
    """
    result: dict[str, str | bytes] = {
        "schema": SCHEMA[0],
        "schema_revision": SCHEMA[1],
        "last_modified": str(stamp.modified),
        "revision": str(stamp.revision),
    }
    if path:
        result["root_prefix"] = path
    elif previous is not None:
        result["previous_revision"] = str(previous)
    return result
