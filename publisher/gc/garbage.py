"""The list of what is to be deleted, in the order in which it may go, bounded in memory whatever its length."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple

from publisher.cvmfs.hash import ContentHash, HashAlgorithm, ObjectKind
from publisher.gc import scratch
from publisher.gc.policy import Tally
from publisher.objects.store import StoredObject

_TABLES = "CREATE TEMP TABLE garbage (turn INTEGER, kind TEXT, digest BLOB, algorithm INTEGER, size INTEGER);"
_NEXT = "SELECT rowid, kind, digest, algorithm, size FROM temp.garbage WHERE turn = ? AND rowid > ? ORDER BY rowid LIMIT ?"


class Turn(IntEnum):
    """The order of deletion."""

    ROOTS = 0
    """Root catalogs that the reference log knows."""
    CATALOGS = 1
    REST = 2


class Victim(NamedTuple):
    """Something to be deleted; size in bytes as stored."""

    number: int
    """In the list; the later, the higher, within one turn."""
    content: ContentHash
    kind: ObjectKind
    size: int


class GarbageList:
    """For one thread at a time; to be closed."""

    def __init__(self, memory: int) -> None:
        """memory: bytes of it that are held in memory."""
        self._connection = scratch.connect(memory, _TABLES)
        self._tallies: dict[ObjectKind, Tally] = {}

    def close(self) -> None:
        """Free memory and temporary files."""
        self._connection.close()

    @property
    def tallies(self) -> Mapping[ObjectKind, Tally]:
        """What is in the list."""
        return self._tallies

    @property
    def total(self) -> Tally:
        """All of it."""
        return sum(self._tallies.values(), Tally())

    def add(self, turn: Turn, stored: StoredObject) -> None:
        """Put an object on the list."""
        content = stored.content
        values = (int(turn), stored.kind.value, content.value, int(content.algorithm), stored.size)
        with scratch.storing():
            self._connection.execute("INSERT INTO temp.garbage VALUES (?, ?, ?, ?, ?)", values)
        self._tallies[stored.kind] = self._tallies.get(stored.kind, Tally()) + Tally(1, stored.size)

    def after(self, turn: Turn, number: int, count: int) -> list[Victim]:
        """The next victims of a turn behind one of this number; 0 for the first ones."""
        rows = self._connection.execute(_NEXT, (int(turn), number, count)).fetchall()
        return [
            Victim(place, ContentHash(digest, HashAlgorithm(algorithm)), ObjectKind(kind), size)
            for place, kind, digest, algorithm, size in rows
        ]
