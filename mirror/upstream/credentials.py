"""Where the mirror's own credentials for an upstream come from: files that may change, and one for each namespace."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mirror.errors import InvalidInput
from mirror.oci.reference import canonical_registry
from mirror.upstream.model import Credential, CredentialSource

_LARGEST = 1 << 20
"""Bytes of a Docker configuration file."""
_TOKEN_USER = "<token>"  # noqa: S105 - as helpers and registries say that the secret is an identity token


class PasswordOf:
    """A user whose password is in a file that is read again when it changes."""

    def __init__(self, username: str, password: Callable[[], str]) -> None:
        """password: as it is now."""
        self._username = username
        self._password = password

    async def credential_for(self, repository: str) -> Credential:  # noqa: ARG002 - the same for all of them
        """See CredentialSource."""
        return Credential(self._username, self._password())


class DockerConfig:
    """The entries of a Docker configuration file that are for one registry, or for namespaces of it."""

    def __init__(self, entries: Callable[[], Mapping[str, Credential]], names: tuple[str, ...]) -> None:
        """entries: of the file, as it is now. names: under which the registry may be listed."""
        self._entries = entries
        self._names = names

    async def credential_for(self, repository: str) -> Credential | None:
        """That of the longest key which the repository is below, as containers-auth.json(5) has it."""
        entries = self._entries()
        path = f"/{repository}"
        while True:
            for name in self._names:
                found = entries.get(name + path)
                if found is not None:
                    return found
            if not path:
                return None
            path = path.rpartition("/")[0]


class ByNamespace:
    """Another credential for repositories below some namespaces; the longest one decides."""

    def __init__(self, namespaces: Mapping[str, CredentialSource], otherwise: CredentialSource | None) -> None:
        self._namespaces = sorted(namespaces.items(), key=lambda item: len(item[0]), reverse=True)
        self._otherwise = otherwise

    async def credential_for(self, repository: str) -> Credential | None:
        """See CredentialSource."""
        for namespace, source in self._namespaces:
            if f"{repository}/".startswith(f"{namespace}/"):
                return await source.credential_for(repository)
        return await self._otherwise.credential_for(repository) if self._otherwise is not None else None


def as_credential(username: str, secret: str) -> Credential:
    """A user name and its secret, where the user name may say that it is an identity token."""
    return Credential("", secret, is_identity_token=True) if username == _TOKEN_USER else Credential(username, secret)


def read_docker_config(path: Path) -> dict[str, Credential]:
    """The `auths` of a file as `docker login` and `podman login` write it: by registry, or registry and namespace.

    An entry without a secret is left out: it says that a helper has it. Raises InvalidInput, naming the key and no secret.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_LARGEST + 1)
        document: Any = json.loads(raw) if len(raw) <= _LARGEST else None
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{path} is not JSON") from error
    auths = document.get("auths", {}) if isinstance(document, dict) else None
    if not isinstance(auths, dict):
        raise InvalidInput(
            f'{path} is no Docker configuration file: an object with "auths" of at most {_LARGEST} bytes is expected'
        )
    found = {_registry_key(key): _entry(path, key, entry) for key, entry in auths.items()}
    return {key: credential for key, credential in found.items() if credential is not None}


def _registry_key(key: str) -> str:
    """`https://index.docker.io/v1/` is how Docker names a registry by a URL; a key without a scheme may have a namespace."""
    scheme, separator, rest = key.rpartition("://")
    host, slash, namespace = rest.rstrip("/").partition("/")
    is_url = bool(separator and scheme)
    return canonical_registry(host) + ("" if is_url else slash + namespace)


def _entry(path: Path, key: str, entry: Any) -> Credential | None:
    if not isinstance(entry, dict):
        raise InvalidInput(f"{path}: the entry {key[:200]!r} is no object")
    identity, encoded = entry.get("identitytoken"), entry.get("auth")
    if isinstance(identity, str) and identity:
        return Credential("", identity, is_identity_token=True)
    if not encoded:
        return None
    try:
        username, colon, password = base64.b64decode(str(encoded), validate=True).decode().rstrip("\0").partition(":")
    except (binascii.Error, ValueError) as error:
        raise InvalidInput(f'{path}: "auth" of {key[:200]!r} is not base64 of a user name and a password') from error
    if not colon or not username:
        raise InvalidInput(f'{path}: "auth" of {key[:200]!r} is not base64 of a user name and a password')
    return as_credential(username, password)
