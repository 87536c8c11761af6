"""Where a repository's objects and its few named files live, as a protocol.

Blocking calls, safe to make from several threads. Implementations: `publisher.objects.local`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from publisher.cvmfs.hash import ContentHash, ObjectKind

REFRESH_SECONDS = 3600.0
"""An object that is put again has its modification time renewed, unless it is younger than this: garbage must be much older."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object as a listing shows it: size in bytes as stored, modification time in Unix seconds."""

    content: ContentHash
    kind: ObjectKind
    size: int
    modified: float


class ObjectSource(Protocol):
    """Reading: enough for a verifying reader, a replica, a checker."""

    def get(self, content: ContentHash, kind: ObjectKind) -> bytes:
        """The stored (compressed) bytes, not yet verified. Raises NotFound, Unavailable."""

    def pieces(self, content: ContentHash, kind: ObjectKind) -> Iterator[bytes]:
        """What `get` gives, a piece at a time, for objects of any size. Raises NotFound, Unavailable."""

    def read_file(self, name: str) -> bytes:
        """A named file of the repository's root, such as `.cvmfspublished`. Raises NotFound, Unavailable."""


class ObjectStore(ObjectSource, Protocol):
    """Reading and writing."""

    def put(self, content: ContentHash, kind: ObjectKind, stored: bytes | memoryview) -> bool:
        """Store the object unless it is there; whether it was new. Never visible half written.

        An object that is there becomes as good as new for `expire`: its modification time is at most `REFRESH_SECONDS` old when
        this returns. Raises StorageFull, Unavailable.
        """

    def put_file(self, content: ContentHash, kind: ObjectKind, stored: Path) -> bool:
        """As `put`, of a file's bytes, which are never in memory as a whole.

        The file must be the caller's own: the store may make it the object. It is gone when this returns, and still there if it
        fails. Raises StorageFull, Unavailable.
        """

    def renew(self, content: ContentHash, kind: ObjectKind, size: int) -> bool:
        """What `put` does for an object that is there, without its bytes; false if it is not there with this size as stored.

        Raises StorageFull, Unavailable.
        """

    def contains(self, content: ContentHash, kind: ObjectKind) -> bool:
        """Whether the object is there."""

    def delete(self, content: ContentHash, kind: ObjectKind) -> None:
        """Remove the object; no error if it is gone already."""

    def expire(self, content: ContentHash, kind: ObjectKind, before: float) -> bool:
        """Remove the object if its modification time is before this (Unix seconds); whether that removed it.

        `before` is at least `REFRESH_SECONDS` ago. A `put` of the same object, from any process that writes the repository, comes
        either before it, and saves the object, or after it, and stores the object anew. Raises Unavailable.
        """

    def objects(self) -> Iterator[StoredObject]:
        """Every object, in no particular order."""

    def write_file(self, name: str, data: bytes) -> None:
        """Replace a named file atomically and durably. Raises StorageFull, Unavailable."""

    def delete_file(self, name: str) -> None:
        """Remove a named file; no error if it is gone already. Raises Unavailable."""

    def flush(self) -> None:
        """Return once everything put so far survives a power failure."""
