"""The one kind of transaction that changes jobs and names.

It first raises a counter and thereby holds it until the commit. So changes run one after the other, on PostgreSQL too, and the
serial that they leave in `names` appears in order: whoever reads serial n has also seen everything below n.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Collection
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.elements import ColumnElement

from mirror.jobs.leases import LeaseExpired
from mirror.jobs.model import Leftover, PublishRequest, State
from mirror.oci.digest import Digest
from mirror.oci.platform import Platform
from mirror.oci.reference import ImageReference, Reference, RepositoryName
from mirror.state.engine import Database
from mirror.state.schema import counters, images, leftovers, names

NOT_PUBLISHED: dict[str, None] = dict.fromkeys(("fqrn", "path", "revision", "published_at", "refusal", "refused_at"))
"""Columns of a name that waits to be published."""


def is_of(image: ImageReference) -> tuple[ColumnElement[bool], ...]:
    """The condition that selects the rows of this name: its own, and those for platforms."""
    return (
        names.c.registry == image.name.registry,
        names.c.repository == image.name.repository,
        names.c.reference == str(image.reference),
    )


def is_name(image: ImageReference, platform: Platform | None = None) -> tuple[ColumnElement[bool], ...]:
    """The condition that selects the row of this name, for a platform in normal form or without any."""
    return (*is_of(image), names.c.platform == platform_text(platform))


def platform_text(platform: Platform | None) -> str:
    """A platform as the rows of names have it."""
    return "" if platform is None else str(platform)


def parse_platform(text: str) -> Platform | None:
    """The reverse."""
    return Platform.parse(text) if text else None


class Change:
    """What a transaction that changes jobs can do; `now` (Unix seconds) is its time."""

    def __init__(self, database: Database, connection: AsyncConnection, serial: int, now: float) -> None:
        self._database = database
        self.connection = connection
        self.serial = serial
        self.now = now

    @classmethod
    @contextlib.asynccontextmanager
    async def begin(cls, database: Database, now: float) -> AsyncIterator[Change]:
        """A transaction, committed when the block ends. Raises Unavailable."""
        raised = update(counters).where(counters.c.name == "names").values(value=counters.c.value + 1).returning(counters.c.value)
        async with database.write() as connection:
            serial: int = (await connection.execute(raised)).scalar_one()
            yield cls(database, connection, serial, now)

    async def set_state(self, digests: Collection[str], state: State, **values: Any) -> None:
        """Bring images to a state, set these columns too, and mark their names as changed."""
        if digests:
            changed = {"state": state.value, "updated_at": self.now, state.column: self.now, **values}
            await self.connection.execute(update(images).where(images.c.manifest_digest.in_(digests)).values(changed))
            await self.connection.execute(update(names).where(names.c.manifest_digest.in_(digests)).values(serial=self.serial))

    async def check_owner(self, owner: str, digests: Collection[str]) -> None:
        """Raise LeaseExpired unless all these images are this owner's."""
        statement = select(func.count()).where(images.c.manifest_digest.in_(digests), images.c.lease_owner == owner)
        if (await self.connection.execute(statement)).scalar_one() != len(digests):
            raise LeaseExpired(f"{owner} has lost the lease of {', '.join(digests)}: another publisher may work on it")

    async def waiting_names(self, digests: Collection[str]) -> dict[str, list[PublishRequest]]:
        """The names of these images that have no public path yet, oldest first; images without such names are left out.

        Names that are refused do not wait.
        """
        statement = (
            select(
                names.c.registry,
                names.c.repository,
                names.c.reference,
                names.c.platform,
                names.c.target_digest,
                names.c.manifest_digest,
            )
            .where(names.c.manifest_digest.in_(digests), names.c.published_at.is_(None), names.c.refusal.is_(None))
            .order_by(names.c.requested_at, names.c.registry, names.c.repository, names.c.reference, names.c.platform)
        )
        waiting: dict[str, list[PublishRequest]] = {}
        for row in await self.connection.execute(statement):
            image = ImageReference(RepositoryName(row.registry, row.repository), Reference.parse(row.reference))
            target, manifest = Digest.parse(row.target_digest), Digest.parse(row.manifest_digest)
            request = PublishRequest(image, target, manifest, parse_platform(row.platform))
            waiting.setdefault(row.manifest_digest, []).append(request)
        return waiting

    async def add_name(self, request: PublishRequest) -> None:
        """Let a name wait for its image, unless there is such a name."""
        row = {
            "registry": request.image.name.registry,
            "repository": request.image.name.repository,
            "reference": str(request.image.reference),
            "platform": platform_text(request.platform),
            "target_digest": str(request.target),
            "manifest_digest": str(request.manifest),
            "requested_at": self.now,
            "serial": self.serial,
        }
        await self.connection.execute(self._database.insert(names).values(row).on_conflict_do_nothing())

    async def add_image(self, request: PublishRequest) -> None:
        """Queue an image, unless it is known."""
        await self._add_image(request, State.QUEUED, ready_at=self.now)

    async def add_artifact(self, request: PublishRequest, reason: str) -> None:
        """Note a manifest that is no image, unless it is known."""
        await self._add_image(request, State.NOT_AN_IMAGE, reason=reason)

    async def _add_image(self, request: PublishRequest, state: State, **values: Any) -> None:
        row = {
            "manifest_digest": str(request.manifest),
            "state": state.value,
            "attempts": 0,
            "source_registry": request.image.name.registry,
            "source_repository": request.image.name.repository,
            "updated_at": self.now,
            state.column: self.now,
            **values,
        }
        await self.connection.execute(self._database.insert(images).values(row).on_conflict_do_nothing())

    async def update_name(self, image: ImageReference, platform: Platform | None = None, **values: Any) -> None:
        """Set columns of a name."""
        await self.connection.execute(update(names).where(*is_name(image, platform)).values(**values, serial=self.serial))

    async def delete_name(self, image: ImageReference, platform: Platform | None) -> None:
        """Forget a name; the other names of its repository are marked as changed, for nobody sees a row that is not there."""
        await self.connection.execute(delete(names).where(*is_name(image, platform)))
        same_repository = (names.c.registry == image.name.registry, names.c.repository == image.name.repository)
        await self.connection.execute(update(names).where(*same_repository).values(serial=self.serial))

    async def add_leftover(self, leftover: Leftover) -> None:
        """Let the writer of the repository remove a link."""
        row = {"fqrn": leftover.fqrn, "path": leftover.path, "since": self.now}
        await self.connection.execute(self._database.insert(leftovers).values(row).on_conflict_do_nothing())

    async def delete_leftovers(self, gone: Collection[Leftover]) -> None:
        """The links are right again, or removed."""
        for leftover in gone:
            statement = delete(leftovers).where(leftovers.c.fqrn == leftover.fqrn, leftovers.c.path == leftover.path)
            await self.connection.execute(statement)
