"""Whether the store is too full for what is asked of it, as far as the blobs show that go by unkept."""

from __future__ import annotations

from collections.abc import Callable

from mirror.errors import MirrorError
from mirror.store.blobs import BlobStore

_HOLD_SECONDS = 60.0
"""How long the file system's own word that there is room again is not taken: a quota does not show in it."""


class SpaceWatch:
    """Remembers the last blob that found no room, until one as large was kept or the file system has had room for it a while."""

    def __init__(self, store: BlobStore, clock: Callable[[], float]) -> None:
        """clock: seconds that only grow."""
        self._store = store
        self._clock = clock
        self._problem: str | None = None
        self._size = 0
        self._noted = 0.0

    @property
    def problem(self) -> str | None:
        """What is wrong, for the operator; None if nothing is."""
        if self._problem is not None and self._clock() - self._noted >= _HOLD_SECONDS and self._has_room():
            self._problem = None
        return self._problem

    def not_kept(self, reason: str, size: int) -> None:
        """A blob of `size` bytes, as far as is known, went by unkept."""
        self._problem, self._size, self._noted = reason, size, self._clock()

    def kept(self, size: int) -> None:
        """A blob was stored."""
        if size >= self._size:
            self._problem = None

    def _has_room(self) -> bool:
        try:
            self._store.check_space(self._size)
        except MirrorError:
            return False
        return True
