"""Requests to remove images from CVMFS repositories: carried out by the writer of each."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from sqlalchemy import delete, select, update

from mirror.jobs.packed_layers import remove_packed_layers
from mirror.oci.digest import Digest
from mirror.state.engine import Database
from mirror.state.schema import images, layers, packed_layers, removals


@dataclass(frozen=True, slots=True)
class RemovalRequest:
    """One image is to leave one repository; `at` in Unix seconds."""

    fqrn: str
    manifest: Digest
    reason: str
    by: str
    at: float


class Removals:
    """The requests that are not carried out yet. Every method raises Unavailable when the state database cannot be reached."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def waiting(self, fqrns: Collection[str]) -> list[RemovalRequest]:
        """What these repositories' writers are to do, the oldest first."""
        statement = (
            select(removals).where(removals.c.fqrn.in_(list(fqrns))).order_by(removals.c.requested_at, removals.c.manifest_digest)
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(statement)).all()
        return [
            RemovalRequest(row.fqrn, Digest.parse(row.manifest_digest), row.reason, row.requested_by, row.requested_at)
            for row in rows
        ]

    async def left(self, manifests: Collection[Digest]) -> list[str]:
        """Repositories, by fqrn, that one of these images is still to be removed from."""
        statement = (
            select(removals.c.fqrn)
            .where(removals.c.manifest_digest.in_([str(manifest) for manifest in manifests]))
            .distinct()
            .order_by(removals.c.fqrn)
        )
        async with self._database.read() as connection:
            return list((await connection.execute(statement)).scalars())

    async def done(self, fqrn: str, manifests: Collection[Digest], gone_layers: Iterable[Digest]) -> None:
        """The images are not in the repository any more, and neither are these layers."""
        texts, gone = [str(manifest) for manifest in manifests], [str(layer) for layer in gone_layers]
        async with self._database.write() as connection:
            await connection.execute(delete(removals).where(removals.c.fqrn == fqrn, removals.c.manifest_digest.in_(texts)))
            await connection.execute(delete(layers).where(layers.c.fqrn == fqrn, layers.c.digest.in_(gone)))
            await remove_packed_layers(connection, fqrn, packed_layers.c.digest.in_(gone))
            held = update(images).where(images.c.manifest_digest.in_(texts), images.c.fqrn == fqrn)
            await connection.execute(held.values(fqrn=None))
