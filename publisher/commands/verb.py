"""What all verbs share: their common options, and how failures become messages and exit codes.

Exit codes: 0 done; 1 it failed, or what was checked has problems; 2 wrong usage or settings.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from mirror.config.load import Overrides, load
from mirror.config.models import Config
from mirror.config.options import data_option, file_option, upstream_option
from mirror.config.values import DURATION
from mirror.errors import InvalidInput, MirrorError
from mirror.logs import LogOptions, Logs
from publisher.commands.report import Report
from publisher.commands.workplace import Workplace
from publisher.creation import check_fqrn
from publisher.cvmfs.path import normalise

EXIT_FAILED = 1
EXIT_BAD_SETTINGS = 2


def fqrn_value(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    """A fully qualified repository name; a usage error if it cannot be one."""
    try:
        return check_fqrn(value)
    except InvalidInput as error:
        raise click.BadParameter(str(error)) from error


def duration_value(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    """Seconds, of a number or of text such as `15 min`; a usage error if it is neither."""
    if value is None:
        return None
    try:
        return float(DURATION.read(float(value) if value.replace(".", "", 1).isdigit() else value))
    except (ValueError, TypeError) as error:
        raise click.BadParameter(str(error)) from error


def path_value(text: str) -> bytes:
    """A path in a repository as people write it: with or without slashes around it, any bytes. Raises InvalidInput."""
    return normalise(os.fsencode(text).strip(b"/"))


_level_option = click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="warning",
    show_default=True,
    help="The least that is logged to standard error.",
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")


def verb(name: str) -> Callable[[Callable[..., None]], click.Command]:
    """Make a command of a function that takes a `Workplace`, a `Report` and its own options."""

    def decorate(function: Callable[..., None]) -> click.Command:
        @click.argument("fqrn", callback=fqrn_value)
        @functools.wraps(function)
        def with_place(settings: Config, report: Report, *, fqrn: str, **own: Any) -> None:
            function(Workplace(fqrn, settings), report, **own)

        return settings_verb(name)(with_place)

    return decorate


def upstream_verb(name: str) -> Callable[[Callable[..., None]], click.Command]:
    """The same for a verb that asks registries: they may be named on the command line, as for `run`."""

    def decorate(function: Callable[..., None]) -> click.Command:
        return upstream_option(settings_verb(name)(function))

    return decorate


def settings_verb(name: str) -> Callable[[Callable[..., None]], click.Command]:
    """Make a command of a function that takes a `Config`, a `Report` and its own options: of no single repository."""

    def decorate(function: Callable[..., None]) -> click.Command:
        @file_option
        @data_option
        @_level_option
        @_json_option
        @functools.wraps(function)
        def command(
            file: Path | None,
            data: Path | None,
            log_level: str,
            *,
            upstreams: tuple[tuple[str, str], ...] = (),
            as_json: bool,
            **own: Any,
        ) -> None:
            try:
                settings = load(file, Overrides(data=data, upstreams=upstreams, log_level=log_level))
            except InvalidInput as error:
                click.echo(str(error), err=True)
                raise click.exceptions.Exit(EXIT_BAD_SETTINGS) from error
            logs = Logs(LogOptions(level=settings.log.level, form=settings.log.format))
            try:
                function(settings, Report(as_json=as_json), **own)
            except MirrorError as error:
                click.echo(str(error), err=True)
                raise click.exceptions.Exit(EXIT_FAILED) from error
            finally:
                logs.close()

        return click.command(name=name)(command)

    return decorate
