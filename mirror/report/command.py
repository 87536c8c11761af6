"""`debark report`: what was pulled, by whom, and how much of it came from the cache."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console

from mirror.errors import MirrorError
from mirror.report.reader import BadLines, read_logs
from mirror.report.render import as_document, print_summary
from mirror.report.summary import Summary

EXIT_UNREADABLE = 1


def _moment(_context: click.Context, _option: click.Parameter, value: str | None) -> float | None:
    """Unix seconds of a day or a time in ISO 8601; UTC unless it says otherwise."""
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(f"'{value}' is not a day (2026-11-23) or a time (2026-11-23T06:00, in UTC)") from error


@click.command()
@click.argument("logs", metavar="LOG...", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--since", metavar="TIME", callback=_moment, help="Leave out requests before this day or time (ISO 8601, UTC).")
@click.option("--until", metavar="TIME", callback=_moment, help="Leave out requests from this day or time on.")
@click.option("--top", type=click.IntRange(1, 100_000), default=20, show_default=True, help="Rows of each table.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def report(logs: tuple[Path, ...], since: float | None, until: float | None, top: int, *, as_json: bool) -> None:
    """Summarise access logs (plain or gzip): pulls and bytes by image, user and day, and the share served from cache.

    A pull is a manifest GET answered 200; an index and the image that it leads to are one pull. Lines that cannot be read are
    counted and left out.
    """
    summary, bad = Summary(), BadLines()
    try:
        for record in read_logs(logs, bad):
            if (since is None or record.time >= since) and (until is None or record.time < until):
                summary.add(record)
    except MirrorError as error:
        click.echo(str(error), err=True)
        sys.exit(EXIT_UNREADABLE)
    if as_json:
        click.echo(json.dumps(as_document(summary, bad, top), indent=2))
    else:
        print_summary(summary, bad, top, Console(highlight=False, markup=False))
