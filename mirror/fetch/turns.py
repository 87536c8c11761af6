"""Turns between processes that share a store: while one of them asks an upstream for something, the others wait for its answer.

A turn is a lock on one byte of a file, whose place is a hash of what is asked for. The kernel gives it back when its holder dies.
The file has no content and does not grow; no number of turns makes another file. A process that hangs keeps its turns; who has
waited long enough goes on without.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

log = structlog.get_logger()

_LOOK_SECONDS = 0.01
_PLACES = 1 << 62
"""Beyond which the kernel counts no more. Two keys in one place wait for each other, and get their own answers."""


class Turns:
    """Turns by key. One object a process, which must not take two turns with one key at the same time.

    (Locks of this kind are a process's: it does not keep itself out.)
    """

    def __init__(self, path: Path) -> None:
        """path: of the file, the same for all processes. One that cannot be used is logged: then nobody waits."""
        self._descriptor: int | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            log.warning("no_turns", path=str(path), reason=error.strerror)

    @asynccontextmanager
    async def turn(self, key: str, longest: float) -> AsyncIterator[bool]:
        """Hold the key's turn for the length of the block; whether another process had it before, and may know the answer.

        longest: seconds to wait for another process. It should have come to an end by then: the block is entered all the same.
        """
        if self._descriptor is None:
            yield False
            return
        place = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest()) % _PLACES
        end = time.monotonic() + longest
        has_waited = False
        while not (is_held := _try_lock(self._descriptor, place)) and time.monotonic() < end:
            has_waited = True
            await asyncio.sleep(_LOOK_SECONDS)
        if not is_held:
            log.warning("turn_not_waited_for", of=key, seconds=longest)
        try:
            yield has_waited
        finally:
            if is_held and self._descriptor is not None:
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, place)

    def close(self) -> None:
        """Give all turns back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _try_lock(descriptor: int, place: int) -> bool:
    """Also true where the file system has no locks: then everybody asks for himself."""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        log.warning("no_turns", reason=error.strerror)
    return True
