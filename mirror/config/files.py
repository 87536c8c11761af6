"""Whether the files and services that the settings name can be used, as the server would use them when it starts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from mirror.config import wiring
from mirror.config.credentials import credentials
from mirror.config.mistakes import ConfigError, Mistake, Place, key_path
from mirror.config.models import Config
from mirror.errors import InvalidInput
from mirror.proxy.passwords import read_users
from mirror.proxy.tokens import read_keys
from mirror.state.engine import Database
from mirror.tls import ServerCertificate

_Use = Callable[[], object]
"""Raises InvalidInput if it cannot be used."""

_POLICY_SECONDS = 60.0


def unusable(config: Config, source: str) -> Iterator[Mistake]:
    """Everything that cannot be used; source: the settings' file. No other machine is asked."""
    for place, use in _uses(config):
        try:
            use()
        except ConfigError as error:
            yield from error.mistakes
        except InvalidInput as error:
            yield from (Mistake(source, key_path(place), line) for line in str(error).splitlines())


def _uses(config: Config) -> Iterator[tuple[Place, _Use]]:
    """By the setting that names it."""
    server, access, publish = config.server, config.access, config.publish
    if server.tls_certificate:
        yield ("server", "tls_certificate"), partial(ServerCertificate, Path(server.tls_certificate), Path(server.tls_key))
    if access.users_file:
        yield ("access", "users_file"), partial(read_users, Path(access.users_file))
    for name, issuer in access.issuers.items():
        yield ("access", "issuers", name, "keys_file"), partial(read_keys, Path(issuer.keys_file))
    for name, upstream in config.active_upstreams.items():
        yield ("upstreams", name), partial(credentials, name, upstream)
    yield ("state", "url"), lambda: Database(wiring.database(config))
    if publish.enabled and publish.supervised and publish.policy_file:
        yield ("publish", "policy_file"), partial(_check_policy, publish.policy_file)


def _check_policy(file: str) -> None:
    """Has the publisher do it: only that half knows what a policy is."""
    command = [sys.executable, "-m", "publisher", "check-policy", file]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=_POLICY_SECONDS, check=False)  # noqa: S603 - no shell
    except subprocess.TimeoutExpired as error:
        raise InvalidInput(f"{file} could not be checked within {_POLICY_SECONDS:g} s") from error
    if found.returncode:
        raise InvalidInput(found.stderr.strip() or f"{file} could not be checked: exit code {found.returncode}")
