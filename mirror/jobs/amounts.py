"""How much of an upstream repository was published lately, for limits by the day."""

from __future__ import annotations

from sqlalchemy import and_, func, or_, select, update

from mirror.jobs.model import State
from mirror.oci.digest import Digest
from mirror.oci.reference import RepositoryName
from mirror.state.engine import Database
from mirror.state.schema import images

_RUNNING = [state.value for state in State if state.is_running]


class Amounts:
    """Sizes of images, and what was published when. Every method raises Unavailable when the database cannot be reached."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def note_size(self, manifest: Digest, size: int) -> None:
        """Bytes of all blobs of an image, as its manifest says."""
        statement = update(images).where(images.c.manifest_digest == str(manifest)).values(size=size)
        async with self._database.write() as connection:
            await connection.execute(statement)

    async def before(self, manifest: Digest, source: RepositoryName, since: float) -> list[tuple[float, int]]:
        """Other images of this upstream repository, as time (Unix seconds) and bytes of their blobs.

        Those that were published after `since`; and those that are being published and were begun before this one, so that of
        several that come together exactly the last ones are too many.
        """
        own_turn = select(images.c.fetching_at).where(images.c.manifest_digest == str(manifest)).scalar_subquery()
        earlier = or_(
            images.c.fetching_at < own_turn,
            and_(images.c.fetching_at == own_turn, images.c.manifest_digest < str(manifest)),
        )
        statement = select(
            func.coalesce(images.c.published_at, images.c.fetching_at).label("at"), func.coalesce(images.c.size, 0).label("size")
        ).where(
            images.c.source_registry == source.registry,
            images.c.source_repository == source.repository,
            images.c.manifest_digest != str(manifest),
            or_(images.c.published_at > since, and_(images.c.state.in_(_RUNNING), earlier)),
        )
        async with self._database.read() as connection:
            return [(row.at, row.size) for row in await connection.execute(statement)]
