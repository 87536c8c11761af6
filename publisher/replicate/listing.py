"""What a catalog refers to: read from a file, in the memory of a few rows, however large the catalog is.

The database is a stranger's: it may hold nothing but plain tables, and may cost no more work than its size explains.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mirror.errors import InvalidInput, Unavailable
from publisher.cvmfs import codec, schema
from publisher.cvmfs.catalog import NestedReference
from publisher.cvmfs.hash import HASH_SIZE, ContentHash, HashAlgorithm, ObjectKind
from publisher.cvmfs.path import is_below, normalise, show
from publisher.errors import RepositoryDamaged
from publisher.replicate.files import local_failures

_OBJECTS = """
SELECT hash, flags >> 8 & 7, '', max(size) FROM catalog WHERE hash IS NOT NULL AND flags & 0x80 = 0 GROUP BY 1, 2
UNION ALL SELECT chunks.hash, catalog.flags >> 8 & 7, 'P', max(chunks.size) FROM chunks CROSS JOIN catalog
  USING (md5path_1, md5path_2) WHERE catalog.flags & 0x80 = 0 GROUP BY 1, 2
"""
"""All but those of external files, as the reference replicates them. Repository format, section 9."""
_FOREIGN = """
SELECT 1 FROM sqlite_master WHERE type NOT IN ('table', 'index') OR ifnull(rootpage, 0) <= 0
UNION ALL SELECT 1 FROM sqlite_master AS item, pragma_table_xinfo(item.name) AS cell
  WHERE item.type = 'table' AND cell.hidden <> 0
"""
"""Views, triggers, virtual tables and computed columns, which could compute without end."""
_CHECK_EVERY = 10_000
_FREE_OPERATIONS = 1_000_000
_OPERATIONS_PER_BYTE = 8
"""A row takes about 60 bytes and 100 operations of SQLite's machine."""


@dataclass(frozen=True, slots=True)
class WantedObject:
    """An object that a catalog needs; size: bytes of its content, the most that any of its files states."""

    content: ContentHash
    kind: ObjectKind
    size: int


class CatalogListing:
    """An open catalog; to be closed. For one thread at a time. All methods raise RepositoryDamaged."""

    def __init__(self, connection: sqlite3.Connection, path: bytes, size: int) -> None:
        """Not to be called directly: `open_listing` is."""
        self._connection = connection
        self._budget = _FREE_OPERATIONS + size * _OPERATIONS_PER_BYTE
        self._path = path
        self._what = f"the catalog at {show(path)}"
        connection.set_progress_handler(self._is_too_much, _CHECK_EVERY)
        with self._reading():
            connection.executescript("PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;")
            if connection.execute(_FOREIGN).fetchone():
                raise RepositoryDamaged(f"{self._what} holds more than plain tables, which no catalog needs")
            query = (
                "SELECT key, CAST(value AS BLOB) FROM properties WHERE key IN ('root_prefix', 'revision', 'previous_revision')"
            )
            self._properties: dict[str, bytes] = dict(connection.execute(query))
        stated = self._properties.get("root_prefix", b"")
        if stated != path:
            raise RepositoryDamaged(f"{self._what} says that it belongs to {show(stated or b'')}")

    @property
    def revision(self) -> int:
        """Revision of the repository in which it was written."""
        try:
            return int(self._properties.get("revision", b"0"))
        except ValueError:
            raise RepositoryDamaged(f"{self._what} has a revision that is no number") from None

    @property
    def previous(self) -> ContentHash | None:
        """The catalog that this one replaced."""
        text = self._properties.get("previous_revision", b"")
        if not text:
            return None
        previous = self._hash(text.decode("ascii", "replace"))
        return previous if any(previous.value) else None

    def objects(self) -> Iterator[WantedObject]:
        """The data objects and chunks of its files, each once."""
        algorithms = {int(algorithm): algorithm for algorithm in HashAlgorithm}
        kinds = {kind.value: kind for kind in (ObjectKind.DATA, ObjectKind.CHUNK)}
        with self._reading():
            for digest, number, letter, size in self._connection.execute(_OBJECTS):
                algorithm = algorithms.get(number)
                if type(digest) is not bytes or len(digest) != HASH_SIZE or algorithm is None:
                    raise RepositoryDamaged(f"{self._what} has a row with a broken or unknown hash")
                if type(size) is not int or size < 0:
                    raise RepositoryDamaged(f"{self._what} has a row with an impossible size")
                yield WantedObject(ContentHash(digest, algorithm), kinds[letter], size)

    def nested(self) -> Iterator[NestedReference]:
        """The catalogs that hang below it."""
        with self._reading():
            for path, text, size in self._connection.execute("SELECT CAST(path AS BLOB), sha1, size FROM nested_catalogs"):
                if type(path) is not bytes or type(text) is not str or type(size) is not int or size < 0:
                    raise RepositoryDamaged(f"{self._what} has a broken reference to a nested catalog")
                if not _is_proper(path) or not is_below(path, self._path):
                    raise RepositoryDamaged(f"{self._what} names a nested catalog at {show(path)[:200]}, which is not below it")
                yield NestedReference(path, self._hash(text), size)

    def close(self) -> None:
        """Free the file."""
        self._connection.close()

    def _hash(self, text: str) -> ContentHash:
        try:
            return ContentHash.parse(text)
        except InvalidInput as error:
            raise RepositoryDamaged(f"{self._what}: {error}") from error

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            with schema.reading(self._what):
                yield
        except RepositoryDamaged:
            if self._budget < 0:
                raise RepositoryDamaged(f"{self._what} is malicious: it makes more work than its size explains") from None
            raise

    def _is_too_much(self) -> bool:
        self._budget -= _CHECK_EVERY
        return self._budget < 0


def open_listing(stored: BinaryIO, reference: NestedReference, scratch: Path, limit: int) -> CatalogListing:
    """Open a catalog from its stored form, which was verified. Blocking.

    reference: where it must belong, and its uncompressed bytes, 0 if nothing states them; scratch: a file for its content, which
    is gone again when this returns. limit: most bytes in any case. Raises RepositoryDamaged, StorageFull, Unavailable.
    """
    size = reference.size
    with local_failures(scratch):
        try:
            with scratch.open("wb") as file:
                written = codec.inflate(stored, file, min(size, limit) if size else limit)
            if size and written != size:
                raise RepositoryDamaged(f"its content has {written} bytes, but {size} are promised")
            connection = sqlite3.connect(
                f"{scratch.absolute().as_uri()}?mode=ro&immutable=1", uri=True, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise Unavailable(f"{scratch} cannot be opened: {error}") from error
        except RepositoryDamaged as error:
            raise RepositoryDamaged(
                f"the catalog {reference.content} of {show(reference.path)} cannot be read: {error}"
            ) from error
        finally:
            scratch.unlink(missing_ok=True)
    try:
        return CatalogListing(connection, reference.path, written)
    except BaseException:
        connection.close()
        raise


def _is_proper(path: bytes) -> bool:
    try:
        return normalise(path) == path
    except InvalidInput:
        return False
