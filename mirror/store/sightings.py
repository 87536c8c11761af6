"""When repositories were last seen to be public, in the state database, for all processes and for the time after a restart."""

from __future__ import annotations

from sqlalchemy import ColumnElement, delete, select

from mirror.oci.reference import RepositoryName
from mirror.state.engine import Database
from mirror.state.schema import public_repositories


class Sightings:
    """Of all repositories, by name; times in Unix seconds. Nothing is kept of one that was never public."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def seen(self, name: RepositoryName) -> float | None:
        """When an upstream last gave the repository to anybody, as any process was told; None if never. Raises Unavailable."""
        statement = select(public_repositories.c.seen_at).where(*_is(name))
        async with self._database.read() as connection:
            found: float | None = (await connection.execute(statement)).scalar_one_or_none()
        return found

    async def note(self, name: RepositoryName, at: float) -> None:
        """It was public at that time. Raises Unavailable."""
        row = {"registry": name.registry, "repository": name.repository, "seen_at": at}
        insert = self._database.insert(public_repositories)
        # The last one to write counts: a clock that was wrong once is not believed for longer than it is wrong.
        statement = insert.on_conflict_do_update(
            index_elements=["registry", "repository"], set_={"seen_at": insert.excluded.seen_at}
        )
        async with self._database.write() as connection:
            await connection.execute(statement, [row])

    async def forget(self, name: RepositoryName) -> None:
        """It is not public any more. Raises Unavailable."""
        async with self._database.write() as connection:
            await connection.execute(delete(public_repositories).where(*_is(name)))

    async def drop_before(self, at: float) -> int:
        """Forget what was not seen to be public since then; the number of repositories. Raises Unavailable."""
        async with self._database.write() as connection:
            return (await connection.execute(delete(public_repositories).where(public_repositories.c.seen_at < at))).rowcount


def _is(name: RepositoryName) -> tuple[ColumnElement[bool], ...]:
    return public_repositories.c.registry == name.registry, public_repositories.c.repository == name.repository
