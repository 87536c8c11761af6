"""How a publish request enters the state: one transaction, and none at all if nothing is new.

Invariants:
- an image manifest has one row, whatever the number of names and pulls;
- a name that waits belongs to an image that is queued, running, failed or refused; when its image is published, so is the name;
- what was requested stays requested: a tag that moves on before its image was published leaves it a name made of its digest.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from mirror.jobs.change import NOT_PUBLISHED, Change, is_name
from mirror.jobs.model import PublishRequest, State
from mirror.jobs.retry import RetryPolicy
from mirror.oci.digest import Digest
from mirror.oci.reference import ImageReference, Reference
from mirror.state.engine import Database
from mirror.state.schema import images, names


async def enqueue(database: Database, request: PublishRequest, policy: RetryPolicy, now: float) -> bool:
    """Note the request; whether it changed anything. Raises Unavailable."""
    async with database.read() as connection:
        row = await _name_and_image(connection, request.image)
    if row is not None and _leads_there(row, request) and not _queues_again(row, policy, now):
        return False
    async with Change.begin(database, now) as change:
        await change.add_image(request)
        await _set_name(change, request)
        row = await _name_and_image(change.connection, request.image)
        if _queues_again(row, policy, now):
            await _queue_again(change, request)
    return True


async def _name_and_image(connection: AsyncConnection, image: ImageReference) -> Any:
    statement = (
        select(
            names.c.target_digest,
            names.c.manifest_digest,
            names.c.published_at,
            images.c.state,
            images.c.ready_at,
            images.c.updated_at,
        )
        .join(images, images.c.manifest_digest == names.c.manifest_digest)
        .where(*is_name(image))
    )
    return (await connection.execute(statement)).one_or_none()


def _leads_there(row: Any, request: PublishRequest) -> bool:
    return bool(row.target_digest == str(request.target) and row.manifest_digest == str(request.manifest))


def _queues_again(row: Any, policy: RetryPolicy, now: float) -> bool:
    return policy.queues_again(
        State(row.state), ready_at=row.ready_at, updated_at=row.updated_at, name_waits=row.published_at is None, now=now
    )


async def _set_name(change: Change, request: PublishRequest) -> None:
    before = await _name_and_image(change.connection, request.image)
    leads_to = {"target_digest": str(request.target), "manifest_digest": str(request.manifest)}
    if before is None:
        await change.add_name(request)
    elif before.manifest_digest == str(request.manifest):
        # At most another index that lists the same image: a path that is published stays right.
        await change.update_name(request.image, **leads_to)
    else:
        if before.published_at is None:
            left = Digest.parse(before.manifest_digest)
            await change.add_name(PublishRequest(ImageReference(request.image.name, Reference(digest=left)), left, left))
        await change.update_name(request.image, **leads_to, **NOT_PUBLISHED, requested_at=change.now)


async def _queue_again(change: Change, request: PublishRequest) -> None:
    """Make the image a job again, with this name waiting; fetched from where it was pulled last, which is known to work."""
    await change.update_name(request.image, **NOT_PUBLISHED)
    await change.set_state(
        [str(request.manifest)],
        State.QUEUED,
        reason=None,
        attempts=0,
        ready_at=change.now,
        source_registry=request.image.name.registry,
        source_repository=request.image.name.repository,
    )
