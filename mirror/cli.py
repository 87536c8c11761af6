"""`debark`: the command line of the mirror."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from importlib.metadata import version
from pathlib import Path

import click

from mirror.config import wiring
from mirror.config.command import config as config_group
from mirror.config.load import Overrides, load
from mirror.config.models import Config
from mirror.config.options import data_option, file_option, log_level_option, upstream_option
from mirror.errors import InvalidInput, MirrorError
from mirror.logs import Logs
from mirror.report.command import report
from mirror.service_manager import ServiceManager
from mirror.where import where

EXIT_CANNOT_START = 1
EXIT_BAD_SETTINGS = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("debark"), prog_name="debark")
def main() -> None:
    """A registry mirror that unpacks every image pulled through it into CVMFS."""


@main.command(name="serve")
@file_option
@data_option
@click.option("--listen", metavar="HOST:PORT", help="Where to listen; 127.0.0.1:8585 without it, port 0 for any that is free.")
@click.option("--workers", type=int, metavar="N", help="Processes that answer; 1 without it, 0 for one a core.")
@upstream_option
@log_level_option
def serve_command(
    *,
    file: Path | None,
    data: Path | None,
    listen: str | None,
    workers: int | None,
    upstreams: tuple[tuple[str, str], ...],
    log_level: str | None,
) -> None:
    """Run the mirror, and the publisher beside it.

    Without any option it mirrors the well-known public registries, listens on loopback, and makes two CVMFS repositories with
    their keys below its data directory. SIGHUP makes it read the configuration file again, without a request refused or cut.
    """
    # Nothing of what is loaded here is garbage, and it stays: a collection would cost time now, and later each process a copy.
    gc.disable()
    from mirror.serve import Invocation, serve  # noqa: PLC0415 - no other command needs it
    from mirror.workers.nursery import begin_nursery  # noqa: PLC0415
    from mirror.workers.worker import work  # noqa: PLC0415

    gc.freeze()
    gc.enable()
    overrides = Overrides(data=data, listen=listen, workers=workers, upstreams=upstreams, log_level=log_level)
    try:
        settings = load(file, overrides)
    except InvalidInput as error:
        click.echo(str(error), err=True)
        sys.exit(EXIT_BAD_SETTINGS)

    def publisher_command(current: Config) -> list[str]:
        command = [sys.executable, "-m", "publisher", "run", "--until-stdin-closes", "--data", str(current.data)]
        command += ["--config", str(file)] if file is not None else []
        command += [f"--upstream={name}={url}" for name, url in upstreams]
        return [*command, "--log-level", current.log.level]

    nursery = begin_nursery(work)
    try:
        logs = Logs(wiring.log_options(settings))
    except OSError as error:
        click.echo(f"the log {settings.log_file} cannot be opened: {error.strerror}", err=True)
        sys.exit(EXIT_CANNOT_START)

    def log_as(current: Config) -> None:
        nonlocal logs
        logs.close()
        logs = Logs(wiring.log_options(current))

    manager = ServiceManager.of(os.environ)
    invocation = Invocation(settings, lambda: load(file, overrides), log_as, publisher_command, click.echo, manager)
    try:
        asyncio.run(serve(invocation, nursery))
    except MirrorError as error:
        click.echo(str(error), err=True)
        sys.exit(EXIT_CANNOT_START)
    finally:
        nursery.close()
        logs.close()


main.add_command(where)
main.add_command(report)
main.add_command(config_group)
