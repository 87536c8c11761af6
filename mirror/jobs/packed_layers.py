"""Layers whose blobs CVMFS repositories hold as objects of their own, byte for byte: where a client can be sent for them.

Publishers write it down with the publication that has the object, and take it back with the removal of the layer. Two counters,
in the order of the transactions that raise them, say what changed: one is left in the rows that came, the other counts removals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cachetools import LRUCache
from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.elements import ColumnElement

from mirror.errors import Unavailable
from mirror.jobs.following import Follower
from mirror.oci.digest import Digest
from mirror.state.engine import Database
from mirror.state.schema import counters, packed_layers

_CAME, _WENT = "packed_layers", "packed_layers_gone"


@dataclass(frozen=True, slots=True)
class PackedCopy:
    """A blob in a CVMFS repository."""

    digest: Digest
    fqrn: str
    object: str
    """Path below the repository's root."""
    size: int
    revision: int
    """The first revision that has it."""


@dataclass(frozen=True, slots=True)
class PackedChanges:
    """What changed since some time."""

    came: int
    """From where to look for what came the next time."""
    went: int
    """Another number than before if anything went."""
    digests: frozenset[Digest]
    """Layers of which copies came."""


class PackedLayers:
    """What the state database knows of them. Every method raises Unavailable when it cannot be reached."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def copies(self, digest: Digest) -> tuple[PackedCopy, ...]:
        """All copies of a layer's blob, by repository."""
        statement = select(packed_layers).where(packed_layers.c.digest == str(digest)).order_by(packed_layers.c.fqrn)
        async with self._database.read() as connection:
            rows = (await connection.execute(statement)).all()
        return tuple(PackedCopy(digest, row.fqrn, row.object, row.size, row.revision) for row in rows)

    async def changes(self, since: int | None) -> PackedChanges:
        """What changed after `since`, a number that this gave as `came`; None: only where to begin."""
        counted = select(counters.c.name, counters.c.value).where(counters.c.name.in_([_CAME, _WENT]))
        fresh = select(packed_layers.c.digest).where(packed_layers.c.serial > (since or 0)).distinct()
        async with self._database.read() as connection:
            values = {row.name: row.value for row in await connection.execute(counted)}
            # Read after the counter: what came between the two is only seen twice.
            changed = since is not None and since != values[_CAME]
            texts = list((await connection.execute(fresh)).scalars()) if changed else []
            return PackedChanges(values[_CAME], values[_WENT], frozenset(Digest.parse(text) for text in texts))

    async def roll_back(self, fqrn: str, revision: int) -> None:
        """The repository is as it was in this revision: what came later is not in it any more."""
        async with self._database.write() as connection:
            await remove_packed_layers(connection, fqrn, packed_layers.c.revision > revision)


class PackedIndex(Follower):
    """Bounded memory in front of `PackedLayers`: a warm answer takes no SQL."""

    def __init__(self, layers: PackedLayers, *, remembered: int, interval: float = 1.0) -> None:
        """remembered: layers of which it is known whether there are copies. interval: seconds between two looks for changes."""
        super().__init__("packed_layers", interval)
        self._layers = layers
        self._memory: LRUCache[Digest, tuple[PackedCopy, ...]] = LRUCache(remembered)
        # Up to where changes were seen. Without it nothing may be remembered, for nobody would drop it.
        self._seen: PackedChanges | None = None

    async def find(self, digest: Digest) -> tuple[PackedCopy, ...]:
        """Copies of a layer's blob; never fails, but knows of none but those remembered while the database is away."""
        known = self._memory.get(digest)
        if known is not None:
            return known
        before = self._seen
        try:
            copies = await self._layers.copies(digest)
        except Unavailable:
            return ()
        # If a change was seen meanwhile, this answer may be older than what was dropped.
        if before is not None and before is self._seen:
            self._memory[digest] = copies
        return copies

    async def _follow(self) -> None:
        seen = self._seen
        changes = await self._layers.changes(seen.came if seen else None)
        if seen is not None and (changes.came, changes.went) == (seen.came, seen.went):
            return
        self._seen = changes
        if seen is None or changes.went != seen.went:
            self._memory.clear()
        for digest in changes.digests:
            self._memory.pop(digest, None)


async def add_packed_layers(database: Database, connection: AsyncConnection, copies: Sequence[PackedCopy]) -> None:
    """Write down copies that a revision has, in the transaction of the publication; those that are known stay as they are."""
    if not copies:
        return
    serial = await _raise(connection, _CAME)
    rows = [
        {
            "fqrn": copy.fqrn,
            "digest": str(copy.digest),
            "object": copy.object,
            "size": copy.size,
            "revision": copy.revision,
            "serial": serial,
        }
        for copy in copies
    ]
    insert = database.insert(packed_layers)
    changed = {column: insert.excluded[column] for column in ("object", "size", "revision", "serial")}
    statement = insert.on_conflict_do_update(
        index_elements=["fqrn", "digest"], set_=changed, where=packed_layers.c.object != insert.excluded.object
    )
    await connection.execute(statement, rows)


async def remove_packed_layers(connection: AsyncConnection, fqrn: str, which: ColumnElement[bool]) -> None:
    """Take back copies that a repository has no more. which: the condition that selects their rows."""
    gone = await connection.execute(delete(packed_layers).where(packed_layers.c.fqrn == fqrn, which))
    if gone.rowcount:
        await _raise(connection, _WENT)


async def _raise(connection: AsyncConnection, counter: str) -> int:
    raised = update(counters).where(counters.c.name == counter).values(value=counters.c.value + 1).returning(counters.c.value)
    value: int = (await connection.execute(raised)).scalar_one()
    return value
