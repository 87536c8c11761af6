"""Users of the mirror in a file as Apache's `htpasswd -B` writes it.

Only bcrypt is taken: the other forms of that file are broken in minutes. A password that was right is remembered for a while,
since finding that out takes a tenth of a second of a core each time, on purpose.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from pathlib import Path

import bcrypt
from cachetools import TTLCache

from mirror.errors import InvalidInput
from mirror.watched_file import WatchedFile

_BCRYPT = ("$2a$", "$2b$", "$2y$")
_LONGEST = 72
"""Bytes of a password that bcrypt looks at; a longer one is no password here."""


class PasswordFile:
    """Verifies names and passwords."""

    def __init__(
        self, path: Path, *, remembered: int = 10_000, seconds: float = 300.0, timer: Callable[[], float] = time.monotonic
    ) -> None:
        """remembered, seconds: how many right passwords are remembered, and for how long. Raises InvalidInput."""
        self._users = WatchedFile(path, read_users, timer=timer)
        self._key = secrets.token_bytes(32)
        self._right: TTLCache[bytes, bool] = TTLCache(remembered, seconds, timer)
        # Compared with where there is no such user, so that an answer's time does not tell who is one.
        self._nobody = bcrypt.hashpw(self._key.hex().encode(), bcrypt.gensalt(10))

    async def verify(self, user: str, password: str) -> bool:
        """Whether the file has this user with this password."""
        entry = self._users.current().get(user, self._nobody)
        given = password.encode()
        if len(given) > _LONGEST or b"\0" in given:
            return False
        proof = hmac.digest(self._key, b"\0".join((user.encode(), given, entry)), hashlib.sha256)
        if proof in self._right:
            return True
        if not await asyncio.to_thread(bcrypt.checkpw, given, entry):
            return False
        self._right[proof] = True
        return True


def read_users(path: Path) -> dict[str, bytes]:
    """Names and bcrypt hashes. Raises InvalidInput, naming the line and never what stands in it."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InvalidInput(f"the password file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"the password file {path} is not UTF-8 text") from error
    users: dict[str, bytes] = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, _, hashed = text.partition(":")
        if not name or not hashed.startswith(_BCRYPT) or len(hashed) != 60:
            raise InvalidInput(
                f"line {number} of {path} is no user with a bcrypt password; write it with: htpasswd -B {path} NAME"
            )
        users[name] = hashed.encode()
    return users
