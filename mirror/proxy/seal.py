"""A client's credential as a token that only this mirror can read, good for a short time and for the repositories named in it.

Nothing is stored: the token is the credential, encrypted and authenticated (Fernet: AES-128-CBC and HMAC-SHA-256, with the time
in it). All processes of a mirror have the same key, from a file that only its user can read.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken

from mirror.errors import InvalidInput, Unavailable
from mirror.upstream.model import Credential


@dataclass(frozen=True, slots=True)
class Sealed:
    """What is in a token: a credential, and the names of the repositories that it was given for."""

    credential: Credential
    names: frozenset[str]


class Seal:
    """Makes tokens and reads them."""

    def __init__(self, key: bytes, seconds: float, clock: Callable[[], float] = time.time) -> None:
        """key: of `seal_key`. seconds: how long a token is good. clock: Unix seconds."""
        self._fernet = Fernet(key)
        self._seconds = int(seconds)
        self._clock = clock

    def close(self, credential: Credential, names: Iterable[str]) -> str:
        """The token: letters, digits, `-`, `_` and `=`."""
        content = [credential.username, credential.password, credential.is_identity_token, sorted(names)]
        return self._fernet.encrypt_at_time(json.dumps(content).encode(), int(self._clock())).decode()

    def open(self, token: str) -> Sealed | None:
        """None if it is not one of this mirror's, or its time is over."""
        try:
            raw = self._fernet.decrypt_at_time(token.encode(), self._seconds, int(self._clock()))
        except (InvalidToken, UnicodeEncodeError):
            return None
        username, password, is_identity_token, names = json.loads(raw)
        return Sealed(Credential(username, password, is_identity_token), frozenset(names))


def seal_key(path: Path) -> bytes:
    """The key in this file, made if there is none; many processes may ask at the same time.

    Raises InvalidInput for a file that is no key or that others can read, Unavailable if it cannot be made or read.
    """
    try:
        if not path.exists():
            _make(path)
        if path.stat().st_mode & 0o077:
            raise InvalidInput(f"others than its owner may read {path}: delete it, and the mirror makes a new one")
        key = path.read_bytes()
        Fernet(key)
    except OSError as error:
        raise Unavailable(f"the key {path} cannot be made or read: {error.strerror}") from error
    except ValueError as error:
        raise InvalidInput(f"{path} is no key: delete it, and the mirror makes a new one") from error
    return key


def _make(path: Path) -> None:
    """Complete before it has its name; whoever comes second takes what the first one made."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, Fernet.generate_key())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    with contextlib.suppress(FileExistsError):
        os.link(temporary, path)
    temporary.unlink()
