"""`debark config check` and `debark config show`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

import click

from mirror.config.files import unusable
from mirror.config.load import load
from mirror.config.mistakes import ConfigError, Mistake
from mirror.config.models import Config
from mirror.config.show import as_toml

EXIT_MISTAKES = 1

_file = click.argument("file", metavar="[FILE]", required=False, envvar="DEBARK_CONFIG", type=click.Path(path_type=Path))


@click.group()
def config() -> None:
    """Check a configuration file, or show the settings in effect.

    Without FILE it is that of the environment variable DEBARK_CONFIG; without that, the built-in settings.
    """


@config.command()
@_file
def check(file: Path | None) -> None:
    """Report every mistake in FILE, one a line: where, what is given, what is allowed.

    Files that it names are read too, as the server would read them, so run it as the user that runs the server: passwords, users,
    keys, certificates, the policy. Exit codes: 0 all is well; 1 there are mistakes.
    """
    settings = _load_or_exit(file)
    mistakes = tuple(unusable(settings, str(file) if file is not None else "built-in settings"))
    if mistakes:
        _complain(mistakes)
    click.echo(f"{file if file is not None else 'The built-in settings'}: all is well")


@config.command()
@_file
def show(file: Path | None) -> None:
    """Print every setting with the value in effect, as TOML. Secrets are not shown: they are in files of their own."""
    click.echo(as_toml(_load_or_exit(file)), nl=False)


def _load_or_exit(file: Path | None) -> Config:
    try:
        return load(file)
    except ConfigError as error:
        _complain(error.mistakes)


def _complain(mistakes: tuple[Mistake, ...]) -> NoReturn:
    for mistake in mistakes:
        click.echo(str(mistake), err=True)
    sys.exit(EXIT_MISTAKES)
