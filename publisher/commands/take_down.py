"""`debark-publisher take-down`: remove an image from /cvmfs, and keep it from coming back."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime

import click

from mirror.config import wiring
from mirror.config.models import Config
from mirror.data import DataDirectory
from mirror.errors import InvalidInput, NotFound, Unavailable
from mirror.jobs.blocks import Blocks, together
from mirror.jobs.removals import Removals
from mirror.jobs.repositories import Repositories
from mirror.oci.digest import Digest
from mirror.oci.reference import ImageReference
from mirror.state.engine import Database
from mirror.state.migrate import migrate
from mirror.store.blobs import BlobStore
from publisher.alone import only_publisher
from publisher.audit import FILE_NAME, Act, AuditLog, login_name
from publisher.commands.report import Report
from publisher.commands.verb import duration_value, settings_verb
from publisher.commands.workplace import Workplace
from publisher.cvmfs.cuts import CutLimits, GrowthLimits
from publisher.errors import Conflict, PublishError
from publisher.lease import RepositoryLease
from publisher.owner import owner_name
from publisher.remover import Remover, Writable
from publisher.stratum0 import Stratum0

_LOOK_SECONDS = 0.2


@settings_verb("take-down")
@click.argument("reference", metavar="[REF]", required=False)
@click.option("--reason", help="Why; shown to everybody who pulls the image.")
@click.option("--by", metavar="NAME", help="Who decided it; your login name without it.")
@click.option("--list", "listing", is_flag=True, help="Show what is taken down.")
@click.option("--lift", metavar="DIGEST", help="Undo the take-down that this digest belongs to.")
@click.option("--wait", callback=duration_value, default="10 min", show_default=True, help="For the removal to be published.")
def take_down(
    config: Config,
    report: Report,
    *,
    reference: str | None,
    reason: str | None,
    by: str | None,
    listing: bool,
    lift: str | None,
    wait: float,
) -> None:
    """Remove the image REF from all repositories, with all its names, and let it not be published again.

    REF is a name or a digest: debian:12, quay.io/project/app@sha256:... A name stands for the images of all its platforms. Pulls
    of the image go on, and tell the reason. A running publisher does the removal, within seconds; without one, it is done here.
    Content that no other image has goes with the next garbage collection (debark-publisher gc).
    """
    if sum((reference is not None, listing, lift is not None)) != 1:
        raise InvalidInput("name an image to take down, or use --list or --lift DIGEST")
    if reference is not None and not (reason or "").strip():
        raise InvalidInput("a take-down needs a --reason, which everybody who pulls the image is told")
    who = by or login_name()
    if reference is not None:
        asyncio.run(_take_down(config, report, ImageReference.parse(reference), reason=str(reason), who=who, wait=wait))
    elif lift is not None:
        asyncio.run(_lift(config, report, Digest.parse(lift), who))
    else:
        asyncio.run(_list(config, report))


@dataclass(frozen=True, slots=True)
class _Site:
    """Where removals are asked for, and may be done."""

    config: Config
    database: Database
    audit: AuditLog

    @property
    def data(self) -> DataDirectory:
        """The data directory."""
        return DataDirectory(self.config.data)


async def _take_down(config: Config, report: Report, image: ImageReference, *, reason: str, who: str, wait: float) -> None:
    audit = AuditLog(DataDirectory(config.data).logs / FILE_NAME)
    database = await _open(config)
    try:
        blocks, removals = Blocks(database), Removals(database)
        digests = await blocks.leading_from(image) or ([image.reference.digest] if image.reference.digest else [])
        if not digests:
            raise NotFound(f"{image} was never pulled through this mirror; to keep it from being published, name its digest")
        added = await blocks.add(digests, image, reason, who)
        facts = {"image": str(image), "digests": [str(digest) for digest in digests]}
        audit.record(Act.TAKEN_DOWN, by=who, reason=reason, **facts)
        try:
            await _removed(_Site(config, database, audit), digests, time.monotonic() + wait)
        except TimeoutError:
            left = ", ".join(await removals.left(digests))
            raise PublishError(
                f"{image} is blocked and no pull leads to it any more, but it is still in {left}: their publisher has to run"
            ) from None
        report.result(
            f"{image} is taken down: {len(added)} digests are blocked, and no repository has it", **facts, reason=reason, by=who
        )
    finally:
        await database.close()


async def _removed(site: _Site, digests: list[Digest], deadline: float) -> None:
    """Return when no repository has them any more: removed by whoever is the writer. Raises TimeoutError."""
    removals = Removals(site.database)
    while left := await removals.left(digests):
        if time.monotonic() > deadline:
            raise TimeoutError
        try:
            with only_publisher(site.data):
                await _remove_here(site, left)
        except Conflict:
            pass  # The running publisher does it.
        await asyncio.sleep(_LOOK_SECONDS)


@dataclass(slots=True)
class _Target:
    stratum0: Stratum0
    lease: RepositoryLease
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


async def _remove_here(site: _Site, fqrns: list[str]) -> None:
    """As a publisher would, in those repositories that are on this machine. No publisher runs here meanwhile."""
    config, repositories = site.config, Repositories(site.database)
    known = {facts.fqrn: facts for facts in await repositories.all()}
    targets: dict[str, Writable] = {}
    with ExitStack() as stack:
        for fqrn in fqrns:
            place = Workplace(fqrn, config)
            if fqrn in config.publish.repositories and place.exists():
                repository = place.repository()
                pipeline = stack.enter_context(place.pipeline(repository))
                stratum0 = Stratum0(repository, pipeline, known[fqrn].url_path, known[fqrn].stored_bytes)
                targets[fqrn] = _Target(
                    stratum0, RepositoryLease(repositories, fqrn, owner_name(site.data), config.publish.lease)
                )
        for target in targets.values():
            await target.lease.acquire()
        remover = Remover(
            Removals(site.database),
            repositories,
            BlobStore(config.data, 0),
            site.audit,
            targets,
            cuts=CutLimits(most=config.publish.catalog_entries),
            growth=GrowthLimits(entries=config.publish.growing_catalog_entries),
            max_manifest_bytes=config.fetch.max_manifest,
        )
        try:
            await remover.carry_out()
        finally:
            for target in targets.values():
                await target.lease.release()


async def _lift(config: Config, report: Report, digest: Digest, who: str) -> None:
    database = await _open(config)
    try:
        lifted = await Blocks(database).lift(digest)
    finally:
        await database.close()
    if not lifted:
        raise NotFound(f"{digest} is not taken down; see --list")
    digests = [str(block.digest) for block in lifted]
    AuditLog(DataDirectory(config.data).logs / FILE_NAME).record(Act.LIFTED, by=who, image=lifted[0].image, digests=digests)
    report.result(f"{lifted[0].image} is published again", image=lifted[0].image, digests=digests, by=who)


async def _list(config: Config, report: Report) -> None:
    database = await _open(config)
    try:
        groups = together(await Blocks(database).all())
    finally:
        await database.close()
    for group in groups:
        first, digests = group[0], [str(block.digest) for block in group]
        when = datetime.fromtimestamp(first.at, UTC)
        report.result(
            f"{first.image}: {first.reason} ({first.by}, {when:%Y-%m-%d %H:%M} UTC)\n  " + "\n  ".join(digests),
            image=first.image,
            digests=digests,
            reason=first.reason,
            by=first.by,
            time=f"{when:%Y-%m-%dT%H:%M:%SZ}",
        )


async def _open(config: Config) -> Database:
    if not config.state.url and not (config.data / "state.sqlite").exists():
        raise Unavailable(f"there is no state database in {config.data}; name the data directory of the mirror with --data")
    database = Database(wiring.database(config))
    await migrate(database)
    return database
