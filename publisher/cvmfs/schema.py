"""The SQLite form that catalogs, histories and reference logs share, and the tables of each.

Repository format, sections 4, 5 and 7.1.

Databases live in memory: they come out of compressed objects and go back into them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from publisher.errors import RepositoryDamaged

_PAGE_SIZE = 1024
"""The reference's choice: it keeps small catalogs small, which clients cache uncompressed."""
_WASTED_PAGES = 0.20
"""Share of free pages above which a database is packed again, as the reference does."""

CATALOG = """
CREATE TABLE properties (key TEXT, value TEXT, CONSTRAINT pk_properties PRIMARY KEY (key));
CREATE TABLE catalog (md5path_1 INTEGER, md5path_2 INTEGER, parent_1 INTEGER, parent_2 INTEGER, hardlinks INTEGER, hash BLOB,
  size INTEGER, mode INTEGER, mtime INTEGER, mtimens INTEGER, flags INTEGER, name TEXT, symlink TEXT, uid INTEGER, gid INTEGER,
  xattr BLOB, CONSTRAINT pk_catalog PRIMARY KEY (md5path_1, md5path_2));
CREATE INDEX idx_catalog_parent ON catalog (parent_1, parent_2);
CREATE TABLE chunks (md5path_1 INTEGER, md5path_2 INTEGER, offset INTEGER, size INTEGER, hash BLOB,
  CONSTRAINT pk_chunks PRIMARY KEY (md5path_1, md5path_2, offset, size),
  FOREIGN KEY (md5path_1, md5path_2) REFERENCES catalog (md5path_1, md5path_2));
CREATE TABLE nested_catalogs (path TEXT, sha1 TEXT, size INTEGER, CONSTRAINT pk_nested_catalogs PRIMARY KEY (path));
CREATE TABLE bind_mountpoints (path TEXT, sha1 TEXT, size INTEGER, CONSTRAINT pk_bind_mountpoints PRIMARY KEY (path));
CREATE TABLE statistics (counter TEXT, value INTEGER, CONSTRAINT pk_statistics PRIMARY KEY (counter));
"""

HISTORY = """
CREATE TABLE properties (key TEXT, value TEXT, CONSTRAINT pk_properties PRIMARY KEY (key));
CREATE TABLE branches (branch TEXT, parent TEXT, initial_revision INTEGER, CONSTRAINT pk_branch PRIMARY KEY (branch),
  FOREIGN KEY (parent) REFERENCES branches (branch),
  CHECK ((branch <> '') OR (parent IS NULL)), CHECK ((branch = '') OR (parent IS NOT NULL)));
CREATE TABLE tags (name TEXT, hash TEXT, revision INTEGER, timestamp INTEGER, channel INTEGER, description TEXT, size INTEGER,
  branch TEXT, CONSTRAINT pk_tags PRIMARY KEY (name), FOREIGN KEY (branch) REFERENCES branches (branch));
CREATE TABLE recycle_bin (hash TEXT, flags INTEGER, CONSTRAINT pk_hash PRIMARY KEY (hash));
INSERT INTO branches VALUES ('', NULL, 0);
"""

REFLOG = """
CREATE TABLE properties (key TEXT, value TEXT, CONSTRAINT pk_properties PRIMARY KEY (key));
CREATE TABLE refs (hash TEXT, type INTEGER, timestamp INTEGER, CONSTRAINT pk_refs PRIMARY KEY (hash));
"""


class _Database(sqlite3.Connection):
    """Closed with its last user: catalogs are shared and dropped from caches."""

    def __del__(self) -> None:
        self.close()


def create(tables: str) -> sqlite3.Connection:
    """A new database with one of this module's sets of tables."""
    return load(_template(tables))


def load(data: bytes) -> sqlite3.Connection:
    """Open a database that came from an object. Text cells come as bytes. Raises RepositoryDamaged if it is none."""
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False, factory=_Database)
    try:
        reload(connection, data)
    except RepositoryDamaged:
        connection.close()
        raise
    return connection


def load_of(fqrn: str, data: bytes, what: str) -> sqlite3.Connection:
    """The same for a database that names its repository; `what` names it. Raises RepositoryDamaged if it is another's."""
    connection = load(data)
    with reading(what):
        properties = dict(connection.execute("SELECT key, value FROM properties").fetchall())
    if properties.get(b"fqrn", b"").decode("utf-8", "replace") != fqrn:
        raise RepositoryDamaged(f"{what} is not of the repository {fqrn}")
    return connection


def reload(connection: sqlite3.Connection, data: bytes) -> None:
    """Let an open connection have this as its main database; temporary tables stay. Raises RepositoryDamaged if it is none."""
    try:
        connection.deserialize(data)
        connection.text_factory = bytes
        connection.executescript("PRAGMA trusted_schema = OFF; PRAGMA journal_mode = OFF; PRAGMA cell_size_check = ON;")
    except (sqlite3.Error, OverflowError) as error:
        raise RepositoryDamaged(f"not an SQLite database: {error}") from error


def dump(connection: sqlite3.Connection) -> bytes:
    """The database's bytes; packed before, if many of its pages are unused."""
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    unused = connection.execute("PRAGMA freelist_count").fetchone()[0]
    if unused > pages * _WASTED_PAGES:
        connection.execute("VACUUM")
    return connection.serialize()


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn the library's exceptions on a damaged database into RepositoryDamaged that names it."""
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise RepositoryDamaged(f"{what} is damaged: {error}") from error


@cache
def _template(tables: str) -> bytes:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        connection.executescript(f"PRAGMA page_size = {_PAGE_SIZE}; PRAGMA journal_mode = OFF;")
        connection.executescript(tables)
        return connection.serialize()
    finally:
        connection.close()
