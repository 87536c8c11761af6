"""When images were last used: what is not used for long expires."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import case, select

from mirror.oci.digest import Digest
from mirror.state.engine import Database
from mirror.state.schema import usage


@dataclass(frozen=True, slots=True)
class Use:
    """Use of an image: the time of the last one (Unix seconds), and how many pulls."""

    last_used: float
    pulls: int


class Usage:
    """Use by image manifest digest. Every method raises Unavailable when the state database cannot be reached."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, uses: Mapping[Digest, Use]) -> None:
        """Add pulls; the last use only moves forward."""
        rows = [
            {"manifest_digest": str(digest), "last_used": use.last_used, "pulls": use.pulls}
            for digest, use in sorted(uses.items(), key=lambda item: str(item[0]))
        ]
        if not rows:
            return
        insert = self._database.insert(usage)
        newer = case(
            (insert.excluded.last_used > usage.c.last_used, insert.excluded.last_used),
            else_=usage.c.last_used,
        )
        statement = insert.on_conflict_do_update(
            index_elements=["manifest_digest"], set_={"last_used": newer, "pulls": usage.c.pulls + insert.excluded.pulls}
        )
        async with self._database.write() as connection:
            await connection.execute(statement, rows)

    async def of(self, manifest: Digest) -> Use | None:
        """Use of one image, None if it was never used."""
        statement = select(usage.c.last_used, usage.c.pulls).where(usage.c.manifest_digest == str(manifest))
        async with self._database.read() as connection:
            row = (await connection.execute(statement)).one_or_none()
        return None if row is None else Use(row.last_used, row.pulls)
