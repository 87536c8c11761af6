"""How many connections each worker has, in memory that all of them share: it decides who takes the next one.

Each number has one writer and is written in one go; a reader may see the one of a moment ago, which does no harm.
"""

from __future__ import annotations

import mmap
import os

SEATS = 128
"""Processes at the same time, at most: those that accept, and those that finish what they have."""

_EMPTY = -1
_WIDTH = 4


class Seats:
    """The table. Made by the parent, opened by workers."""

    def __init__(self, descriptor: int) -> None:
        """descriptor: of the shared memory; owned from now on."""
        self.descriptor = descriptor
        self._counts = memoryview(mmap.mmap(descriptor, SEATS * _WIDTH)).cast("i")

    @classmethod
    def make(cls) -> Seats:
        """An empty table. Raises OSError."""
        descriptor = os.memfd_create("debark-seats", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, SEATS * _WIDTH)
        seats = cls(descriptor)
        for seat in range(SEATS):
            seats.leave(seat)
        return seats

    def take(self, seat: int, connections: int) -> None:
        """Say how many connections the worker on this seat has; it accepts more."""
        self._counts[seat] = connections

    def leave(self, seat: int) -> None:
        """Nobody sits there, or whoever does accepts no more."""
        self._counts[seat] = _EMPTY

    def least(self) -> int:
        """The fewest connections that anyone who accepts has; 0 if nobody accepts."""
        return min((count for count in self._counts if count != _EMPTY), default=0)
