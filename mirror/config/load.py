"""From a TOML file and the command line to a `Config`, or to the list of everything that is wrong with them."""

from __future__ import annotations

import copy
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from mirror.config.mistakes import ConfigError, Mistake, Place, key_path, mistake_of, place_of
from mirror.config.models import Config
from mirror.config.relations import contradictions

Table = dict[str, Any]

MAX_FILE = 1 << 20
"""Bytes of a configuration file; more is a mistake of some other kind."""
MAX_SECRET = 4096
"""Bytes of a password file."""

_PATH_KEYS = frozenset(
    {
        "access_file",
        "credentials_file",
        "data",
        "docker_config",
        "file",
        "keys_file",
        "password_file",
        "policy_file",
        "tls_certificate",
        "tls_key",
        "users_file",
    }
)
_NOT_A_PATH = ("", "none")


@dataclass(frozen=True, slots=True)
class Overrides:
    """What the command line sets on top of the file; None and empty mean: as in the file."""

    data: Path | None = None
    listen: str | None = None
    workers: int | None = None
    upstreams: tuple[tuple[str, str], ...] = ()
    """Name and URL of upstreams to add, or to look for elsewhere."""
    log_level: str | None = None

    def wanted(self) -> dict[Place, Any]:
        """The values by their place in the file."""
        values: dict[Place, Any] = {("upstreams", name, "url"): url for name, url in self.upstreams}
        if self.data is not None:
            values["server", "data"] = str(self.data.absolute())
        if self.listen is not None:
            values["server", "listen"] = self.listen
        if self.workers is not None:
            values["server", "workers"] = self.workers
        if self.log_level is not None:
            values["log", "level"] = self.log_level
        return values


def load(path: Path | None = None, overrides: Overrides | None = None) -> Config:
    """The settings of a file (None: the built-in ones) with the command line's on top.

    Relative paths in the file are relative to the file. Secrets are not read here, see `read_secret`.
    Raises ConfigError with every mistake that can be found in one go.
    """
    source = str(path) if path is not None else "built-in settings"
    document = _anchored(_read(path), path.absolute().parent) if path is not None else {}
    wanted = (overrides or Overrides()).wanted()
    for place, value in wanted.items():
        _write(document, place, value)
    config, details = _validate(document)
    mistakes = [mistake_of(detail, "command line" if place_of(detail) in wanted else source) for detail in details]
    if config is not None:
        mistakes += [Mistake(source, key_path(place), problem) for place, problem in contradictions(config)]
    if config is None or mistakes:
        raise ConfigError(mistakes)
    return config


def read_secret(path: Path) -> str:
    """The content of a password file, without the line end. Raises ConfigError if it cannot be read, is empty or too long."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_SECRET + 1)
        secret = raw.decode().rstrip("\r\n")
    except OSError as error:
        raise _about_file(path, f"the secret cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise _about_file(path, "the secret is not UTF-8 text") from error
    if not secret or len(raw) > MAX_SECRET or "\n" in secret:
        raise _about_file(path, f"one line with a secret of 1 to {MAX_SECRET} bytes is expected")
    return secret


def _read(path: Path) -> Table:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE + 1)
    except OSError as error:
        raise _about_file(path, f"cannot be read: {error.strerror}") from error
    if len(raw) > MAX_FILE:
        raise _about_file(path, f"longer than {MAX_FILE} bytes, which no configuration is")
    try:
        return tomllib.loads(raw.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise _about_file(path, f"not TOML: {error}") from error


def _about_file(path: Path, problem: str) -> ConfigError:
    return ConfigError([Mistake(str(path), "", problem)])


def _anchored(document: Table, directory: Path) -> Table:
    """The document with relative paths, in whatever table, taken from the directory."""
    for key, value in document.items():
        if isinstance(value, dict):
            _anchored(value, directory)
        elif key in _PATH_KEYS and isinstance(value, str) and value not in _NOT_A_PATH:
            document[key] = str(directory / Path(value).expanduser())
    return document


def _write(document: Table, place: Place, value: Any) -> None:
    """Set one value; where a table is expected and something else stands, the file's own mistake is left to be reported."""
    table: Any = document
    for key in place[:-1]:
        table = table.setdefault(str(key), {})
        if not isinstance(table, dict):
            return
    table[str(place[-1])] = value


def _validate(document: Table) -> tuple[Config | None, list[ErrorDetails]]:
    """The settings and the findings; with findings, the settings of what remains without the mistaken values."""
    try:
        return Config.model_validate(document), []
    except ValidationError as error:
        details = _precise(error.errors(include_url=False))
    remainder = copy.deepcopy(document)
    for detail in details:
        _remove(remainder, place_of(detail))
    try:
        return Config.model_validate(remainder), details
    except ValidationError:
        return None, details


def _precise(details: list[ErrorDetails]) -> list[ErrorDetails]:
    """Without findings about a list that is too short only because its items are wrong."""
    places = [place_of(detail) for detail in details]
    return [
        detail
        for detail, place in zip(details, places, strict=True)
        if not any(len(other) > len(place) and other[: len(place)] == place for other in places)
    ]


def _remove(document: Table, place: Place) -> None:
    """Take the mistaken value out; a mistake inside a list, or where a table should be, takes the whole value."""
    table = document
    for position, key in enumerate(place):
        value = table.get(str(key))
        if not isinstance(value, dict) or position == len(place) - 1:
            table.pop(str(key), None)
            return
        table = value
