"""The set of objects that are needed: read from catalogs by SQL alone, bounded in memory whatever their number.

Rows go into a heap first, and from there sorted into a tree, many at a time: single inserts of random hashes would touch a page
each (measured at a million hashes: 800,000 a second this way, 300,000 that way). All of it happens inside of SQLite, which works
outside of the interpreter lock.

An object is known by its 20 bytes and by whether it is a chunk. Neither the hash algorithm is looked at nor whether a file is
external, which can only keep more: CernVM-FS's publisher stores objects of external files too, and its collector spares them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mirror.errors import InvalidInput
from publisher.cvmfs import schema
from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.errors import RepositoryDamaged
from publisher.gc import scratch

_TABLES = """
CREATE TEMP TABLE fresh (digest BLOB, chunk INTEGER);
CREATE TEMP TABLE marked (digest BLOB, chunk INTEGER, PRIMARY KEY (digest, chunk)) WITHOUT ROWID;
"""
_BROKEN = """
SELECT EXISTS (SELECT 1 FROM main.catalog
    WHERE typeof(hash) NOT IN ('blob', 'null') OR length(hash) <> 20 OR typeof(flags) <> 'integer')
  OR EXISTS (SELECT 1 FROM main.chunks WHERE typeof(hash) <> 'blob' OR length(hash) <> 20)
"""
_COUNT = "SELECT (SELECT count(*) FROM main.catalog) + (SELECT count(*) FROM main.chunks)"
_TAKE_FILES = "INSERT INTO temp.fresh SELECT hash, 0 FROM main.catalog WHERE hash IS NOT NULL"
_TAKE_CHUNKS = "INSERT INTO temp.fresh SELECT hash, 1 FROM main.chunks"
_SORT_IN = "INSERT OR IGNORE INTO temp.marked SELECT digest, chunk FROM temp.fresh ORDER BY digest, chunk"
_PREVIOUS = "SELECT CAST(value AS TEXT) FROM main.properties WHERE key = 'previous_revision'"
_LEAST_SORTED = 250_000
_SHARE_SORTED = 4
"""Sorted in are at least so many rows, and a part of what is marked already: each time the whole tree is gone through."""
_IN_TREE = {ObjectKind.DATA: 0, ObjectKind.CHUNK: 1}


@dataclass(frozen=True, slots=True)
class CatalogLinks:
    """What a catalog leads to, beside objects: nested catalogs, the catalog that it replaced; and the number of its rows."""

    nested: tuple[ContentHash, ...]
    previous: ContentHash | None
    rows: int


class Marks:
    """A set of objects that only grows. For one thread at a time; to be closed."""

    def __init__(self, memory: int) -> None:
        """memory: bytes of it that are held in memory."""
        self._connection = scratch.connect(memory, _TABLES)
        self._few: set[tuple[ObjectKind, bytes]] = set()
        self._fresh = 0
        self._marked = 0

    def close(self) -> None:
        """Free memory and temporary files."""
        self._connection.close()

    def add(self, content: ContentHash, kind: ObjectKind) -> None:
        """Mark a catalog, history, certificate or meta-info."""
        self._few.add((kind, content.value))

    def add_catalog(self, content: ContentHash, data: bytes) -> CatalogLinks:
        """Mark a catalog with all files and chunks in it; data: its database. Raises RepositoryDamaged."""
        what = f"the catalog {content}"
        database = self._connection
        with schema.reading(what), scratch.storing():
            schema.reload(database, data)
            if database.execute(_BROKEN).fetchone()[0]:
                raise RepositoryDamaged(f"{what} has hashes that are none")
            rows: int = database.execute(_COUNT).fetchone()[0]
            self._fresh += database.execute(_TAKE_FILES).rowcount
            self._fresh += database.execute(_TAKE_CHUNKS).rowcount
            nested = database.execute("SELECT sha1 FROM main.nested_catalogs").fetchall()
            previous = database.execute(_PREVIOUS).fetchall()
        if self._fresh >= max(_LEAST_SORTED, self._marked // _SHARE_SORTED):
            self.settle()
        self.add(content, ObjectKind.CATALOG)
        before = next(iter(_hashes(previous, what)), None)
        return CatalogLinks(_hashes(nested, what), before if before and any(before.value) else None, rows)

    def settle(self) -> None:
        """Sort in what was added: before the first question at the latest, which would have to wait for it."""
        with scratch.storing():
            self._marked += self._connection.execute(_SORT_IN).rowcount
            self._connection.execute("DELETE FROM temp.fresh")
        self._fresh = 0

    def holds(self, content: ContentHash, kind: ObjectKind) -> bool:
        """Whether the object is marked."""
        chunk = _IN_TREE.get(kind)
        if chunk is None:
            return (kind, content.value) in self._few
        if self._fresh:
            self.settle()
        query = "SELECT 1 FROM temp.marked WHERE digest = ? AND chunk = ?"
        return self._connection.execute(query, (content.value, chunk)).fetchone() is not None


def _hashes(rows: Iterable[tuple[bytes]], what: str) -> tuple[ContentHash, ...]:
    try:
        return tuple(ContentHash.parse(text.decode("ascii", "replace")) for (text,) in rows if text)
    except (InvalidInput, AttributeError) as error:
        raise RepositoryDamaged(f"{what} leads to a catalog by a broken hash: {error}") from error
