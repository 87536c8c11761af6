"""`debark`: the command line of the mirror."""

from __future__ import annotations

import asyncio
import sys
from importlib.metadata import version
from pathlib import Path

import click

from mirror.config import wiring
from mirror.config.command import config as config_group
from mirror.config.load import Overrides, load
from mirror.errors import InvalidInput, MirrorError
from mirror.logs import Logs
from mirror.metrics import Metrics
from mirror.report.command import report
from mirror.serve import serve
from mirror.where import where

EXIT_CANNOT_START = 1
EXIT_BAD_SETTINGS = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("debark"), prog_name="debark")
def main() -> None:
    """A registry mirror that unpacks every image pulled through it into CVMFS."""


def _named_url(_context: click.Context, _option: click.Parameter, values: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    pairs = []
    for value in values:
        name, equals, url = value.partition("=")
        if not name or not equals or not url:
            raise click.BadParameter(f"'{value}' is not NAME=URL, such as hub.example.org=https://registry.example.org")
        pairs.append((name, url))
    return tuple(pairs)


@main.command(name="serve")
@click.option("--config", "file", envvar="DEBARK_CONFIG", type=click.Path(path_type=Path), help="Configuration file (TOML).")
@click.option("--data", type=click.Path(path_type=Path), help="Data directory; $XDG_DATA_HOME/debark without it.")
@click.option("--listen", metavar="HOST:PORT", help="Where to listen; 127.0.0.1:8585 without it, port 0 for any that is free.")
@click.option("--upstream", "upstreams", metavar="NAME=URL", multiple=True, callback=_named_url, help="Mirror this registry too.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="The least that is logged.")
def serve_command(
    file: Path | None, data: Path | None, listen: str | None, upstreams: tuple[tuple[str, str], ...], log_level: str | None
) -> None:
    """Run the mirror, and the publisher beside it.

    Without any option it mirrors the well-known public registries, listens on loopback, and makes two CVMFS repositories with
    their keys below its data directory.
    """
    try:
        settings = load(file, Overrides(data=data, listen=listen, upstreams=upstreams, log_level=log_level))
    except InvalidInput as error:
        click.echo(str(error), err=True)
        sys.exit(EXIT_BAD_SETTINGS)
    metrics = Metrics()
    publisher = [sys.executable, "-m", "publisher", "run", "--until-stdin-closes", "--data", str(settings.data)]
    publisher += ["--config", str(file)] if file is not None else []
    publisher += [f"--upstream={name}={url}" for name, url in upstreams]
    publisher += ["--log-level", settings.log.level]
    try:
        logs = Logs(wiring.log_options(settings), on_drop=lambda: metrics.log_line_dropped("debark"))
    except OSError as error:
        click.echo(f"the log {settings.log_file} cannot be opened: {error.strerror}", err=True)
        sys.exit(EXIT_CANNOT_START)
    try:
        asyncio.run(serve(settings, publisher, metrics, click.echo))
    except MirrorError as error:
        click.echo(str(error), err=True)
        sys.exit(EXIT_CANNOT_START)
    finally:
        logs.close()


main.add_command(where)
main.add_command(report)
main.add_command(config_group)
