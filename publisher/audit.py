"""The audit log: one JSON line for all that changed what clients can read, or who may sign it. Documented in docs/trust.md.

A line is on the disk before the thing that it tells of is reported as done. The file is opened for each line, so it may be moved
away at any time; publisher and verbs write it side by side.
"""

from __future__ import annotations

import fcntl
import getpass
import json
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import structlog

from mirror.errors import Unavailable

log = structlog.get_logger()

FILE_NAME = "audit.jsonl"


class Act(StrEnum):
    """What was done."""

    PUBLISHED = "published"
    """An image was put into a repository, or got names there."""
    REMOVED = "removed"
    """An image was taken out of a repository."""
    TAKEN_DOWN = "taken_down"
    """An image was blocked; its removals follow."""
    LIFTED = "lifted"
    """A block was undone."""
    POLICY = "policy"
    """A policy file came into force."""
    CHANGED = "changed"
    """A verb published a revision: ingest, tag, rollback."""
    COLLECTED = "collected"
    """Garbage was deleted."""
    MADE = "made"
    """A repository was made, with keys."""
    SIGNED = "signed"
    """A whitelist was renewed, or keys exchanged."""
    IMPORTED = "imported"
    """A repository was taken over."""


class AuditLog:
    """Appends to the file. Blocking; safe for several threads and processes."""

    def __init__(self, file: Path, clock: Callable[[], datetime] = lambda: datetime.now(UTC), who: str | None = None) -> None:
        """who: stands in each line; the login name without it."""
        self._file = file
        self._clock = clock
        self._who = who or login_name()
        self.problem: str | None = None
        """Why the last line could not be written; None if it was."""

    def record(self, act: Act, *, by: str | None = None, **facts: object) -> None:
        """Write one line, and return once it is on the disk. by: who asked for it, if that is somebody else.

        Raises Unavailable, after logging it: what is not written down does not count as done.
        """
        line = {
            "time": self._clock().isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "act": act.value,
            "by": by or self._who,
            "process": f"{Path(sys.argv[0]).name}[{os.getpid()}]",
            **{name: fact for name, fact in facts.items() if fact is not None},
        }
        try:
            self._append(json.dumps(line, ensure_ascii=True, default=str).encode() + b"\n")
        except OSError as error:
            self.problem = f"the audit log {self._file} cannot be written: {error.strerror}; until it can, nothing counts as done"
            log.error("audit_not_written", file=str(self._file), reason=error.strerror, line=line)  # noqa: TRY400 (expected)
            raise Unavailable(self.problem) from error
        self.problem = None

    def _append(self, line: bytes) -> None:
        is_new = not self._file.exists()
        descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            # A disk that is full takes a part of a line; the lock lets nobody write behind it before it is gone.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            before = os.fstat(descriptor).st_size
            try:
                _write_all(descriptor, line)
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, before)
                raise
        finally:
            os.close(descriptor)
        if is_new:
            _sync_directory(self._file.parent)


def login_name() -> str:
    """Who runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
