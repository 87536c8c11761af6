"""What was taken down: it is not published again, and leaves the repositories that have it.

A block and the requests to remove the image are one transaction: from then on no pull is told a path, and whoever works on the
image has lost its lease.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, or_, select, update

from mirror.jobs.change import NOT_PUBLISHED, Change, is_of
from mirror.jobs.model import State
from mirror.oci.digest import Digest
from mirror.oci.reference import ImageReference
from mirror.state.engine import Database
from mirror.state.schema import blocks, images, index_children, names, removals, repositories


@dataclass(frozen=True, slots=True)
class Block:
    """A digest that is not published; `at` in Unix seconds.

    digest: of an image manifest, or of an index. image: the name under which it was taken down, as the operator wrote it.
    """

    digest: Digest
    image: str
    reason: str
    by: str
    at: float

    @property
    def for_users(self) -> str:
        """What somebody who pulls the image is told."""
        return f"this mirror's operator took it down: {self.reason}; ask there, or choose another image"


class Blocks:
    """All take-downs. Every method raises Unavailable when the state database cannot be reached."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        """clock: Unix seconds."""
        self._database = database
        self._clock = clock

    async def leading_from(self, image: ImageReference) -> list[Digest]:
        """Digests that a name stands for: what it resolved to, and image manifests of all platforms. Empty if unknown.

        The digest of an image's manifest stands for that image only, even where an index lists it.
        """
        digest = image.reference.digest
        wanted = (
            is_of(image)
            if digest is None
            else (or_(names.c.target_digest == str(digest), names.c.manifest_digest == str(digest)),)
        )
        statement = select(names.c.manifest_digest, names.c.target_digest).where(*wanted)
        async with self._database.read() as connection:
            rows = (await connection.execute(statement)).all()
            if digest is not None and any(row.manifest_digest == str(digest) for row in rows):
                return [digest]
            targets = [row.target_digest for row in rows]
            listed = select(index_children.c.manifest_digest).where(index_children.c.index_digest.in_([*targets, str(digest)]))
            children = (await connection.execute(listed.order_by(index_children.c.position))).scalars().all()
        found = dict.fromkeys([*(row.manifest_digest for row in rows), *targets, *children])
        return [Digest.parse(text) for text in found]

    async def add(self, digests: Collection[Digest], image: ImageReference, reason: str, by: str) -> list[Block]:
        """Block the digests, and ask for what is published of them to be removed everywhere. A block that is there stays."""
        texts = [str(digest) for digest in digests]
        async with Change.begin(self._database, self._clock()) as change:
            new = [Block(digest, str(image), reason, by, change.now) for digest in digests]
            rows = [
                {
                    "digest": str(block.digest),
                    "image": block.image,
                    "reason": block.reason,
                    "blocked_by": by,
                    "blocked_at": block.at,
                }
                for block in new
            ]
            connection = change.connection
            await connection.execute(self._database.insert(blocks).on_conflict_do_nothing(), rows)
            found = (
                await connection.execute(select(images.c.manifest_digest).where(images.c.manifest_digest.in_(texts)))
            ).scalars()
            known = list(found)
            theirs = names.c.manifest_digest.in_(known)
            linked = update(names).where(theirs, names.c.published_at.is_not(None))
            await connection.execute(linked.values(link_fqrn=None, link_path=None))
            await connection.execute(update(names).where(theirs).values(**NOT_PUBLISHED))
            told = new[0].for_users if new else None
            await change.set_state(known, State.REFUSED, reason=told, lease_owner=None, ready_at=None)
            places = list((await connection.execute(select(repositories.c.fqrn))).scalars())
            wanted = [
                {"fqrn": fqrn, "manifest_digest": text, "reason": reason, "requested_by": by, "requested_at": change.now}
                for fqrn in places
                for text in known
            ]
            if wanted:
                await connection.execute(self._database.insert(removals).on_conflict_do_nothing(), wanted)
        return new

    async def lift(self, digest: Digest) -> list[Block]:
        """Undo the take-down that this digest belongs to; the blocks that were lifted. What is known of the images is queued."""
        async with Change.begin(self._database, self._clock()) as change:
            connection = change.connection
            row = (await connection.execute(select(blocks).where(blocks.c.digest == str(digest)))).one_or_none()
            if row is None:
                return []
            together = (blocks.c.image == row.image, blocks.c.blocked_at == row.blocked_at)
            lifted = [_block(each) for each in await connection.execute(select(blocks).where(*together))]
            await connection.execute(delete(blocks).where(*together))
            texts = [str(block.digest) for block in lifted]
            await connection.execute(delete(removals).where(removals.c.manifest_digest.in_(texts)))
            refused = select(images.c.manifest_digest).where(
                images.c.manifest_digest.in_(texts), images.c.state == State.REFUSED.value
            )
            known = list((await connection.execute(refused)).scalars())
            await change.set_state(known, State.QUEUED, reason=None, attempts=0, ready_at=change.now)
        return lifted

    async def all(self) -> list[Block]:
        """Every block, the oldest first."""
        statement = select(blocks).order_by(blocks.c.blocked_at, blocks.c.image, blocks.c.digest)
        async with self._database.read() as connection:
            return [_block(row) for row in await connection.execute(statement)]

    async def among(self, digests: Collection[Digest]) -> dict[Digest, Block]:
        """The blocks of these digests, as far as there are any."""
        statement = select(blocks).where(blocks.c.digest.in_([str(digest) for digest in digests]))
        async with self._database.read() as connection:
            found = [_block(row) for row in await connection.execute(statement)]
        return {block.digest: block for block in found}


def together(found: Sequence[Block]) -> list[list[Block]]:
    """The blocks by the take-down that they belong to."""
    groups: dict[tuple[str, float], list[Block]] = {}
    for block in found:
        groups.setdefault((block.image, block.at), []).append(block)
    return list(groups.values())


def _block(row: Any) -> Block:
    return Block(Digest.parse(row.digest), row.image, row.reason, row.blocked_by, row.blocked_at)
