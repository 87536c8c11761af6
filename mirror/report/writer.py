"""Appends access records to a file, off the event loop.

A record is handed over in less than a microsecond. A thread of its own, woken for many records together since each change between
threads costs more than a line, makes lines of them and writes all that wait at once. Before each write it looks whether the file
was moved away (logrotate), and opens a new one then, so rotation needs no signal and no restart. If the disk stalls or is full,
records are dropped and counted; no request waits for them.

Several processes may write one file. Each batch goes to its end under a lock, and in one piece.
"""

from __future__ import annotations

import contextlib
import fcntl
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
        """A line that an earlier write left incomplete, of whichever process, is ended first, so that it spoils no other one."""
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            rest = memoryview(b"\n" + lines if _ends_within_a_line(file) else lines)
            while rest:
                rest = rest[file.write(rest) :]
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)

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
        descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _MODE)
        return open(descriptor, "a+b", buffering=0)  # noqa: PTH123 (a descriptor, not a path)


def _ends_within_a_line(file: BinaryIO) -> bool:
    size = os.fstat(file.fileno()).st_size
    return bool(size) and os.pread(file.fileno(), 1, size - 1) != b"\n"
