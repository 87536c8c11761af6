"""A catalog: the database of one subtree's entries, for reading. Repository format, section 4."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mirror.errors import InvalidInput
from publisher.cvmfs import schema
from publisher.cvmfs.entry import Chunk
from publisher.cvmfs.hash import ContentHash
from publisher.cvmfs.path import ROOT, PathKey, ancestors, is_below, path_key, show
from publisher.cvmfs.row import SELECT_ROWS, Row, chunk_of
from publisher.cvmfs.statistics import Statistics
from publisher.errors import RepositoryDamaged

_WRONG_TYPES = """
SELECT 'catalog' WHERE EXISTS (SELECT 1 FROM catalog WHERE
  typeof(md5path_1) || typeof(md5path_2) || typeof(parent_1) || typeof(parent_2) || typeof(hardlinks) || typeof(size)
    || typeof(mode) || typeof(mtime) || typeof(flags) || typeof(uid) || typeof(gid)
    <> 'integerintegerintegerintegerintegerintegerintegerintegerintegerintegerinteger'
  OR typeof(name) <> 'text' OR typeof(symlink) <> 'text' OR typeof(mtimens) NOT IN ('integer', 'null')
  OR typeof(hash) NOT IN ('blob', 'null') OR length(hash) <> 20 OR typeof(xattr) NOT IN ('blob', 'null'))
UNION ALL SELECT 'chunks' WHERE EXISTS (SELECT 1 FROM chunks WHERE typeof(md5path_1) || typeof(md5path_2) || typeof(offset)
  || typeof(size) <> 'integerintegerintegerinteger' OR typeof(hash) <> 'blob' OR length(hash) <> 20)
UNION ALL SELECT 'nested_catalogs' WHERE EXISTS (SELECT 1 FROM nested_catalogs WHERE typeof(path) || typeof(sha1) || typeof(size)
  <> 'texttextinteger')
UNION ALL SELECT 'statistics' WHERE EXISTS (SELECT 1 FROM statistics WHERE typeof(counter) || typeof(value) <> 'textinteger')
UNION ALL SELECT 'properties' WHERE EXISTS (SELECT 1 FROM properties WHERE typeof(key) <> 'text' OR value IS NULL)
"""


@dataclass(frozen=True, slots=True)
class NestedReference:
    """Where a nested catalog hangs and which one it is: path of the mountpoint, hash, bytes of the uncompressed database."""

    path: bytes
    content: ContentHash
    size: int


class Catalog:
    """A catalog database. All methods raise RepositoryDamaged if it cannot be read."""

    def __init__(self, data: bytes, path: bytes = ROOT, *, check_types: bool = True) -> None:
        """data: the uncompressed database; path: where it was found, which it must confirm.

        check_types: look at every cell's type; to be spared only for catalogs of one's own.
        """
        self._connection = schema.load(data)
        self.path = path
        if check_types:
            self._check_types()
        stated = self.properties.get("root_prefix", b"")
        if stated != path:
            raise RepositoryDamaged(f"the catalog at {show(path)} says that it belongs to {show(stated)}")

    @property
    def what(self) -> str:
        """How messages name it."""
        return f"the catalog at {show(self.path)}"

    def close(self) -> None:
        """Free the memory."""
        self._connection.close()

    @property
    def properties(self) -> dict[str, bytes]:
        """All properties."""
        return {
            key.decode("ascii", "replace"): bytes(value)
            for key, value in self._query("SELECT key, CAST(value AS BLOB) FROM properties")
        }

    @property
    def revision(self) -> int:
        """Revision of the repository in which this catalog was written."""
        return self._number("revision", 0)

    @property
    def last_modified(self) -> int:
        """Unix seconds at which it was written."""
        return self._number("last_modified", 0)

    @property
    def previous(self) -> ContentHash | None:
        """The catalog that this one replaced."""
        text = self.properties.get("previous_revision", b"").decode("ascii", "replace")
        try:
            previous = ContentHash.parse(text) if text else None
        except InvalidInput as error:
            raise RepositoryDamaged(f"{self.what}: {error}") from error
        return previous if previous and any(previous.value) else None

    @property
    def statistics(self) -> Statistics:
        """Its counters as they are stored."""
        try:
            return Statistics.parse(
                {name.decode("ascii", "replace"): value for name, value in self._query("SELECT counter, value FROM statistics")}
            )
        except RepositoryDamaged as error:
            raise RepositoryDamaged(f"{self.what}: {error}") from error

    def row(self, key: PathKey) -> Row | None:
        """The row with this key."""
        found = self._query(SELECT_ROWS + "WHERE md5path_1 = ? AND md5path_2 = ?", key)
        return Row._make(found[0]) if found else None

    def children(self, key: PathKey) -> list[Row]:
        """The rows of a directory's entries, hidden ones included."""
        found = self._query(SELECT_ROWS + "WHERE parent_1 = ? AND parent_2 = ? ORDER BY rowid", key)
        return [Row._make(row) for row in found if row[:2] != key]

    def rows(self) -> Iterator[Row]:
        """Every row, in the order of the file."""
        with schema.reading(self.what):
            yield from map(Row._make, self._connection.execute(SELECT_ROWS + "ORDER BY rowid"))

    def chunks(self, row: Row) -> tuple[Chunk, ...]:
        """Chunks of a chunked file by offset; none for others."""
        if not row.is_chunked:
            return ()
        found = self._query(
            "SELECT offset, size, hash FROM chunks WHERE md5path_1 = ? AND md5path_2 = ? ORDER BY offset", row.key
        )
        return tuple(chunk_of(offset, size, digest, row.algorithm) for offset, size, digest in found)

    def chunk_rows(self) -> Iterator[tuple[PathKey, int, int, bytes]]:
        """Every row of the table of chunks as key, offset, size, hash; a file's rows stand together by offset."""
        with schema.reading(self.what):
            query = "SELECT md5path_1, md5path_2, offset, size, hash FROM chunks ORDER BY md5path_1, md5path_2, offset"
            for first, second, offset, size, digest in self._connection.execute(query):
                yield (first, second), offset, size, digest

    def nested(self) -> list[NestedReference]:
        """Its nested catalogs."""
        return [self._reference(*values) for values in self._query("SELECT path, sha1, size FROM nested_catalogs ORDER BY path")]

    def nested_towards(self, path: bytes) -> NestedReference | None:
        """The nested catalog that holds the path, or that hangs at it, if there is one."""
        for candidate in ancestors(path):
            if is_below(candidate, self.path):
                found = self._query("SELECT path, sha1, size FROM nested_catalogs WHERE path = CAST(? AS TEXT)", (candidate,))
                if found:
                    return self._reference(*found[0])
        return None

    def root_row(self) -> Row:
        """The row of the directory that the catalog describes."""
        row = self.row(path_key(self.path))
        if row is None:
            raise RepositoryDamaged(f"{self.what} lacks its root directory")
        return row

    def _check_types(self) -> None:
        """SQLite lets any cell hold anything; all else here relies on these types."""
        wrong = self._query(_WRONG_TYPES)
        if wrong:
            raise RepositoryDamaged(f"{self.what} has cells of a wrong type in its table {wrong[0][0].decode()}")

    def _reference(self, path: bytes, text: bytes, size: int) -> NestedReference:
        try:
            reference = NestedReference(bytes(path), ContentHash.parse(text.decode("ascii", "replace")), size)
        except InvalidInput as error:
            raise RepositoryDamaged(f"{self.what} names a nested catalog at {show(path)} by a broken hash: {error}") from error
        if not is_below(reference.path, self.path):
            raise RepositoryDamaged(f"{self.what} names a nested catalog at {show(path)}, which is not below it")
        return reference

    def _number(self, name: str, default: int) -> int:
        value = self.properties.get(name)
        try:
            return default if value is None else int(value)
        except ValueError:
            raise RepositoryDamaged(f"{self.what} has the property {name} = {value!r}, which is no number") from None

    def _query(self, statement: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        with schema.reading(self.what):
            return self._connection.execute(statement, values).fetchall()
