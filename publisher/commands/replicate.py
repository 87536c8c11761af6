"""`debark-publisher replicate`: be a stratum 1 of a repository."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import click

from mirror.config.values import parse_listen
from mirror.errors import MirrorError
from publisher.commands.report import Report, size
from publisher.commands.verb import duration_value, verb
from publisher.commands.workplace import Workplace
from publisher.objects.local import LocalObjectStore
from publisher.objects.store import ObjectStore
from publisher.replicate.announcements import listening
from publisher.replicate.follow import follow
from publisher.replicate.model import Extent, Replicated, ReplicationLimits
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
    poll: float,
) -> None:
    """Bring a replica of the repository FQRN to the revision that URL shows, with everything verified.

    What is there is not fetched again, and an interrupted replication goes on where it was.
    """
    if following and allow_older:
        raise click.UsageError("a replica that follows its source never goes back: --allow-older is for one replication")
    if listen is not None and not following:
        raise click.UsageError("--listen is of use only with --follow")
    key = place.master_key(public_key)
    replica = _replica(place, storage, spool)

    def told(result: Replicated) -> None:
        if result.changed or not following:
            _show(place.fqrn, result, report)

    def failed(error: MirrorError) -> None:
        report.warn(str(error))

    with report.progress("replicating") as update:
        on_progress = lambda progress: update(progress.objects, progress.found)  # noqa: E731 (shorter than a def)
        if not following:
            work = replicate(
                url,
                place.fqrn,
                key,
                replica.store,
                replica.spool,
                limits=replica.limits,
                extent=Extent(extent),
                allow_older=allow_older,
                on_progress=on_progress,
            )
            told(asyncio.run(work))
            return

        async def endless() -> NoReturn:
            announced = asyncio.Event()
            async with AsyncExitStack() as stack:
                if listen is not None:
                    await stack.enter_async_context(listening(*listen, place.fqrn, announced))
                await follow(
                    url,
                    place.fqrn,
                    key,
                    replica.store,
                    replica.spool,
                    limits=replica.limits,
                    poll_seconds=poll,
                    announced=announced,
                    extent=Extent(extent),
                    on_replicated=told,
                    on_failure=failed,
                    on_progress=on_progress,
                )

        asyncio.run(_until_stopped(endless()))


@dataclass(frozen=True, slots=True)
class _Replica:
    store: ObjectStore
    spool: Path
    limits: ReplicationLimits


def _replica(place: Workplace, storage: str, spool: Path | None) -> _Replica:
    """Raises InvalidInput for a bucket that the settings do not lead to, StorageFull, Unavailable."""
    if storage.startswith("s3://"):
        spool = spool or place.data.spool / f"{place.fqrn}.replica"
        bucket = open_bucket(place.fqrn, storage, place.config.publish.s3, spool / "locks")
        return _Replica(bucket.store, spool, ReplicationLimits(threads=bucket.concurrency))
    directory = Path(storage)
    return _Replica(LocalObjectStore(directory), spool or directory.with_name(f"{directory.name}.spool"), ReplicationLimits())


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
