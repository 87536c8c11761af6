"""The publish queue: what the mirror puts in and publishers take out, shared by processes and servers through the state database.

A job is an image manifest with all names that wait for it. It is claimed under a lease; a lease that runs out makes it claimable
again, so that a publisher may die at any time. All changes of jobs run one after the other (`mirror.jobs.change`); so a job
has one owner at most, and what an owner reports is checked against its lease in the same transaction.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from sqlalchemy import and_, exists, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from mirror.jobs import intake
from mirror.jobs.change import Change, is_of
from mirror.jobs.model import Job, Leftover, PlatformName, Publication, PublishRequest, State
from mirror.jobs.naming import drop_outdated_platforms, publish_name
from mirror.jobs.notes import NO_NOTES, Notes
from mirror.jobs.packed_layers import PackedCopy, add_packed_layers
from mirror.jobs.retry import RetryPolicy
from mirror.oci.digest import Digest
from mirror.oci.platform import Platform
from mirror.oci.reference import ImageReference, RepositoryName
from mirror.state.engine import Database
from mirror.state.schema import images, layers, leftovers, names

_LOOKED_AT = 100
"""Names in one question: databases bound the depth of a condition, and an image may have thousands of tags."""
_POLL_SECONDS = 0.08
"""How often a waiting publisher looks for work: one look-up in an index each time, below two hundredths of a core in all."""


@dataclass(frozen=True, slots=True)
class HeldLayer:
    """A layer that a CVMFS repository holds unpacked: digest and size of its blob as in the manifest, entries in its tree."""

    digest: Digest
    size: int
    entries: int
    notes: Notes = NO_NOTES
    packed: str = ""
    """Path below the repository's root of the object that is the blob, if the repository has that as well."""


class Queue:
    """Publish jobs. Every method raises Unavailable when the state database cannot be reached."""

    def __init__(
        self,
        database: Database,
        *,
        policy: RetryPolicy | None = None,
        clock: Callable[[], float] = time.time,
        luck: Callable[[], float] = random.random,
    ) -> None:
        """clock: Unix seconds. luck: a random number from 0 to 1, for the jitter of pauses."""
        self._database = database
        self._policy = policy if policy is not None else RetryPolicy()
        self._clock = clock
        self._luck = luck

    async def enqueue(self, request: PublishRequest) -> bool:
        """Ask for an image to be published under a name; whether that changed anything. Durable when it returns.

        Asking again is free: a published name stays, a failed image keeps its next try, a refused one its refusal for a while.
        """
        return bool(await self.enqueue_all([request]))

    async def enqueue_all(
        self, requests: Sequence[PublishRequest], gone: Collection[tuple[ImageReference, Platform | None]] = ()
    ) -> list[PublishRequest]:
        """The same for all that follows from one pull, at once; those that changed anything.

        gone: names, some for a platform, that stand for nothing any more: they are forgotten, and their links removed.
        """
        return await intake.enqueue(self._database, requests, gone, self._policy, self._clock())

    async def note_artifact(self, names: Collection[ImageReference], manifest: Digest, reason: str) -> bool:
        """Note that these names stand for something that is no image, and never to be published; whether that is new."""
        return await intake.note_artifact(self._database, names, manifest, reason, self._clock())

    async def hasten(self, manifests: Collection[Digest]) -> None:
        """Try those of the images that failed again at once, whenever the next try is due: somebody waits for them."""
        digests = [str(manifest) for manifest in manifests]
        failed = select(images.c.manifest_digest).where(
            images.c.manifest_digest.in_(digests), images.c.state == State.FAILED.value
        )
        async with Change.begin(self._database, self._clock()) as change:
            found = list((await change.connection.execute(failed)).scalars())
            await change.set_state(found, State.QUEUED, reason=None, attempts=0, ready_at=change.now)

    async def wait(self, timeout: float) -> bool:  # noqa: ASYNC109 - waiting in vain is an answer, not a failure
        """Return True as soon as there is a job to claim, False after so many seconds without any."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        async with self._database.read() as connection:
            while not await self._has_ready(connection):
                left = end - loop.time()
                if left <= 0:
                    return False
                await asyncio.sleep(min(_POLL_SECONDS, left))
        return True

    async def claim(self, owner: str, limit: int, lease_seconds: float) -> list[Job]:
        """Take up to `limit` jobs, those that have waited longest first; each is `fetching`, and the owner's for that long.

        owner: a name that no other living publisher uses.
        """
        async with self._database.read() as connection:
            if not await self._has_ready(connection):
                return []
        now = self._clock()
        async with Change.begin(self._database, now) as change:
            rows = await _ready(change, limit)
            waiting = await change.waiting_names([row.manifest_digest for row in rows])
            jobs: list[Job] = []
            for row in rows:
                requests = waiting.get(row.manifest_digest)
                if requests is None:
                    # The name for which it was queued again has moved on to another image meanwhile.
                    await change.set_state([row.manifest_digest], State.PUBLISHED, lease_owner=None, ready_at=None)
                elif State(row.state).is_running and self._policy.gives_up_on_lease(row.attempts):
                    await self._fail(change, row.manifest_digest, row.attempts, _dead_publisher(row))
                else:
                    jobs.append(_job(row, requests))
            await change.set_state(
                [str(job.manifest) for job in jobs],
                State.FETCHING,
                reason=None,
                attempts=images.c.attempts + 1,
                lease_owner=owner,
                ready_at=now + lease_seconds,
            )
        return jobs

    async def renew(self, owner: str, manifests: Collection[Digest], lease_seconds: float) -> frozenset[Digest]:
        """Prolong the leases from now on; returns those that are lost, on which work must stop."""
        statement = (
            update(images)
            .where(images.c.manifest_digest.in_([str(manifest) for manifest in manifests]), images.c.lease_owner == owner)
            .values(ready_at=self._clock() + lease_seconds)
            .returning(images.c.manifest_digest)
        )
        async with Change.begin(self._database, self._clock()) as change:
            kept = frozenset((await change.connection.execute(statement)).scalars())
        return frozenset(manifest for manifest in manifests if str(manifest) not in kept)

    async def advance(self, owner: str, manifests: Collection[Digest], state: State) -> None:
        """Show that the images are at another step of the work. Raises LeaseExpired, changing nothing."""
        if not state.is_running:
            raise ValueError(f"'{state}' is not a step of the work")
        digests = [str(manifest) for manifest in manifests]
        async with Change.begin(self._database, self._clock()) as change:
            await change.check_owner(owner, digests)
            await change.set_state(digests, state)

    async def published(
        self,
        owner: str,
        manifest: Digest,
        fqrn: str,
        publications: Mapping[ImageReference, Publication],
        held: Iterable[HeldLayer],
        *,
        revision: int = 0,
        notes: Notes = NO_NOTES,
        platforms: Mapping[PlatformName, Publication] = MappingProxyType({}),
    ) -> None:
        """The image is readable in the CVMFS repository under these names. Raises LeaseExpired, changing nothing.

        Call it in the order of the commits. held: the image's layers; revision: the one that has them.
        notes: on the whole of it. platforms: the links for platforms, also those that nobody had asked for. Names that were asked
        for meanwhile make it a job again. A name that meanwhile moved to another image leads to this one now; that other image
        becomes a job again, too.
        """
        digest = str(manifest)
        async with Change.begin(self._database, self._clock()) as change:
            await change.check_owner(owner, [digest])
            await self._add_layers(change, fqrn, held, revision)
            for image, publication in publications.items():
                await publish_name(change, image, None, digest, publication)
            for name, publication in platforms.items():
                await publish_name(change, name.image, name.platform, digest, publication)
            for image in publications:
                await drop_outdated_platforms(change, image, digest)
            await change.set_state(
                [digest],
                State.PUBLISHED,
                reason=None,
                attempts=0,
                lease_owner=None,
                ready_at=None,
                fqrn=fqrn,
                notes=notes.as_json(),
            )
            if await change.waiting_names([digest]):
                await change.set_state([digest], State.QUEUED, ready_at=change.now)

    async def refused(self, owner: str, manifest: Digest, reason: str) -> None:
        """The image cannot or must not be published, whenever it is tried. Raises LeaseExpired, changing nothing."""
        digest = str(manifest)
        async with Change.begin(self._database, self._clock()) as change:
            await change.check_owner(owner, [digest])
            await change.set_state([digest], State.REFUSED, reason=reason, lease_owner=None, ready_at=None)

    async def not_an_image(self, owner: str, manifest: Digest, reason: str) -> None:
        """It turned out that this is no image, and so never to be published. Raises LeaseExpired, changing nothing."""
        digest = str(manifest)
        async with Change.begin(self._database, self._clock()) as change:
            await change.check_owner(owner, [digest])
            await change.set_state([digest], State.NOT_AN_IMAGE, reason=reason, lease_owner=None, ready_at=None)

    async def link_places(self, wanted: Collection[ImageReference]) -> frozenset[str]:
        """The CVMFS repositories that have public links of these names, for whatever platform; of many, some are looked at."""
        some = sorted(wanted, key=str)[:_LOOKED_AT]
        any_of_them = or_(*(and_(*is_of(image)) for image in some))
        statement = select(names.c.link_fqrn).where(any_of_them, names.c.link_fqrn.is_not(None))
        async with self._database.read() as connection:
            return frozenset((await connection.execute(statement.distinct())).scalars())

    async def leftovers(self, fqrns: Collection[str], limit: int) -> list[Leftover]:
        """Links of these CVMFS repositories that are to be removed, oldest first."""
        statement = (
            select(leftovers.c.fqrn, leftovers.c.path)
            .where(leftovers.c.fqrn.in_(fqrns))
            .order_by(leftovers.c.since, leftovers.c.path)
            .limit(limit)
        )
        async with self._database.read() as connection:
            return [Leftover(row.fqrn, row.path) for row in await connection.execute(statement)]

    async def removed(self, gone: Collection[Leftover]) -> None:
        """The links are removed."""
        async with Change.begin(self._database, self._clock()) as change:
            await change.delete_leftovers(gone)

    async def refuse_names(self, owner: str, manifest: Digest, refused: Mapping[PublishRequest, str]) -> None:
        """Let these names of the image not be published, each for its reason; other names of it may be.

        A pull after the pause of refused images has them judged again. If no name is left that waits, the work on the image is
        over, and so is the lease. Raises LeaseExpired, changing nothing.
        """
        async with Change.begin(self._database, self._clock()) as change:
            await change.check_owner(owner, [str(manifest)])
            for request, reason in refused.items():
                await change.update_name(request.image, request.platform, refusal=reason, refused_at=change.now)
            if not await change.waiting_names([str(manifest)]):
                await change.set_state([str(manifest)], State.REFUSED, reason=None, lease_owner=None, ready_at=None)

    async def failed(self, owner: str, manifest: Digest, reason: str, retry_after: float | None = None) -> float | None:
        """This try failed. Returns when the next one is due (Unix seconds), None if only another pull brings it.

        retry_after: seconds that the upstream asked to wait. Raises LeaseExpired, changing nothing.
        """
        digest = str(manifest)
        attempts = select(images.c.attempts).where(images.c.manifest_digest == digest)
        async with Change.begin(self._database, self._clock()) as change:
            await change.check_owner(owner, [digest])
            tries = (await change.connection.execute(attempts)).scalar_one()
            return await self._fail(change, digest, tries, reason, retry_after)

    async def release(self, owner: str) -> int:
        """Give back all jobs of this owner, which stops in good order, as if they had not been claimed; their number."""
        mine = select(images.c.manifest_digest).where(images.c.lease_owner == owner)
        async with Change.begin(self._database, self._clock()) as change:
            digests = list((await change.connection.execute(mine)).scalars())
            attempts = images.c.attempts - 1
            await change.set_state(digests, State.QUEUED, attempts=attempts, lease_owner=None, ready_at=change.now)
        return len(digests)

    async def recover(self, owner: str) -> int:
        """End the leases that a dead publisher of this name has left; their number.

        For a publisher that starts under the name of its predecessor and knows that it is dead: no waiting for the leases' end.
        """
        statement = update(images).where(images.c.lease_owner == owner).values(ready_at=self._clock())
        async with Change.begin(self._database, self._clock()) as change:
            return (await change.connection.execute(statement)).rowcount

    async def _has_ready(self, connection: AsyncConnection) -> bool:
        statement = select(exists().where(images.c.ready_at <= self._clock()))
        return bool((await connection.execute(statement)).scalar_one())

    async def _add_layers(self, change: Change, fqrn: str, held: Iterable[HeldLayer], revision: int) -> None:
        held = list(held)
        rows = [
            {
                "fqrn": fqrn,
                "digest": str(layer.digest),
                "size": layer.size,
                "entries": layer.entries,
                "notes": layer.notes.as_json(),
            }
            for layer in held
        ]
        if rows:
            await change.connection.execute(self._database.insert(layers).on_conflict_do_nothing(), rows)
        packed = [PackedCopy(layer.digest, fqrn, layer.packed, layer.size, revision) for layer in held if layer.packed]
        await add_packed_layers(self._database, change.connection, packed)

    async def _fail(
        self, change: Change, digest: str, attempts: int, reason: str, retry_after: float | None = None
    ) -> float | None:
        pause = self._policy.pause(attempts, self._luck(), retry_after)
        next_try = change.now + pause if pause is not None else None
        await change.set_state([digest], State.FAILED, reason=reason, lease_owner=None, ready_at=next_try)
        return next_try


async def _ready(change: Change, limit: int) -> list[Any]:
    statement = (
        select(
            images.c.manifest_digest,
            images.c.state,
            images.c.attempts,
            images.c.source_registry,
            images.c.source_repository,
            images.c.fqrn,
        )
        .where(images.c.ready_at <= change.now)
        .order_by(images.c.ready_at, images.c.manifest_digest)
        .limit(limit)
    )
    return list(await change.connection.execute(statement))


def _job(row: Any, requests: Iterable[PublishRequest]) -> Job:
    return Job(
        manifest=Digest.parse(row.manifest_digest),
        source=RepositoryName(row.source_registry, row.source_repository),
        requests=tuple(requests),
        attempts=row.attempts + 1,
        fqrn=row.fqrn,
    )


def _dead_publisher(row: Any) -> str:
    return f"the publisher died or hung while this image was {row.state} (try {row.attempts})"
