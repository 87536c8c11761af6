"""`debark-publisher replicate`: be a stratum 1 of a repository."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import click

from mirror.errors import MirrorError
from publisher.commands.report import Report, size
from publisher.commands.verb import duration_value, verb
from publisher.commands.workplace import Workplace
from publisher.objects.local import LocalObjectStore
from publisher.replicate.follow import follow
from publisher.replicate.model import Extent, Replicated
from publisher.replicate.replica import replicate


@verb("replicate")
@click.argument("url")
@click.option("-k", "--public-key", type=click.Path(path_type=Path), help="Public master key to trust; the usual one without it.")
@click.option(
    "--storage",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Directory for the replica, which any web server can serve.",
)
@click.option(
    "--spool",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory for the replica's lock and checksum; <storage>.spool without it.",
)
@click.option(
    "--extent",
    type=click.Choice([extent.value for extent in Extent]),
    default=Extent.SINCE.value,
    show_default=True,
    help="Revisions to take beside the current one: none, the named ones, or also all since the last replication.",
)
@click.option("--allow-older", is_flag=True, help="Take a revision that is older than the replica's, too.")
@click.option("--follow", "following", is_flag=True, help="Keep the replica current until stopped.")
@click.option("--poll", callback=duration_value, default="2", show_default=True, metavar="DURATION", help="With --follow.")
def replicate_repository(
    place: Workplace,
    report: Report,
    *,
    url: str,
    public_key: Path | None,
    storage: Path,
    spool: Path | None,
    extent: str,
    allow_older: bool,
    following: bool,
    poll: float,
) -> None:
    """Bring a replica of the repository FQRN to the revision that URL shows, with everything verified.

    What is there is not fetched again, and an interrupted replication goes on where it was.
    """
    key = place.master_key(public_key)
    spool = spool or storage.with_name(f"{storage.name}.spool")
    spool.mkdir(mode=0o700, parents=True, exist_ok=True)
    store = LocalObjectStore(storage)

    def told(result: Replicated) -> None:
        if result.changed or not following:
            _show(place.fqrn, result, report)

    def failed(error: MirrorError) -> None:
        report.warn(str(error))

    with report.progress("replicating") as update:
        on_progress = lambda progress: update(progress.objects, progress.found)  # noqa: E731 (shorter than a def)
        if not following:
            work = replicate(
                url, place.fqrn, key, store, spool, extent=Extent(extent), allow_older=allow_older, on_progress=on_progress
            )
            told(asyncio.run(work))
            return
        endless = follow(
            url,
            place.fqrn,
            key,
            store,
            spool,
            poll_seconds=poll,
            extent=Extent(extent),
            on_replicated=told,
            on_failure=failed,
            on_progress=on_progress,
        )
        asyncio.run(_until_stopped(endless))


async def _until_stopped(work: Coroutine[Any, Any, NoReturn]) -> None:
    """Until SIGTERM or SIGINT."""
    task = asyncio.create_task(work)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with suppress(asyncio.CancelledError):
        await task


def _show(fqrn: str, result: Replicated, report: Report) -> None:
    progress, revision = result.progress, result.manifest.revision
    report.result(
        f"the replica of {fqrn} is {'now' if result.changed else 'still'} at revision {revision}: "
        f"{progress.objects} objects and {progress.catalogs} catalogs ({size(progress.bytes)}) in {result.seconds:.1f} s",
        fqrn=fqrn,
        revision=revision,
        root=str(result.manifest.root),
        changed=result.changed,
        objects=progress.objects,
        catalogs=progress.catalogs,
        bytes=progress.bytes,
        skipped=len(result.skipped),
        seconds=round(result.seconds, 3),
    )
