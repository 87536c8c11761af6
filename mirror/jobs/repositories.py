"""Facts about the CVMFS repositories of this installation, and the lease that makes each one's writer the only one."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, or_, select, update

from mirror.errors import NotFound
from mirror.jobs.leases import LeaseExpired
from mirror.jobs.schedule import RepositoryState
from mirror.oci.digest import Digest
from mirror.state.engine import Database
from mirror.state.schema import layers, repositories


@dataclass(frozen=True, slots=True)
class RepositoryFacts:
    """A CVMFS repository as its publisher last described it.

    root_hash: content hash of the root catalog as text. public_key: PEM. url_path: path below the mirror's own root, such as
    `/cvmfs/unpacked.example.org`, or a whole URL where another server has the files. stored_bytes: of all objects, as stored.
    """

    fqrn: str
    revision: int
    root_hash: str
    public_key: str
    url_path: str
    stored_bytes: int
    state: RepositoryState = RepositoryState.ACTIVE

    def url_at(self, mirror: str) -> str:
        """Where clients find the repository. mirror: URL of this mirror."""
        return self.url_path if "://" in self.url_path else mirror + self.url_path


class Repositories:
    """All CVMFS repositories. Every method raises Unavailable when the state database cannot be reached."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        """clock: Unix seconds."""
        self._database = database
        self._clock = clock

    async def put(self, facts: RepositoryFacts) -> None:
        """Register a repository, or bring its facts up to date; the state of one that is registered only `set_state` changes."""
        row = {
            "fqrn": facts.fqrn,
            "revision": facts.revision,
            "root_hash": facts.root_hash,
            "public_key": facts.public_key,
            "url_path": facts.url_path,
            "stored_bytes": facts.stored_bytes,
            "state": facts.state.value,
            "updated_at": self._clock(),
        }
        insert = self._database.insert(repositories).values(row)
        statement = insert.on_conflict_do_update(
            index_elements=["fqrn"], set_={column: insert.excluded[column] for column in row if column not in ("fqrn", "state")}
        )
        async with self._database.write() as connection:
            await connection.execute(statement)

    async def set_state(self, fqrn: str, state: RepositoryState) -> None:
        """Open the repository to new images, or close it. Raises NotFound."""
        statement = (
            update(repositories)
            .where(repositories.c.fqrn == fqrn)
            .values(state=state.value, updated_at=self._clock())
            .returning(repositories.c.fqrn)
        )
        async with self._database.write() as connection:
            if (await connection.execute(statement)).one_or_none() is None:
                raise NotFound(f"no CVMFS repository '{fqrn}' is registered in the state database")

    async def all(self) -> list[RepositoryFacts]:
        """All repositories, by fqrn."""
        async with self._database.read() as connection:
            rows = (await connection.execute(select(repositories).order_by(repositories.c.fqrn))).all()
        return [_facts(row) for row in rows]

    async def acquire(self, fqrn: str, owner: str, seconds: float) -> bool:
        """Become the repository's one writer for so long; False while somebody else is. Raises NotFound.

        The owner who has the lease already keeps it, from now on for so long.
        """
        now = self._clock()
        known = select(repositories.c.fqrn).where(repositories.c.fqrn == fqrn)
        statement = (
            update(repositories)
            .where(
                repositories.c.fqrn == fqrn,
                or_(repositories.c.lease_owner.is_(None), repositories.c.lease_owner == owner, repositories.c.lease_until <= now),
            )
            .values(lease_owner=owner, lease_until=now + seconds)
            .returning(repositories.c.fqrn)
        )
        async with self._database.write() as connection:
            if (await connection.execute(known)).one_or_none() is None:
                raise NotFound(f"no CVMFS repository '{fqrn}' is registered in the state database")
            return (await connection.execute(statement)).one_or_none() is not None

    async def renew(self, fqrn: str, owner: str, seconds: float) -> None:
        """Stay the one writer, from now on for so long. Raises LeaseExpired if the lease ran out, whoever has it now."""
        now = self._clock()
        statement = (
            update(repositories)
            .where(repositories.c.fqrn == fqrn, repositories.c.lease_owner == owner, repositories.c.lease_until > now)
            .values(lease_until=now + seconds)
            .returning(repositories.c.fqrn)
        )
        async with self._database.write() as connection:
            if (await connection.execute(statement)).one_or_none() is None:
                raise LeaseExpired(f"{owner} is no longer the writer of {fqrn}: its lease ran out")

    async def release(self, fqrn: str, owner: str) -> None:
        """Stop being the one writer; nothing happens if somebody else is."""
        statement = (
            update(repositories)
            .where(repositories.c.fqrn == fqrn, repositories.c.lease_owner == owner)
            .values(lease_owner=None, lease_until=None)
        )
        async with self._database.write() as connection:
            await connection.execute(statement)

    async def writers(self) -> dict[str, str]:
        """The publishers that are the writer of a repository now, by fqrn."""
        statement = select(repositories.c.fqrn, repositories.c.lease_owner).where(
            repositories.c.lease_owner.is_not(None), repositories.c.lease_until > self._clock()
        )
        async with self._database.read() as connection:
            return {row.fqrn: row.lease_owner for row in await connection.execute(statement)}

    async def held_bytes(self, digests: Collection[Digest]) -> dict[str, int]:
        """For every repository, by fqrn: bytes of these layers' blobs that it holds unpacked."""
        wanted = [str(digest) for digest in digests]
        statement = (
            select(repositories.c.fqrn, func.coalesce(func.sum(layers.c.size), 0))
            .outerjoin(layers, (layers.c.fqrn == repositories.c.fqrn) & layers.c.digest.in_(wanted))
            .group_by(repositories.c.fqrn)
        )
        async with self._database.read() as connection:
            return {fqrn: int(size) for fqrn, size in await connection.execute(statement)}


def _facts(row: Any) -> RepositoryFacts:
    return RepositoryFacts(
        fqrn=row.fqrn,
        revision=row.revision,
        root_hash=row.root_hash,
        public_key=row.public_key,
        url_path=row.url_path,
        stored_bytes=row.stored_bytes,
        state=RepositoryState(row.state),
    )
