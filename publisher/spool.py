"""A publisher's own directory for one repository: locks, the reference log's checksum, the pinned settings, the last sweep."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import mkstemp

from mirror.errors import InvalidInput, NotFound
from publisher.cvmfs.hash import ContentHash
from publisher.errors import Conflict, RepositoryDamaged

_CHECKSUM = "reflog.chksum"
"""The name under which CernVM-FS's server tools look for it."""
_INTENDED = "reflog.chksum.next"
_SETTINGS = "settings.json"
_LOCK = "lock"
_COLLECTOR_LOCK = "collector.lock"
_SWEPT = "swept"
_POLL = 0.02


OVERLAYFS = "overlayfs"
FILES = "files"


@dataclass(frozen=True, slots=True)
class RepositorySettings:
    """What must not change between publications of one repository.

    compressor: name of the object pipeline's compressor; another one would store the same content again under other hashes.
    ttl: seconds after which clients look for a new revision.
    whiteouts: how layers hold deletions: as `overlayfs` has them, or as `files` named .wh.<name>.
    """

    compressor: str
    ttl: int = 60
    whiteouts: str = OVERLAYFS

    def __post_init__(self) -> None:
        if not self.compressor or not 1 <= self.ttl <= 86_400:
            raise InvalidInput("a repository needs a compressor's name and a TTL of 1 to 86400 seconds")
        if self.whiteouts not in (OVERLAYFS, FILES):
            raise InvalidInput(f"layers hold deletions as {OVERLAYFS} has them or as {FILES}, not as '{self.whiteouts}'")


class Spool:
    """The directory and its files; all of them can be lost without harm to clients, but not without work for the operator."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def create(self) -> None:
        """Make the directory unless it is there."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextmanager
    def lock(self, wait: float) -> Iterator[None]:
        """Hold the only right to write the repository on this machine; it ends with the process.

        wait: seconds to wait for another writer. Raises Conflict after that.
        """
        with self._locked(_LOCK, wait, "writes"):
            yield

    @contextmanager
    def collector_lock(self) -> Iterator[None]:
        """Be the only one that collects the repository's garbage; it ends with the process. Raises Conflict if somebody does."""
        with self._locked(_COLLECTOR_LOCK, 0, "collects the garbage of"):
            yield

    @property
    def is_set_up(self) -> bool:
        """Whether it belongs to a repository: whether it has settings."""
        return (self.directory / _SETTINGS).exists()

    def settings(self) -> RepositorySettings:
        """The settings of the repository's creation. Raises NotFound, RepositoryDamaged."""
        path = self.directory / _SETTINGS
        try:
            return RepositorySettings(**json.loads(path.read_bytes()))
        except FileNotFoundError:
            raise NotFound(f"{path} is missing: there is no repository, or its spool directory was lost") from None
        except (ValueError, TypeError, InvalidInput) as error:
            raise RepositoryDamaged(f"{path} is damaged: {error}; it must name the compressor and the TTL") from error

    def pin(self, settings: RepositorySettings) -> None:
        """Write the settings."""
        self._write(_SETTINGS, json.dumps(asdict(settings)).encode() + b"\n")

    def reflog_checksum(self, reflog: bytes) -> ContentHash:
        """The checksum of a reference log that this publisher wrote, also if it died right after. Raises RepositoryDamaged."""
        for name in (_CHECKSUM, _INTENDED):
            expected = self._checksum(name)
            if expected and ContentHash.of(reflog, expected.algorithm) == expected:
                return expected
        raise RepositoryDamaged(
            f"the reference log is not the one that {self.directory / _CHECKSUM} describes: restore either from a backup, or, if "
            "CernVM-FS's own tools wrote the repository meanwhile, copy their reflog.chksum there"
        )

    def settle(self, reflog: bytes) -> ContentHash:
        """Decide what a publisher that died had announced: it either came true or is forgotten. Raises RepositoryDamaged."""
        current = self.reflog_checksum(reflog)
        intended = self._checksum(_INTENDED)
        if intended == current:
            self.settle_reflog()
        elif intended:
            (self.directory / _INTENDED).unlink()
        return current

    def adopt_reflog(self, checksum: ContentHash) -> None:
        """Take over a reference log that somebody else wrote."""
        self.intend_reflog(checksum)
        self.settle_reflog()

    def intend_reflog(self, checksum: ContentHash) -> None:
        """Announce a reference log that is about to be written; until `settle_reflog` the old and the new one are accepted."""
        self._write(_INTENDED, str(checksum).encode())

    def settle_reflog(self) -> None:
        """Let the announced checksum be the only one."""
        (self.directory / _INTENDED).replace(self.directory / _CHECKSUM)

    def swept_before(self) -> float:
        """Unix seconds: of objects put before this and named by no revision, a garbage collection may have deleted some."""
        try:
            return float((self.directory / _SWEPT).read_text("ascii"))
        except FileNotFoundError:
            return float("-inf")
        except ValueError as error:
            raise RepositoryDamaged(f"{self.directory / _SWEPT} is damaged: {error}; delete it") from error

    def note_sweep(self, before: float) -> None:
        """Warn of objects that are about to be deleted; before: see `swept_before`. The caller holds the lock."""
        if before > self.swept_before():
            self._write(_SWEPT, repr(before).encode() + b"\n")

    @contextmanager
    def _locked(self, name: str, wait: float, what: str) -> Iterator[None]:
        descriptor = os.open(self.directory / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            deadline = time.monotonic() + wait
            while not _locked(descriptor):
                if time.monotonic() >= deadline:
                    raise Conflict(f"another process {what} the repository of {self.directory}; try again when it is done")
                time.sleep(_POLL)
            yield
        finally:
            os.close(descriptor)

    def _checksum(self, name: str) -> ContentHash | None:
        try:
            return ContentHash.parse((self.directory / name).read_text("ascii").strip())
        except (FileNotFoundError, UnicodeDecodeError, InvalidInput):
            return None

    def _write(self, name: str, data: bytes) -> None:
        descriptor, temporary = mkstemp(dir=self.directory, prefix=f".{name}.")
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(self.directory / name)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
