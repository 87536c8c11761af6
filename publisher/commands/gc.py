"""`debark-publisher gc`: delete what no kept revision needs."""

from __future__ import annotations

from contextlib import ExitStack

import click

from mirror.config.values import DURATION
from mirror.errors import InvalidInput
from publisher.alone import only_publisher
from publisher.audit import Act
from publisher.commands.report import Report, size
from publisher.commands.verb import duration_value, verb
from publisher.commands.workplace import Workplace
from publisher.gc.collect import collect
from publisher.gc.policy import SAFE_GRACE, CollectionPolicy, CollectionStep
from publisher.gc_settings import collection_limits

_DOING = {
    CollectionStep.MARK: "reading catalogs",
    CollectionStep.LIST: "listing objects",
    CollectionStep.DELETE: "deleting objects",
}
_ENDING = "writing the reference log"


@verb("gc")
@click.option("-r", "--revisions", type=click.IntRange(min=0), default=0, help="Keep so many revisions before the current one.")
@click.option("-a", "--age", callback=duration_value, default="0", metavar="DURATION", help="Keep what was current within this.")
@click.option(
    "--grace",
    callback=duration_value,
    metavar="DURATION",
    help="Delete nothing that is younger: for publications, replicas and clients that are in the middle of something. At least "
    "2 h, unless --alone; the setting (1 d) without it.",
)
@click.option("--alone", is_flag=True, help="Nobody publishes meanwhile: I see to it.")
@click.option("-n", "--dry-run", is_flag=True, help="Tell what would be deleted, and delete nothing.")
def gc(place: Workplace, report: Report, *, revisions: int, age: float, grace: float | None, alone: bool, dry_run: bool) -> None:
    """Delete the objects of the repository FQRN that the current revision, named ones and those to be kept do not need.

    The repository can be published in meanwhile. A collection that was interrupted is completed by the next one.
    """
    settings = place.config.publish.gc
    policy = CollectionPolicy(revisions=revisions, age=age, grace=settings.grace if grace is None else grace)
    if not (policy.is_safe_beside_publications or alone or dry_run):
        raise InvalidInput(
            f"with a grace period below {DURATION.show(SAFE_GRACE)} a publication that is under way loses content: it takes "
            "for granted what it finds in the storage. Give a longer --grace; or stop all publishing, and say so by --alone"
        )
    repository = place.repository()
    with ExitStack() as stack:
        if alone:
            stack.enter_context(only_publisher(place.data))
        update = stack.enter_context(report.progress("collecting"))
        result = collect(
            repository,
            policy,
            dry_run=dry_run,
            limits=collection_limits(settings),
            progress=lambda progress: update(progress.done, progress.total, _DOING.get(progress.step, _ENDING)),
        )
    freed = result.found if dry_run else result.deleted
    if not dry_run:
        place.audit.record(Act.COLLECTED, fqrn=place.fqrn, revision=result.revision, objects=freed.objects, size=freed.bytes)
    report.result(
        f"{place.fqrn}: {'would delete' if dry_run else 'deleted'} {freed.objects} objects ({size(freed.bytes)}); "
        f"{result.kept.objects} are needed by {result.roots} revisions, {result.young.objects} are too young to go",
        fqrn=place.fqrn,
        revision=result.revision,
        dry_run=dry_run,
        objects_deleted=result.deleted.objects,
        bytes_deleted=result.deleted.bytes,
        objects_found=result.found.objects,
        bytes_found=result.found.bytes,
        objects_kept=result.kept.objects,
        objects_young=result.young.objects,
        revisions_kept=result.roots,
    )
