"""Appends access records to a file, off the event loop.

A record is handed over in less than a microsecond. A thread of its own, woken for many records together since each change between
threads costs more than a line, makes lines of them and writes all that wait at once. Before each write it looks whether the file
was moved away (logrotate), and opens a new one then, so rotation needs no signal and no restart. If the disk stalls or is full,
records are dropped and counted; no request waits for them.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import structlog

from mirror.errors import Unavailable
from mirror.report.accesslog import AccessRecord, format_line

log = structlog.get_logger()

_BATCH = 1000
_GATHER_SECONDS = 0.05
_MODE = 0o640


class AccessLog:
    """An access log from construction to `close`."""

    def __init__(self, path: Path, *, capacity: int = 10_000, on_drop: Callable[[], None] = lambda: None) -> None:
        """capacity: records that may wait; on_drop: called for each record lost.

        Raises Unavailable if the file cannot be opened.
        """
        self._path = path
        self._on_drop = on_drop
        self._records: deque[AccessRecord] = deque()
        self._capacity = capacity
        self._woken = threading.Event()
        self._closing = threading.Event()
        self._failing = False
        self._is_torn = False
        self._file: BinaryIO | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._open()
        except OSError as error:
            raise Unavailable(f"the access log {path} cannot be opened: {error.strerror}") from error
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    def write(self, record: AccessRecord) -> None:
        """Hand a record over; never waits, never fails."""
        if len(self._records) >= self._capacity:
            self._on_drop()
            return
        self._records.append(record)
        if not self._woken.is_set():
            self._woken.set()

    def close(self) -> None:
        """Return when everything handed over is written or given up."""
        self._closing.set()
        self._woken.set()
        self._thread.join()

    def _run(self) -> None:
        while self._records or not self._closing.is_set():
            self._woken.wait()
            self._closing.wait(_GATHER_SECONDS)
            # Cleared before the records are taken: one that comes meanwhile is taken now or wakes this thread again.
            self._woken.clear()
            while self._records:
                self._append([self._records.popleft() for _ in range(min(_BATCH, len(self._records)))])
        if self._file is not None:
            self._file.close()

    def _append(self, records: list[AccessRecord]) -> None:
        lines = "".join(format_line(record) + "\n" for record in records).encode("ascii")
        try:
            self._write_all(self._follow_rotation(), lines)
        except OSError as error:
            for _ in records:
                self._on_drop()
            if not self._failing:
                log.warning("access_log_not_written", path=str(self._path), error=str(error))
            self._failing = True
        else:
            self._failing = False

    def _write_all(self, file: BinaryIO, lines: bytes) -> None:
        """A line that an earlier write left incomplete is ended first, so that it spoils no other one."""
        rest = memoryview(b"\n" + lines if self._is_torn else lines)
        self._is_torn = True
        while rest:
            rest = rest[file.write(rest) :]
        self._is_torn = False

    def _follow_rotation(self) -> BinaryIO:
        """The file that has the log's name now."""
        if self._file is not None:
            with contextlib.suppress(FileNotFoundError):
                named, held = self._path.stat(), os.fstat(self._file.fileno())
                if (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino):
                    return self._file
            self._file.close()
            self._file = None
        self._file = self._open()
        return self._file

    def _open(self) -> BinaryIO:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _MODE)
        self._is_torn = _ends_within_a_line(self._path)
        return open(descriptor, "ab", buffering=0)  # noqa: PTH123 (a descriptor, not a path)


def _ends_within_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if not size:
            return False
        file.seek(size - 1)
        return file.read(1) != b"\n"
