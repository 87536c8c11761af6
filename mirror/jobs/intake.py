"""How pulls enter the state: one transaction for a pull, and none at all if nothing is new.

Invariants:
- an image manifest has one row, whatever the number of names and pulls;
- a name that waits belongs to an image that is queued, running, failed or refused; when its image is published, so is the name;
- what was requested stays requested (`mirror.jobs.naming`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from mirror.jobs.change import NOT_PUBLISHED, Change, is_name
from mirror.jobs.model import PublishRequest, State
from mirror.jobs.naming import drop_name, set_artifact, set_name
from mirror.jobs.retry import RetryPolicy
from mirror.oci.digest import Digest
from mirror.oci.platform import Platform
from mirror.oci.reference import ImageReference
from mirror.state.engine import Database
from mirror.state.schema import images, names

Name = tuple[ImageReference, Platform | None]

_NOT_STARTED = frozenset({State.QUEUED, State.FAILED, State.REFUSED})


async def enqueue(
    database: Database, requests: Sequence[PublishRequest], gone: Collection[Name], policy: RetryPolicy, now: float
) -> list[PublishRequest]:
    """Note the requests, and forget names that are gone; those requests that changed anything. Raises Unavailable."""
    async with database.read() as connection:
        new = [request for request in requests if not await _is_settled(connection, request, policy, now)]
    if not new and not gone:
        return []
    async with Change.begin(database, now) as change:
        for request in new:
            await change.add_image(request)
            await set_name(change, request)
            row = await _name_and_image(change.connection, request)
            if _queues_again(row, policy, now):
                await _queue_again(change, request)
        for image, platform in gone:
            await drop_name(change, image, platform)
    return new


async def note_artifact(database: Database, names: Collection[ImageReference], manifest: Digest, reason: str, now: float) -> bool:
    """Note that these names stand for what is no image; whether that is new. Raises Unavailable."""
    requests = [PublishRequest(image, manifest, manifest) for image in names]
    async with database.read() as connection:
        new = [request for request in requests if not await _is_artifact(connection, request)]
    if not new:
        return False
    async with Change.begin(database, now) as change:
        for request in new:
            await change.add_artifact(request, reason)
            await set_artifact(change, request.image, manifest)
            row = await _name_and_image(change.connection, request)
            if State(row.state) in _NOT_STARTED:
                await change.set_state([str(manifest)], State.NOT_AN_IMAGE, reason=reason, ready_at=None)
    return True


async def _is_settled(connection: AsyncConnection, request: PublishRequest, policy: RetryPolicy, now: float) -> bool:
    row = await _name_and_image(connection, request)
    return row is not None and _leads_there(row, request) and not _queues_again(row, policy, now)


async def _is_artifact(connection: AsyncConnection, request: PublishRequest) -> bool:
    row = await _name_and_image(connection, request)
    return row is not None and _leads_there(row, request) and State(row.state) not in _NOT_STARTED


async def _name_and_image(connection: AsyncConnection, request: PublishRequest) -> Any:
    statement = (
        select(
            names.c.target_digest,
            names.c.manifest_digest,
            names.c.published_at,
            names.c.refused_at,
            images.c.state,
            images.c.reason,
            images.c.ready_at,
            images.c.updated_at,
        )
        .join(images, images.c.manifest_digest == names.c.manifest_digest)
        .where(*is_name(request.image, request.platform))
    )
    return (await connection.execute(statement)).one_or_none()


def _leads_there(row: Any, request: PublishRequest) -> bool:
    return bool(row.target_digest == str(request.target) and row.manifest_digest == str(request.manifest))


def _queues_again(row: Any, policy: RetryPolicy, now: float) -> bool:
    if row.refused_at is not None and now - row.refused_at < policy.refused_pause:
        return False
    if row.state == State.REFUSED.value and row.reason is None and row.refused_at is None:
        # Only other names of the image were refused.
        return True
    return policy.queues_again(
        State(row.state), ready_at=row.ready_at, updated_at=row.updated_at, name_waits=row.published_at is None, now=now
    )


async def _queue_again(change: Change, request: PublishRequest) -> None:
    """Make the image a job again, with this name waiting; fetched from where it was pulled last, which is known to work."""
    await change.update_name(request.image, request.platform, **NOT_PUBLISHED)
    await change.set_state(
        [str(request.manifest)],
        State.QUEUED,
        reason=None,
        attempts=0,
        ready_at=change.now,
        source_registry=request.image.name.registry,
        source_repository=request.image.name.repository,
    )
