"""A file that may change while the program runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from mirror.errors import InvalidInput

log = structlog.get_logger()

T = TypeVar("T")


class WatchedFile(Generic[T]):
    """What a file says, read again when it changes; as long as it is broken, what it said before, and a loud word about it."""

    def __init__(
        self,
        path: Path,
        read: Callable[[Path], T],
        *,
        look_seconds: float = 1.0,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        """read: raises InvalidInput, which is passed on here and logged later. look_seconds: between two looks at the file."""
        self.path = path
        self._read = read
        self._look_seconds = look_seconds
        self._timer = timer
        self._looked = timer()
        self._stamp = _stamp(path)
        self._value = read(path)
        self.problem: str | None = None
        """Why the newest content of the file is not in effect; None if it is."""

    def current(self) -> T:
        """What the file says. Costs a `stat` now and then; blocks for as long as reading a small file takes."""
        if self._timer() - self._looked >= self._look_seconds:
            self._looked = self._timer()
            stamp = _stamp(self.path)
            if stamp != self._stamp:
                self._stamp = stamp
                self._read_again()
        return self._value

    def _read_again(self) -> None:
        try:
            self._value = self._read(self.path)
        except InvalidInput as error:
            self.problem = str(error)
            log.error("changed_file_unusable", path=str(self.path), reason=str(error))  # noqa: TRY400 - no bug
        else:
            self.problem = None
            log.info("changed_file_read", path=str(self.path))


def _stamp(path: Path) -> tuple[int, int, int]:
    """What is another when the file is: it may be written in place, or replaced."""
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_mtime_ns, found.st_size, found.st_ino)
