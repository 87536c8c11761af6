"""The policy in its file: read at the start, and again whenever it changes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import structlog

from mirror.errors import InvalidInput
from mirror.oci.reference import RepositoryName
from publisher.policy.document import MAX_DOCUMENT, parse_policy
from publisher.policy.policy import Policy

log = structlog.get_logger()

_State = tuple[int, int, int] | None


class PolicyFile:
    """The policy in force. Without a file it is the built-in one: every public image, within the default limits."""

    def __init__(self, path: Path | None) -> None:
        """Raises InvalidInput if there is a file and it cannot be used: nothing is published by other rules than those meant."""
        self._path = path
        self._state: _State = None
        self.current = Policy()
        self.digest: str | None = None
        """SHA-256 of the file that is in force."""
        self.problem: str | None = None
        """Why the file as it is now is not in force; None if it is."""
        if path is not None:
            self._state = _state(path)
            self._read(path)

    def is_vouched_for(self, name: RepositoryName) -> bool:
        """Whether the operator says now that everything in this repository is public."""
        return self.current.is_vouched_for(name)

    def look(self) -> bool:
        """Read the file again if it changed; whether another policy is in force now. Blocking, a few microseconds as a rule.

        A broken file changes nothing but `problem`, and is logged.
        """
        if self._path is None:
            return False
        state = _state(self._path)
        if state == self._state:
            return False
        self._state = state
        before = self.digest
        try:
            self._read(self._path)
        except InvalidInput as error:
            self.problem = f"{error}; the policy that was read before stays in force"
            log.error("policy_broken", reason=str(error), mend="mend the file; the policy before stays in force")  # noqa: TRY400
            return False
        self.problem = None
        if self.digest == before:
            return False
        log.info("policy_read", file=str(self._path), sha256=self.digest)
        return True

    def _read(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                raw = file.read(MAX_DOCUMENT + 1)
        except OSError as error:
            raise InvalidInput(f"the policy {path} cannot be read: {error.strerror}") from error
        try:
            self.current = parse_policy(raw)
        except InvalidInput as error:
            raise InvalidInput(f"the policy {path} cannot be used: {error}") from error
        self.digest = hashlib.sha256(raw).hexdigest()


def _state(path: Path) -> _State:
    """What is different when the file was changed or replaced."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
