"""`debark-publisher check`: whether a repository is sound."""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress
from pathlib import Path

import click

from mirror.errors import NotFound
from publisher.check import Problem, examine, unreadable
from publisher.commands.report import Report
from publisher.commands.verb import EXIT_FAILED, verb
from publisher.commands.workplace import Workplace
from publisher.cvmfs.hash import ContentHash
from publisher.cvmfs.reflog import REFLOG_NAME
from publisher.errors import RepositoryDamaged
from publisher.spool import Spool


@verb("check")
@click.option("-u", "--url", help="Check it over HTTP: the address of a stratum 0 or 1, such as http://HOST/cvmfs/FQRN.")
@click.option("-k", "--public-key", type=click.Path(path_type=Path), help="Public master key to trust, for --url.")
@click.option("-i", "--content", is_flag=True, help="Read every object, and compare its content with its hash and its size.")
@click.option("--no-objects", is_flag=True, help="Read catalogs only; do not even look whether the objects are there.")
@click.option("--reflog-checksum", metavar="HASH", help="Checksum of the reference log, where it is not the manifest's.")
@click.option("-j", "--workers", type=click.IntRange(1, 256), default=8, show_default=True, help="Objects looked at at a time.")
def check_repository(
    place: Workplace,
    report: Report,
    *,
    url: str | None,
    public_key: Path | None,
    content: bool,
    no_objects: bool,
    reflog_checksum: str | None,
    workers: int,
) -> None:
    """Check the current revision and all named ones of the repository FQRN; one line a problem, exit code 1 if there is any.

    Signatures, reference log, names, every catalog with all its counters, the presence of every object; with --content also the
    content of every object. A repository may be published in meanwhile.
    """
    started = time.monotonic()
    checksum = ContentHash.parse(reflog_checksum) if reflog_checksum is not None else None
    with ExitStack() as stack:
        try:
            opened = stack.enter_context(place.opened(url, public_key))
        except RepositoryDamaged as error:
            _show(unreadable(error), report)
            raise click.exceptions.Exit(EXIT_FAILED) from error
        update = stack.enter_context(report.progress("checking"))
        if checksum is None and url is None and place.exists():
            with suppress(NotFound):  # a log that is not there is a problem of many
                checksum = Spool(place.spool).reflog_checksum(place.storage().store.read_file(REFLOG_NAME))
        found = examine(
            opened.reader,
            contains=None if no_objects else opened.contains,
            data=content,
            reflog_checksum=checksum,
            workers=workers,
            progress=lambda catalogs, objects: update(catalogs + objects, None),
        )
        revision = opened.reader.manifest.revision
    for problem in found.problems:
        _show(problem, report)
    report.result(
        f"{place.fqrn}, revision {revision}: "
        + (f"{len(found.problems)} problems" if found.problems else "no problem")
        + f" in {found.catalogs} catalogs and {found.objects} objects",
        fqrn=place.fqrn,
        revision=revision,
        problems=len(found.problems),
        catalogs=found.catalogs,
        objects=found.objects,
        seconds=round(time.monotonic() - started, 3),
    )
    if found.problems:
        raise click.exceptions.Exit(EXIT_FAILED)


def _show(problem: Problem, report: Report) -> None:
    path = problem.path.decode("utf-8", "backslashreplace") or "/"
    report.result(str(problem), path=path, problem=problem.what, item=problem.item, mend=problem.mend)
