"""Which content a repository has stored already, by a hash of the content itself: what is known need not be compressed again.

The next build of an image has mostly the same files in another archive. To hash them costs a hundredth of compressing them.

The hash is GMAC (NIST SP 800-38D) under a secret that the file was made with, ten times as fast as SHA-256: nobody can make two
contents for one hash without having seen the secret or hashes, and neither leaves the file. A nonce that is always the same
would give the secret away only to those who see hashes.

A SQLite file in the repository's spool directory, filled by what is stored, never needed: it may be lost or damaged at any time.
Whoever finds an object here asks the store whether it is still there, and each row has a checksum of its own, since nothing is
synced to disk. Rows are kept in two generations: a full younger one becomes the older one, whose rows then are forgotten unless
they are found again.
"""

from __future__ import annotations

import os
import sqlite3
import struct
import threading
import zlib
from collections.abc import Collection
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from publisher.cvmfs.hash import ContentHash, ObjectKind

log = structlog.get_logger()

_SECRET_BYTES = 32
_NONCE = bytes(12)
_ROW = struct.Struct(">20sQ")
_CHECK = struct.Struct(">I")
_BUFFERED = 2000
_WAIT_SECONDS = 5.0
_TABLES = """
CREATE TABLE IF NOT EXISTS younger (key BLOB PRIMARY KEY, object BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS older (key BLOB PRIMARY KEY, object BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS secret (id INTEGER PRIMARY KEY, value BLOB NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class KnownObject:
    """What became of a content: the object's hash, and its size in bytes as stored."""

    content: ContentHash
    size: int


class KnownContent:
    """Of one repository and one compressor; safe for several threads and processes. To be closed, or used in a `with`.

    It never fails: what cannot be read is not known, and where the file cannot be used nothing is.
    """

    def __init__(self, path: Path, rows: int) -> None:
        """path: of the file, made if it lacks. rows: of a generation, at the most."""
        self._path = path
        self._most = rows
        self._lock = threading.Lock()
        self._fresh: dict[bytes, KnownObject] = {}
        self._younger = 0
        self._database: sqlite3.Connection | None = None
        self._hash = AESGCM(os.urandom(_SECRET_BYTES))
        try:
            self._open()
        except sqlite3.Error as error:
            self._give_up(error)

    def key(self, content: bytes, kind: ObjectKind) -> bytes:
        """What content is known by in this file, as an object of this kind."""
        return self._hash.encrypt(_NONCE, b"", content) + kind.value.encode()

    def find(self, keys: Collection[bytes]) -> dict[bytes, KnownObject]:
        """What is known of these."""
        with self._lock:
            found = {key: self._fresh[key] for key in keys if key in self._fresh}
            wanted = [key for key in keys if key not in found]
            if self._database is None or not wanted:
                return found
            try:
                return found | self._look_up(self._database, wanted)
            except sqlite3.Error as error:
                self._give_up(error)
                return found

    def note(self, key: bytes, known: KnownObject) -> None:
        """Remember an object that is in the store."""
        with self._lock:
            if self._database is not None:
                self._fresh[key] = known
                if len(self._fresh) >= _BUFFERED:
                    self._write_down()

    def close(self) -> None:
        """Write down what is not written, and close the file."""
        with self._lock:
            self._write_down()
            if self._database is not None:
                self._database.close()
                self._database = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _open(self) -> None:
        database = sqlite3.connect(self._path, timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = OFF")
            database.executescript(_TABLES)
            database.execute("INSERT OR IGNORE INTO secret VALUES (1, ?)", (os.urandom(_SECRET_BYTES),))
            with closing(database.execute("SELECT count(*) FROM younger")) as counted:
                (self._younger,) = counted.fetchone()
            with closing(database.execute("SELECT value FROM secret")) as found:
                self._hash = AESGCM(_secret(*found.fetchone()))
        except sqlite3.Error:
            database.close()
            raise
        self._database = database

    def _look_up(self, database: sqlite3.Connection, wanted: list[bytes]) -> dict[bytes, KnownObject]:
        places = ", ".join(f"?{number}" for number in range(1, len(wanted) + 1))
        query = (
            f"SELECT key, object, 0 FROM younger WHERE key IN ({places}) "  # noqa: S608 (placeholders only)
            f"UNION ALL SELECT key, object, 1 FROM older WHERE key IN ({places})"
        )
        found: dict[bytes, KnownObject] = {}
        for key, row, is_older in database.execute(query, wanted).fetchall():
            known = _read(key, row)
            if known is not None and key not in found:
                found[key] = known
                if is_older:
                    self._fresh[key] = known
        return found

    def _write_down(self) -> None:
        if self._database is None or not self._fresh:
            return
        rows = [(key, _row(key, known)) for key, known in self._fresh.items()]
        self._fresh = {}
        try:
            self._database.execute("BEGIN IMMEDIATE")
            if self._younger + len(rows) > self._most:
                self._database.execute("DROP TABLE older")
                self._database.execute("ALTER TABLE younger RENAME TO older")
                self._database.execute("CREATE TABLE younger (key BLOB PRIMARY KEY, object BLOB NOT NULL) WITHOUT ROWID")
                self._younger = 0
            self._database.executemany("INSERT OR REPLACE INTO younger VALUES (?, ?)", rows[: self._most])
            self._database.execute("COMMIT")
            self._younger += len(rows)
        except sqlite3.Error as error:
            self._give_up(error)

    def _give_up(self, error: sqlite3.Error) -> None:
        log.warning("known_content_lost", file=str(self._path), reason=str(error), effect="it is compressed again")
        if self._database is not None:
            self._database.close()
            self._database = None
        self._fresh = {}
        for suffix in ("", "-wal", "-shm"):
            with suppress(OSError):
                self._path.with_name(self._path.name + suffix).unlink()


def _secret(value: object) -> bytes:
    """Raises sqlite3.DatabaseError for a damaged one."""
    if not isinstance(value, bytes) or len(value) != _SECRET_BYTES:
        raise sqlite3.DatabaseError("the secret is damaged")
    return value


def _row(key: bytes, known: KnownObject) -> bytes:
    row = _ROW.pack(known.content.value, known.size)
    return row + _CHECK.pack(zlib.crc32(key + row))


def _read(key: bytes, row: object) -> KnownObject | None:
    """None for a row that is damaged."""
    if not isinstance(row, bytes) or len(row) != _ROW.size + _CHECK.size:
        return None
    value, size = _ROW.unpack_from(row)
    known = KnownObject(ContentHash(value), size)
    return known if _row(key, known) == row else None
