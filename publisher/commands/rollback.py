"""`debark-publisher rollback`: what an earlier revision held, as a new revision."""

from __future__ import annotations

import asyncio

import click

from mirror.config import wiring
from mirror.errors import NotFound
from mirror.jobs.packed_layers import PackedLayers
from mirror.state.engine import Database
from mirror.state.migrate import migrate
from publisher.audit import Act
from publisher.commands.report import Report
from publisher.commands.verb import verb
from publisher.commands.workplace import Workplace
from publisher.cvmfs.hash import ContentHash
from publisher.cvmfs.history import TRUNK_PREVIOUS
from publisher.cvmfs.reader import RepositoryReader
from publisher.repository import Repository
from publisher.tags import find_tag
from publisher.transaction import Transaction


@verb("rollback")
@click.option("-t", "--tag", "name", metavar="NAME", help="Named snapshot to go back to; the revision before without it.")
def rollback(place: Workplace, report: Report, *, name: str | None) -> None:
    """Publish the tree of an earlier revision of the repository FQRN as a new revision.

    Nothing is lost by it: the revisions in between and their names stay, so it can be rolled back itself.
    """
    repository = place.repository()
    root, size, revision = _target(repository, repository.reader(), name)
    with Transaction(repository) as transaction:
        if transaction.base.root != root:
            transaction.go_back(root, size)
        published = transaction.commit()
    asyncio.run(_take_back(place, revision))
    place.audit.record(Act.CHANGED, fqrn=place.fqrn, revision=published.revision, what=f"rollback to revision {revision}")
    report.result(
        f"{place.fqrn} is at revision {published.revision}, with the tree of revision {revision}",
        fqrn=place.fqrn,
        revision=published.revision,
        root=str(published.root_hash),
        tree_of=revision,
    )


async def _take_back(place: Workplace, revision: int) -> None:
    """Tell the mirror, if there is one, that it must not send clients for blobs that came after this revision."""
    if not place.config.state.url and not (place.config.data / "state.sqlite").exists():
        return
    database = Database(wiring.database(place.config))
    try:
        await migrate(database)
        await PackedLayers(database).roll_back(place.fqrn, revision)
    finally:
        await database.close()


def _target(repository: Repository, reader: RepositoryReader, name: str | None) -> tuple[ContentHash, int | None, int]:
    """Root catalog, its uncompressed bytes if known, and number of a revision."""
    history = reader.history()
    if name is None and history is not None and TRUNK_PREVIOUS in history.tags():
        name = TRUNK_PREVIOUS
    if name is not None:
        tag = find_tag(history, name, repository.fqrn)
        return tag.root, tag.size, tag.revision
    previous = reader.snapshot.root.previous
    if previous is None:
        raise NotFound(f"the revision {reader.manifest.revision} of {repository.fqrn} has none before it")
    return previous, None, reader.at(previous).root.revision
