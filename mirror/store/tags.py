"""What tags resolved to, kept in the state database, with a bounded memory in front: a warm tag costs no SQL.

The memory answers first and without end: an entry changes only through `put`, `forget` and `look`. Freshness is the caller's to
judge by `checked_at`: one whose entry is too old looks whether another process has been told something since.
"""

from __future__ import annotations

from dataclasses import dataclass

from cachetools import LRUCache
from sqlalchemy import delete, select

from mirror.oci.digest import Digest
from mirror.oci.reference import RepositoryName
from mirror.state.engine import Database
from mirror.state.schema import tags


@dataclass(frozen=True, slots=True)
class TagRecord:
    """The upstream's last answer for a tag: which manifest, and when (Unix seconds) it was asked."""

    digest: Digest
    media_type: str
    size: int
    checked_at: float


class Tags:
    """Tags of all repositories.

    accept: the media types that the upstream was asked for, where it was not all of them: its answer may be another one then.
    """

    def __init__(self, database: Database, *, remembered: int = 20_000) -> None:
        """remembered: how many tags are kept in memory."""
        self._database = database
        self._memory: LRUCache[tuple[RepositoryName, str], dict[str, TagRecord]] = LRUCache(remembered)

    async def get(self, name: RepositoryName, tag: str, accept: str = "") -> TagRecord | None:
        """The last answer for this tag, None if it was never asked for. Raises Unavailable."""
        known = self._memory.get((name, tag))
        record = known.get(accept) if known is not None else None
        return record if record is not None else await self.look(name, tag, accept)

    async def look(self, name: RepositoryName, tag: str, accept: str = "") -> TagRecord | None:
        """The last answer that any process was given, None if there is none in the database. Raises Unavailable."""
        statement = select(tags.c.digest, tags.c.media_type, tags.c.size, tags.c.checked_at).where(
            tags.c.registry == name.registry,
            tags.c.repository == name.repository,
            tags.c.tag == tag,
            tags.c.accept == accept,
        )
        async with self._database.read() as connection:
            row = (await connection.execute(statement)).one_or_none()
        if row is None:
            return None
        record = TagRecord(Digest.parse(row.digest), row.media_type, row.size, row.checked_at)
        known = self._memory.get((name, tag), {}).get(accept)
        if known is None or known.checked_at < record.checked_at:
            self._remember(name, tag, accept, record)
            return record
        return known  # A `put` has come in between.

    async def put(self, name: RepositoryName, tag: str, record: TagRecord, accept: str = "") -> None:
        """Note what the upstream answered. Raises Unavailable; the memory has it even then."""
        self._remember(name, tag, accept, record)
        row = {
            "registry": name.registry,
            "repository": name.repository,
            "tag": tag,
            "accept": accept,
            "digest": str(record.digest),
            "media_type": record.media_type,
            "size": record.size,
            "checked_at": record.checked_at,
        }
        insert = self._database.insert(tags)
        # Processes that asked at the same time may write in any order: the newest answer stays.
        statement = insert.on_conflict_do_update(
            index_elements=["registry", "repository", "tag", "accept"],
            set_={column: insert.excluded[column] for column in ("digest", "media_type", "size", "checked_at")},
            where=insert.excluded.checked_at >= tags.c.checked_at,
        )
        async with self._database.write() as connection:
            await connection.execute(statement, [row])

    async def forget(self, name: RepositoryName, tag: str, accept: str = "") -> None:
        """The upstream says that there is no such tag, or none of these types.

        Raises Unavailable; the memory has forgotten it even then.
        """
        statement = delete(tags).where(tags.c.registry == name.registry, tags.c.repository == name.repository, tags.c.tag == tag)
        if accept:
            self._memory.get((name, tag), {}).pop(accept, None)
            statement = statement.where(tags.c.accept == accept)
        else:
            self._memory.pop((name, tag), None)
        async with self._database.write() as connection:
            await connection.execute(statement)

    async def pointing_at(self, name: RepositoryName, digest: Digest) -> list[str]:
        """The tags of this repository whose last answer was this digest, in alphabetical order. Raises Unavailable.

        Of answers to who takes everything: what others get has its name by the index that lists it.
        """
        statement = select(tags.c.tag).where(
            tags.c.registry == name.registry,
            tags.c.repository == name.repository,
            tags.c.digest == str(digest),
            tags.c.accept == "",
        )
        async with self._database.read() as connection:
            return sorted((await connection.execute(statement)).scalars())

    def _remember(self, name: RepositoryName, tag: str, accept: str, record: TagRecord) -> None:
        self._memory.setdefault((name, tag), {})[accept] = record
