"""From an upstream's settings to where its credentials come from."""

from __future__ import annotations

import shutil
from pathlib import Path
from urllib.parse import urlsplit

from mirror.config.load import read_secret
from mirror.config.mistakes import ConfigError, Mistake
from mirror.config.models import UpstreamSettings
from mirror.upstream.credential_helper import CredentialHelper, HelperLimits
from mirror.upstream.credentials import ByNamespace, DockerConfig, PasswordOf, read_docker_config
from mirror.upstream.model import CredentialSource
from mirror.watched_file import WatchedFile


def credentials(name: str, settings: UpstreamSettings) -> CredentialSource | None:
    """The mirror's own for one upstream; None if it has none at all.

    Raises InvalidInput for a file that cannot be used, ConfigError for a helper that is not there.
    """
    own = _own(name, settings)
    namespaces = {path: _password(each.username, each.password_file) for path, each in settings.namespaces.items()}
    return ByNamespace(namespaces, own) if namespaces else own


def _own(name: str, settings: UpstreamSettings) -> CredentialSource | None:
    if settings.username:
        return _password(settings.username, settings.password_file)
    if settings.docker_config:
        entries = WatchedFile(Path(settings.docker_config), read_docker_config)
        return DockerConfig(entries.current, (name, urlsplit(settings.url).netloc.lower()))
    if settings.credential_helper:
        limits = HelperLimits(settings.credential_time, settings.helper_time)
        return CredentialHelper(_program(name, settings.credential_helper), name, limits)
    return None


def _password(username: str, file: str) -> PasswordOf:
    return PasswordOf(username, WatchedFile(Path(file), read_secret).current)


def _program(name: str, helper: str) -> str:
    found = shutil.which(helper)
    if found is None:
        problem = f"there is no program '{helper}' that this user may run"
        raise ConfigError([Mistake("configuration", f'upstreams."{name}".credential_helper', problem)])
    return found
