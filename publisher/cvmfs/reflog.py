"""The reference log: every root catalog, certificate, history and meta-info ever published. Repository format, section 7.1."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from mirror.errors import InvalidInput
from publisher.cvmfs import schema
from publisher.cvmfs.hash import ContentHash
from publisher.errors import RepositoryDamaged

REFLOG_NAME = ".cvmfsreflog"


class ReferenceType(IntEnum):
    """What a reference leads to; the value is what the database holds."""

    CATALOG = 0
    CERTIFICATE = 1
    HISTORY = 2
    METAINFO = 3


@dataclass(frozen=True, slots=True)
class Reference:
    """One line of the log; timestamp: Unix seconds at which it was entered last."""

    content: ContentHash
    type: ReferenceType
    timestamp: int


class Reflog:
    """A reference log in memory."""

    def __init__(self, data: bytes, fqrn: str) -> None:
        """data: the file as it is stored. Raises RepositoryDamaged if it is another repository's or cannot be read."""
        self._connection = schema.load_of(fqrn, data, "the reference log")

    @classmethod
    def empty(cls, fqrn: str) -> Reflog:
        """A log without entries."""
        connection = schema.create(schema.REFLOG)
        values = [("schema", "1.0"), ("schema_revision", "0"), ("fqrn", fqrn)]
        connection.executemany("INSERT INTO properties VALUES (?, ?)", values)
        return cls(schema.dump(connection), fqrn)

    def references(self) -> dict[ContentHash, Reference]:
        """All entries by hash. Raises RepositoryDamaged."""
        result = {}
        with schema.reading("the reference log"):
            for text, kind, timestamp in self._connection.execute(
                "SELECT hash, type, timestamp FROM refs ORDER BY timestamp, rowid"
            ):
                try:
                    reference = Reference(ContentHash.parse(text.decode("ascii", "replace")), ReferenceType(kind), timestamp)
                except (InvalidInput, ValueError) as error:
                    raise RepositoryDamaged(f"the reference log has a broken entry: {error}") from error
                result[reference.content] = reference
        return result

    def add(self, content: ContentHash, kind: ReferenceType, timestamp: int) -> None:
        """Enter a reference, or refresh the time of one that is there."""
        self._connection.execute("INSERT OR REPLACE INTO refs VALUES (?, ?, ?)", (str(content), int(kind), timestamp))

    def remove(self, content: ContentHash) -> None:
        """Forget a reference whose object was deleted."""
        self._connection.execute("DELETE FROM refs WHERE hash = ?", (str(content),))

    def serialise(self) -> bytes:
        """The file to be stored uncompressed; its checksum is the content hash of these very bytes."""
        return schema.dump(self._connection)
