"""`debark-publisher replicate`: be a stratum 1 of a repository."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import click

from mirror.config.values import parse_listen
from mirror.errors import MirrorError
from publisher.commands.report import Report, size
from publisher.commands.verb import duration_value, verb
from publisher.commands.workplace import Workplace
from publisher.objects.http_client import HttpLimits
from publisher.objects.local import LocalObjectStore
from publisher.objects.store import ObjectStore
from publisher.replicate.announcements import listening
from publisher.replicate.follow import follow
from publisher.replicate.model import Extent, Replicated, Replication, ReplicationLimits
from publisher.replicate.replica import replicate
from publisher.storage import open_bucket


def _address(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[str, int] | None:
    """Host and port; a usage error if it is no such thing."""
    try:
        return None if value is None else parse_listen(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@verb("replicate")
@click.argument("url")
@click.option("-k", "--public-key", type=click.Path(path_type=Path), help="Public master key to trust; the usual one without it.")
@click.option(
    "--storage",
    required=True,
    metavar="PLACE",
    help="Directory for the replica, which any web server can serve; or s3://bucket/prefix, with the settings of [publish.s3], "
    "for <prefix>/FQRN in a bucket.",
)
@click.option(
    "--spool",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory for the replica's lock and checksum and for files on their way. Without it <storage>.spool; for a bucket, "
    "FQRN.replica among the spool directories.",
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
@click.option(
    "--listen",
    callback=_address,
    metavar="HOST:PORT",
    help="With --follow: hear there of new revisions, from a publisher or by cvmfs_swissknife notify -p -u http://HOST:PORT/api/v1.",
)
@click.option(
    "-j",
    "--connections",
    type=click.IntRange(1, 1000),
    default=HttpLimits().connections,
    show_default=True,
    help="Objects asked for at a time.",
)
@click.option(
    "--processes",
    type=click.IntRange(0, 64),
    help="Processes beside this one, which fetch the small objects where many lack and the storage is a directory; 0: none. "
    "One a core and at most four without it.",
)
@click.option("--poll", callback=duration_value, default="2", show_default=True, metavar="DURATION", help="With --follow.")
def replicate_repository(
    place: Workplace,
    report: Report,
    *,
    url: str,
    public_key: Path | None,
    storage: str,
    spool: Path | None,
    extent: str,
    allow_older: bool,
    following: bool,
    listen: tuple[str, int] | None,
    connections: int,
    processes: int | None,
    poll: float,
) -> None:
    """Bring a replica of the repository FQRN to the revision that URL shows, with everything verified.

    What is there is not fetched again, and an interrupted replication goes on where it was.
    """
    if following and allow_older:
        raise click.UsageError("a replica that follows its source never goes back: --allow-older is for one replication")
    if listen is not None and not following:
        raise click.UsageError("--listen is of use only with --follow")
    limits = ReplicationLimits(http=HttpLimits(connections=connections))
    if processes is not None:
        limits = replace(limits, processes=processes)
    key = place.master_key(public_key)

    def told(result: Replicated) -> None:
        if result.changed or not following:
            _show(place.fqrn, result, report)

    def failed(error: MirrorError) -> None:
        report.warn(str(error))

    with report.progress("replicating") as update:
        on_progress = lambda progress: update(progress.objects, progress.found)  # noqa: E731 (shorter than a def)
        store, spool, limits = _replica(place, storage, spool, limits)
        replication = Replication(url, place.fqrn, key, store, spool, limits, Extent(extent), on_progress)
        if not following:
            told(asyncio.run(replicate(replication, allow_older=allow_older)))
            return

        async def endless() -> NoReturn:
            announced = asyncio.Event()
            async with AsyncExitStack() as stack:
                if listen is not None:
                    await stack.enter_async_context(listening(*listen, place.fqrn, announced))
                await follow(replication, poll_seconds=poll, announced=announced, on_replicated=told, on_failure=failed)

        asyncio.run(_until_stopped(endless()))


def _replica(
    place: Workplace, storage: str, spool: Path | None, limits: ReplicationLimits
) -> tuple[ObjectStore, Path, ReplicationLimits]:
    """The store, the spool directory, and limits that fit the store.

    Raises InvalidInput for a bucket that the settings do not lead to, StorageFull, Unavailable.
    """
    if storage.startswith("s3://"):
        spool = spool or place.data.spool / f"{place.fqrn}.replica"
        bucket = open_bucket(place.fqrn, storage, place.config.publish.s3, spool / "locks")
        return bucket.store, spool, replace(limits, threads=bucket.concurrency)
    directory = Path(storage)
    return LocalObjectStore(directory), spool or directory.with_name(f"{directory.name}.spool"), limits


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
