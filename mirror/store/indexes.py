"""What indexes list, kept in the state database: so that an image that is pulled by its digest is known to belong to a tag.

These are facts about content, the same in every repository, and never change.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cachetools import LRUCache
from sqlalchemy import select

from mirror.errors import InvalidInput
from mirror.oci.digest import Digest
from mirror.oci.manifest import Descriptor
from mirror.oci.platform import UNKNOWN, Platform
from mirror.state.engine import Database
from mirror.state.schema import index_children

_LONGEST_PLATFORM = 100


class Indexes:
    """Image manifests by the index that lists them. Every method raises Unavailable if the database cannot be reached."""

    def __init__(self, database: Database, *, remembered: int = 10_000) -> None:
        """remembered: how many indexes are known to be stored without looking."""
        self._database = database
        self._stored: LRUCache[Digest, bool] = LRUCache(remembered)

    async def add(self, index: Digest, children: Sequence[Descriptor]) -> None:
        """Note what an index lists, in its order; those of indexes in it too. Doing it again costs nothing."""
        if index in self._stored:
            return
        rows = [_row(index, position, child) for position, child in enumerate(children)]
        if rows:
            async with self._database.write() as connection:
                await connection.execute(self._database.insert(index_children).on_conflict_do_nothing(), rows)
        self._stored[index] = True

    async def children(self, index: Digest) -> list[Descriptor]:
        """What the index lists; nothing if it was never seen."""
        statement = select(index_children).where(index_children.c.index_digest == str(index)).order_by(index_children.c.position)
        async with self._database.read() as connection:
            return [_descriptor(row) for row in await connection.execute(statement)]

    async def listing(self, manifest: Digest, limit: int = 100) -> list[Digest]:
        """Indexes that list this manifest, `limit` at the most."""
        statement = (
            select(index_children.c.index_digest)
            .where(index_children.c.manifest_digest == str(manifest))
            .distinct()
            .order_by(index_children.c.index_digest)
            .limit(limit)
        )
        async with self._database.read() as connection:
            return [Digest.parse(text) for text in (await connection.execute(statement)).scalars()]


def _row(index: Digest, position: int, child: Descriptor) -> dict[str, str | int]:
    return {
        "index_digest": str(index),
        "position": position,
        "manifest_digest": str(child.digest),
        "media_type": child.media_type,
        "size": child.size,
        "platform": _platform_text(child),
    }


def _platform_text(child: Descriptor) -> str:
    """An artifact is for no machine; what could not be read back is not stated."""
    platform = Platform(UNKNOWN, UNKNOWN) if child.artifact_type else child.platform
    text = "" if platform is None else str(platform)
    if len(text) > _LONGEST_PLATFORM or not text.isascii() or not text.isprintable():
        return ""
    try:
        return text if Platform.parse(text) == platform else ""
    except InvalidInput:
        return ""


def _descriptor(row: Any) -> Descriptor:
    platform = Platform.parse(row.platform) if row.platform else None
    return Descriptor(row.media_type, Digest.parse(row.manifest_digest), row.size, platform)
