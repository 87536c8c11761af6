"""`debark-publisher tag`: names for revisions."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from mirror.errors import InvalidInput
from publisher.audit import Act
from publisher.commands.report import Report
from publisher.commands.verb import verb
from publisher.commands.workplace import Workplace
from publisher.cvmfs.hash import ContentHash
from publisher.cvmfs.history import Tag
from publisher.tags import NewTag, change_tags


@verb("tag")
@click.option("-a", "--add", metavar="NAME", help="Name a revision: the current one, or that of --hash.")
@click.option("-m", "--message", default="", help="Description, with --add.")
@click.option("-h", "--hash", "root", metavar="HASH", help="Root catalog of the revision to name, with --add.")
@click.option("-f", "--force", is_flag=True, help="Let a name that exists lead to the other revision, with --add.")
@click.option("-r", "--remove", "removed", metavar="NAME", multiple=True, help="Forget a name; may be repeated.")
@click.option("-l", "--list", "listed", is_flag=True, help="List all names; done without other options, too.")
def tag(
    place: Workplace,
    report: Report,
    *,
    add: str | None,
    message: str,
    root: str | None,
    force: bool,
    removed: tuple[str, ...],
    listed: bool,
) -> None:
    """Name revisions of the repository FQRN: named ones are kept by garbage collection, and clients can mount them.

    Naming makes no new revision. A name is removed at once; what only it kept goes with the next garbage collection.
    """
    if add is None and (message or root or force):
        raise InvalidInput("--message, --hash and --force are for a new name (--add)")
    repository = place.repository()
    if add is not None or removed:
        new = [] if add is None else [NewTag(add, message, None if root is None else ContentHash.parse(root))]
        changed = change_tags(repository, new, removed, move=force)
        place.audit.record(Act.CHANGED, fqrn=place.fqrn, what="tag", names=[name.name for name in new], removed=list(removed))
        for given in changed:
            _show(given, report)
        for name in removed:
            report.result(f"removed {name}", removed=name)
    if listed or (add is None and not removed):
        history = repository.reader().history()
        for known in history.tags().values() if history is not None else ():
            _show(known, report)


def _show(tag: Tag, report: Report) -> None:
    when = datetime.fromtimestamp(tag.timestamp, UTC)
    report.result(
        f"{tag.name:24} revision {tag.revision:6}  {when:%Y-%m-%d %H:%M:%S}  {tag.root}  {tag.description}".rstrip(),
        name=tag.name,
        revision=tag.revision,
        root=str(tag.root),
        time=f"{when:%Y-%m-%dT%H:%M:%SZ}",
        description=tag.description,
    )
