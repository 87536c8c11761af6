"""A catalog that is changed in place, with exact counters and link counts. Repository format, sections 4 and 6.2."""

from __future__ import annotations

from collections.abc import Sequence

from publisher.cvmfs import schema
from publisher.cvmfs.builder import INSERT_CHUNK, INSERT_COUNTER, INSERT_NESTED, INSERT_PROPERTY, Stamp, properties
from publisher.cvmfs.catalog import Catalog, NestedReference
from publisher.cvmfs.entry import Chunk
from publisher.cvmfs.hash import ContentHash
from publisher.cvmfs.path import PathKey
from publisher.cvmfs.row import GROUP_SHIFT, INSERT_ROW, TRANSITION, Row, count_row, hardlinks
from publisher.cvmfs.segments import SegmentedForm
from publisher.cvmfs.statistics import Counters, Statistics
from publisher.errors import RepositoryDamaged

_UPDATE_ROW = """UPDATE catalog SET hardlinks = ?, hash = ?, size = ?, mode = ?, mtime = ?, mtimens = ?, flags = ?,
  name = CAST(? AS TEXT), symlink = CAST(? AS TEXT), uid = ?, gid = ?, xattr = ? WHERE md5path_1 = ? AND md5path_2 = ?"""
_RENUMBER = """BEGIN;
CREATE TEMP TABLE ordered AS SELECT * FROM catalog ORDER BY rowid;
DELETE FROM catalog;
INSERT INTO catalog SELECT * FROM ordered ORDER BY rowid;
DROP TABLE ordered;
COMMIT;"""
_WASTED_ROWIDS = 0.25
"""Share of unused row numbers above which rows are numbered anew, as the reference does: clients make inodes of them."""


class CatalogEditor(Catalog):
    """One catalog of a transaction, and of the ones after it.

    content: hash of the object that it was read from or stored as last; None as long as it is new.
    accounted: what the parent's subtree counters hold for this catalog at present.
    changed: whether it differs from its object.
    entries_before: rows that its object has.
    size: bytes of its object, uncompressed.
    """

    def __init__(self, data: bytes, path: bytes, content: ContentHash | None) -> None:
        """data: uncompressed database; content: hash of its object, None for a catalog that is new."""
        super().__init__(data, path, check_types=False)
        self.content = content
        self.counters = self.statistics
        self.accounted = self.counters.total if content is not None else Counters()
        self.changed = content is None
        self.entries_before = self.counters.own.entries
        self.size = len(data)
        self._form = SegmentedForm()

    @classmethod
    def new(cls, path: bytes) -> CatalogEditor:
        """A catalog without rows, not even its root directory's."""
        connection = schema.create(schema.CATALOG)
        connection.executemany(INSERT_COUNTER, Statistics(Counters(), Counters()).rows())
        connection.executemany(INSERT_PROPERTY, properties(path, Stamp(0, 0)).items())
        data = connection.serialize()
        connection.close()
        return cls(data, path, None)

    def insert(self, row: Row, chunks: Sequence[Chunk] = ()) -> None:
        """Add a row; link counts of others are the caller's business."""
        self._connection.execute(INSERT_ROW, row)
        self._connection.executemany(
            INSERT_CHUNK, [(*row.key, chunk.offset, chunk.size, chunk.content.value) for chunk in chunks]
        )  # fmt: skip
        count_row(self.counters.own, row, len(chunks))
        self.changed = True

    def delete(self, row: Row) -> None:
        """Take a row away with its chunks; what remains of its link group is counted anew."""
        chunks = self._connection.execute("DELETE FROM chunks WHERE md5path_1 = ? AND md5path_2 = ?", row.key).rowcount
        self._connection.execute("DELETE FROM catalog WHERE md5path_1 = ? AND md5path_2 = ?", row.key)
        count_row(self.counters.own, row, chunks, -1)
        if row.link_group:
            self._shrink_group(row)
        self.changed = True

    def replace(self, old: Row, new: Row) -> None:
        """Change what a row says about an object of the same path that is neither chunked nor a hard link."""
        self._connection.execute(_UPDATE_ROW, (*new[4:], *old.key))
        count_row(self.counters.own, old, 0, -1)
        count_row(self.counters.own, new, 0)
        self.changed = True

    def add_links(self, directory: PathKey, count: int) -> None:
        """Raise or lower the link count of a directory whose sub-directories become more or fewer."""
        row = self.row(directory)
        if row is None:
            raise RepositoryDamaged(f"{self.what} lacks a directory that it must hold")
        self._connection.execute(
            "UPDATE catalog SET hardlinks = ? WHERE md5path_1 = ? AND md5path_2 = ?", (row.link_count + count, *directory)
        )  # fmt: skip
        self.changed = True

    def attach(self, reference: NestedReference, total: Counters) -> None:
        """Name a nested catalog, whose mountpoint's row is there; total: its counters with all below it."""
        self._connection.execute(INSERT_NESTED, (reference.path, str(reference.content), reference.size))
        self.counters.own.nested += 1
        self.counters.subtree += total
        self.changed = True

    def detach(self, path: bytes, total: Counters) -> None:
        """Forget a nested catalog."""
        self._connection.execute("DELETE FROM nested_catalogs WHERE path = CAST(? AS TEXT)", (path,))
        self.counters.own.nested -= 1
        self.counters.subtree -= total
        self.changed = True

    def update_nested(self, child: CatalogEditor, reference: NestedReference) -> None:
        """Follow a nested catalog that was written again: its reference, its directory's row, its counters."""
        self._connection.execute(
            "UPDATE nested_catalogs SET sha1 = ?, size = ? WHERE path = CAST(? AS TEXT)",
            (str(reference.content), reference.size, reference.path),
        )
        root = child.root_row()
        mountpoint = self.row(root.key)
        if mountpoint is None:
            raise RepositoryDamaged(f"{self.what} lacks the mountpoint of {child.what}")
        transition = int(TRANSITION)
        flags = root.flags & ~transition | mountpoint.flags & transition
        if root._replace(flags=flags) != mountpoint:
            self.replace(mountpoint, root._replace(flags=flags))
        total = child.counters.total
        self.counters.subtree += total - child.accounted
        child.accounted = total
        self.changed = True

    @property
    def memory(self) -> int:
        """Bytes that it takes, about: SQLite holds a database twice."""
        return 2 * self.size + self._form.size

    def pack(self, stamp: Stamp, ttl: int | None = None) -> tuple[ContentHash, bytes]:
        """Its object, which the caller is to store; from now on it counts as stored. ttl: seconds, for a root catalog."""
        data = self.finish(stamp, ttl)
        stored = self._form.compress(data)
        self.content, self.size, self.changed = ContentHash.of(stored), len(data), False
        self.entries_before = self.counters.own.entries
        return self.content, stored

    def follow(self, previous: ContentHash) -> None:
        """Let another catalog of this path count as the one before: the tree of an old revision follows the newest one."""
        self.content = previous
        self.changed = True

    def next_link_group(self) -> int:
        """A number that no hard-link group of this catalog has. It looks at every row."""
        highest: int | None = self._connection.execute("SELECT max(hardlinks) FROM catalog").fetchone()[0]
        return ((highest or 0) >> GROUP_SHIFT) + 1

    def finish(self, stamp: Stamp, ttl: int | None = None) -> bytes:
        """The database as it is to be stored; ttl: seconds, for a root catalog."""
        values = properties(self.path, stamp, self.content)
        if ttl is not None:
            values["TTL"] = str(ttl)
        self._connection.execute("DELETE FROM properties WHERE key = 'previous_revision'")
        self._connection.executemany(INSERT_PROPERTY, values.items())
        self._connection.executemany(INSERT_COUNTER, self.counters.rows())
        self._renumber()
        return schema.dump(self._connection)

    def _renumber(self) -> None:
        highest: int | None = self._connection.execute("SELECT max(rowid) FROM catalog").fetchone()[0]
        if self.counters.own.entries < (highest or 0) * (1 - _WASTED_ROWIDS):
            self._connection.executescript(_RENUMBER)

    def _shrink_group(self, row: Row) -> None:
        """Link groups live inside one directory only."""
        rest = [member for member in self.children(row.parent) if member.link_group == row.link_group]
        value = hardlinks(len(rest), row.link_group) if len(rest) > 1 else hardlinks(1)
        for member in rest:
            self._connection.execute(
                "UPDATE catalog SET hardlinks = ? WHERE md5path_1 = ? AND md5path_2 = ?", (value, *member.key)
            )  # fmt: skip
