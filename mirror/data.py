"""The data directory: everything that debark writes is below it.

blobs/ parts/       cached content (mirror.store.layout)
state.sqlite        names and jobs, unless they are in PostgreSQL (mirror.state)
private/<upstream>/ what clients read with credentials of their own: a store for each such upstream (mirror.private)
cvmfs/<fqrn>/       the CVMFS repositories, servable by any web server
spool/<fqrn>/       the publisher's own files of a repository: settings, checksum of the reference log, lock
keys/               signing keys; readable only by the publisher's user
log/                access.jsonl, debark.log, publisher.log
run/                address (where the mirror listens), publisher.lock, turns (mirror.fetch.turns), token_key (seals clients'
                    credentials)
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from mirror.errors import Unavailable


@dataclass(frozen=True, slots=True)
class DataDirectory:
    """Paths of the parts, made when they are asked for. Properties raise Unavailable if they cannot be made or written."""

    root: Path

    @property
    def cvmfs(self) -> Path:
        """One directory a CVMFS repository, by its fqrn."""
        return self._made("cvmfs")

    @property
    def spool(self) -> Path:
        """One directory a CVMFS repository, by its fqrn."""
        return self._made("spool", 0o700)

    @property
    def private(self) -> Path:
        """Content that is not for everybody, one directory an upstream."""
        return self._made("private", 0o700)

    @property
    def keys(self) -> Path:
        """Signing keys of all repositories."""
        return self._made("keys", 0o700)

    @property
    def logs(self) -> Path:
        """Logs, unless the configuration has them elsewhere."""
        return self._made("log")

    @property
    def run(self) -> Path:
        """What is of use only as long as a process runs."""
        return self._made("run")

    def free_bytes(self) -> int:
        """Space that is left for this user. Raises Unavailable."""
        try:
            figures = os.statvfs(self.root)
        except OSError as error:
            raise Unavailable(f"the free space of {self.root} cannot be told: {error.strerror}") from error
        return figures.f_bavail * figures.f_frsize

    def _made(self, name: str, mode: int = 0o755) -> Path:
        path = self.root / name
        try:
            path.mkdir(mode=mode, parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror
        else:
            if os.access(path, os.W_OK | os.X_OK):
                return path
            reason = "this user may not write there"
        raise Unavailable(f"the directory {path} cannot be used: {reason}; choose another data directory (--data)")
