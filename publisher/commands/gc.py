"""`debark-publisher gc`: delete what no kept revision needs."""

from __future__ import annotations

import click

from publisher.commands.report import Report, size
from publisher.commands.verb import duration_value, verb
from publisher.commands.workplace import Workplace
from publisher.gc.collect import collect
from publisher.gc.policy import CollectionPolicy


@verb("gc")
@click.option("-r", "--revisions", type=click.IntRange(min=0), default=0, help="Keep so many revisions before the current one.")
@click.option("-a", "--age", callback=duration_value, default="0", metavar="DURATION", help="Keep what was current within this.")
@click.option(
    "--grace",
    callback=duration_value,
    default="1 d",
    show_default=True,
    metavar="DURATION",
    help="Delete nothing that is younger: for publications, replicas and clients that are in the middle of something.",
)
@click.option("-n", "--dry-run", is_flag=True, help="Tell what would be deleted, and delete nothing.")
def gc(place: Workplace, report: Report, *, revisions: int, age: float, grace: float, dry_run: bool) -> None:
    """Delete the objects of the repository FQRN that the current revision, named ones and those to be kept do not need.

    The repository can be published in meanwhile. A collection that was interrupted is completed by the next one.
    """
    repository = place.repository()
    policy = CollectionPolicy(revisions=revisions, age=age, grace=grace)
    with report.progress("collecting") as update:
        result = collect(repository, policy, dry_run=dry_run, progress=lambda progress: update(progress.done, progress.total))
    freed = result.found if dry_run else result.deleted
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
