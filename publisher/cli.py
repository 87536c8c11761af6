"""`debark-publisher`: the command line of the publisher."""

from __future__ import annotations

import asyncio
import signal
import sys
from importlib.metadata import version
from pathlib import Path

import click

from mirror.config.load import Overrides, load
from mirror.config.models import Config
from mirror.config.options import data_option, file_option, log_level_option, upstream_option
from mirror.errors import InvalidInput, MirrorError
from mirror.logs import LogOptions, Logs
from publisher.commands.cat import cat
from publisher.commands.check import check_repository
from publisher.commands.check_policy import check_policy
from publisher.commands.convert import convert, convert_image
from publisher.commands.export_keys import export_keys
from publisher.commands.gc import gc
from publisher.commands.info import info
from publisher.commands.ingest import ingest
from publisher.commands.ls import ls
from publisher.commands.mkfs import mkfs
from publisher.commands.replicate import replicate_repository
from publisher.commands.resign import resign
from publisher.commands.rollback import rollback
from publisher.commands.tag import tag
from publisher.commands.take_down import take_down
from publisher.commands.take_over import import_repository
from publisher.run import run

EXIT_CANNOT_START = 1
EXIT_BAD_SETTINGS = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("debark"), prog_name="debark-publisher")
def main() -> None:
    """Publishes pulled images in CVMFS repositories, and keeps such repositories."""


for _verb in (mkfs, ingest, tag, rollback, gc, check_repository, resign, info, ls, cat, export_keys):
    main.add_command(_verb)
for _verb in (import_repository, replicate_repository, take_down, check_policy, convert, convert_image):
    main.add_command(_verb)


@main.command(name="run")
@file_option
@data_option
@upstream_option
@log_level_option
@click.option(
    "--until-stdin-closes", is_flag=True, help="Stop when standard input ends: when the process that started this dies."
)
def run_command(
    file: Path | None,
    data: Path | None,
    upstreams: tuple[tuple[str, str], ...],
    log_level: str | None,
    until_stdin_closes: bool,
) -> None:
    """Publish what the mirror of the same data directory asks for, until stopped by SIGTERM.

    `debark serve` runs this by itself; on its own it is for a publisher under a user of its own.
    """
    try:
        settings = load(file, Overrides(data=data, upstreams=upstreams, log_level=log_level))
    except InvalidInput as error:
        click.echo(str(error), err=True)
        sys.exit(EXIT_BAD_SETTINGS)
    logs = Logs(LogOptions(level=settings.log.level, form=settings.log.format))
    try:
        asyncio.run(_until_stopped(settings, until_stdin_closes=until_stdin_closes))
    except MirrorError as error:
        click.echo(str(error), err=True)
        sys.exit(EXIT_CANNOT_START)
    finally:
        logs.close()


async def _until_stopped(settings: Config, *, until_stdin_closes: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if until_stdin_closes:
        # A pipe that nobody writes to becomes readable when its other end is closed.
        loop.add_reader(sys.stdin.fileno(), stop.set)
    await run(settings, stop)
