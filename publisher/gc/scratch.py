"""Databases for what is too much for memory: SQLite's temporary tables, of which no more than a set size is in memory.

Their files have no name (SQLite deletes them as soon as they are open), so nothing is left of a process that dies. They are where
SQLITE_TMPDIR or TMPDIR says, else in /var/tmp.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from mirror.errors import StorageFull, Unavailable

_PRIMARY = 0xFF
"""The part of an error code that is not detail."""


def connect(memory: int, tables: str) -> sqlite3.Connection:
    """A connection with temporary tables; memory: bytes of them that are held."""
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    connection.executescript(f"PRAGMA temp_store = FILE; PRAGMA temp.cache_size = -{memory >> 10}; {tables}")
    return connection


@contextmanager
def storing() -> Iterator[None]:
    """Turn the library's exceptions about temporary files into StorageFull and Unavailable; others pass."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & _PRIMARY
        if code == sqlite3.SQLITE_FULL:
            text = (
                "no space left for the temporary files of a garbage collection; free some, or set SQLITE_TMPDIR to a larger place"
            )
            raise StorageFull(text) from error
        if code in {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}:
            raise Unavailable(f"the temporary files of a garbage collection cannot be used: {error}") from error
        raise
