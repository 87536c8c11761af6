"""The publisher at work: claims jobs, unpacks images side by side, has them published, and says how it ended.

One bad image never stops the queue: whatever an image's work raises becomes that image's state and reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from time import time

import structlog
from cachetools import LRUCache

from mirror.background import running
from mirror.errors import Denied, IntegrityError, InvalidInput, MirrorError, NotAnImage, Unavailable
from mirror.jobs.leases import LeaseExpired
from mirror.jobs.model import Job, Publication, State
from mirror.jobs.queue import HeldLayer, Queue
from mirror.jobs.repositories import Repositories
from mirror.jobs.schedule import Candidate, choose
from mirror.oci.digest import Digest
from mirror.oci.manifest import ImageManifest
from mirror.oci.reference import ImageReference
from publisher.admission import Admission
from publisher.audit import Act, AuditLog
from publisher.disk import DiskGate
from publisher.errors import AgainstPolicy, BrokenLayer, RepositoryDamaged, UnsafeLayer
from publisher.images import layout
from publisher.images.place import PreparedImage, UnpackedLayer
from publisher.public import PublicContent
from publisher.repository import Revision
from publisher.revisions import RevisionMaker, RevisionSettings, Target

log = structlog.get_logger()

_HOPELESS = (Denied, InvalidInput, IntegrityError, UnsafeLayer, BrokenLayer, AgainstPolicy)
"""What trying again cannot mend; a repository that is damaged can be mended, and is no fault of the image's."""
_REMEMBERED_CHOICES = 1000
_LOOK_SECONDS = 1.0
"""How long one wait for work lasts before it is seen whether to stop."""


@dataclass(frozen=True, slots=True)
class Guards:
    """What images have to pass, and who writes down that they did."""

    admission: Admission
    disk: DiskGate
    audit: AuditLog


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How a publisher works.

    owner: its name, used by no other that lives. images: worked on at the same time. lease: seconds that a job stays claimed
    without a sign of life.
    """

    owner: str
    images: int
    lease: float
    revisions: RevisionSettings


class Worker:
    """Publishes until it is told to stop."""

    def __init__(
        self,
        queue: Queue,
        repositories: Repositories,
        content: PublicContent,
        targets: Mapping[str, Target],
        settings: WorkerSettings,
        *,
        guards: Guards,
        on_revision: Callable[[str], None] = lambda _: None,
    ) -> None:
        """targets: by fqrn. on_revision: told the fqrn of each repository in which a revision was published."""
        self._queue = queue
        self._content = content
        self._repositories = repositories
        self._targets = targets
        self._settings = settings
        self._guards = guards
        # Images for several platforms of one name are under way at the same time.
        self._chosen: LRUCache[ImageReference, str] = LRUCache(_REMEMBERED_CHOICES)
        self._makers = {
            fqrn: RevisionMaker(target, queue, repositories, settings.revisions, owner=settings.owner, on_revision=on_revision)
            for fqrn, target in targets.items()
        }
        self._running: dict[Digest, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(settings.images)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; then jobs that are under way are given back. Raises Unavailable if it cannot begin."""
        returned = await self._queue.recover(self._settings.owner)
        log.info("publisher_ready", repositories=sorted(self._targets), taken_over=returned)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._give_back)
            for fqrn, target in self._targets.items():
                await target.lease.acquire()
                await stack.enter_async_context(running(f"lease of {fqrn}", target.lease.keep))
                await stack.enter_async_context(running(f"commits of {fqrn}", self._makers[fqrn].run))
                await stack.enter_async_context(running(f"leftovers of {fqrn}", self._makers[fqrn].tidy))
            await stack.enter_async_context(running("signs of life", self._renew))
            await stack.enter_async_context(running("claims", self._claim))
            await stop.wait()
            log.info("publisher_stopping", under_way=len(self._running))
            await self._abandon()

    def is_busy(self, manifest: Digest) -> bool:
        """Whether this image is being published."""
        return manifest in self._running

    async def _claim(self) -> None:
        """Take jobs as long as there is room for more images."""
        while True:
            await self._slots.acquire()
            jobs: list[Job] = []
            try:
                has_lease = any(target.lease.is_held for target in self._targets.values())
                if not has_lease or self._guards.disk.reason is not None:
                    await asyncio.sleep(_LOOK_SECONDS)
                elif await self._queue.wait(_LOOK_SECONDS):
                    jobs = await self._queue.claim(self._settings.owner, 1, self._settings.lease)
            finally:
                if not jobs:
                    self._slots.release()
            for job in jobs:
                self._running[job.manifest] = asyncio.create_task(self._publish(job))

    async def _publish(self, job: Job) -> None:
        """One image from its claim to its end, whatever that is."""
        names = [str(request.image) for request in job.requests]
        with structlog.contextvars.bound_contextvars(job_id=str(job.manifest), images=names):
            try:
                await self._settle(job)
            except LeaseExpired as error:
                log.warning("image_given_up", reason=str(error))
            except MirrorError as error:
                log.warning("image_end_not_recorded", reason=str(error), mend="its lease runs out, then it is done again")
            finally:
                del self._running[job.manifest]
                self._slots.release()

    async def _settle(self, job: Job) -> None:
        owner = self._settings.owner
        try:
            await self._bring(job)
        except LeaseExpired:
            raise
        except NotAnImage as error:
            log.warning("not_an_image", reason=str(error))
            await self._queue.not_an_image(owner, job.manifest, str(error))
        except MirrorError as error:
            if isinstance(error, _HOPELESS) and not isinstance(error, RepositoryDamaged):
                log.warning("image_refused", reason=str(error))
                await self._queue.refused(owner, job.manifest, str(error))
                return
            retry_after = error.retry_after if isinstance(error, Unavailable) else None
            due = await self._queue.failed(owner, job.manifest, str(error), retry_after)
            log.warning("image_failed", reason=str(error), attempt=job.attempts, next_try=due)
        except Exception as error:
            log.exception("image_failed_unexpectedly", attempt=job.attempts)
            await self._queue.failed(owner, job.manifest, f"unexpected failure of the publisher: {error!r}")

    async def _bring(self, job: Job) -> None:
        """Get the image into a repository, and record where it is."""
        started = time()
        admission = self._guards.admission
        admitted = await admission.admit(job)
        if admitted is None:
            return
        public = await self._content.manifest(admitted.source, job.manifest)
        admitted = await admission.show_names(admitted, self._content)
        if admitted is None:
            return
        job = admitted
        await admission.weigh(job, public.manifest)
        target = await self._choose(job, public.manifest)
        fqrn = target.stratum0.fqrn

        async def on_state(state: State) -> None:
            await self._queue.advance(self._settings.owner, [job.manifest], state)

        image = await target.unpacker.prepare(job, public, on_state, admission.measure())
        names = {name: _path(fqrn, layout.public_link(name)) for name in image.names}
        platforms = {name: _path(fqrn, layout.platform_link(name)) for name in image.platforms}
        held = [_held(layer) for layer in image.layers]
        with self._makers[fqrn].spared([*names.values(), *platforms.values()]):
            revision = await self._makers[fqrn].publish(image)
            await asyncio.to_thread(self._note_published, job, image, fqrn, revision)
            await self._queue.published(
                self._settings.owner,
                job.manifest,
                fqrn,
                {name: Publication(fqrn, path, revision.revision) for name, path in names.items()},
                held,
                revision=revision.revision,
                notes=image.notes,
                platforms={name: Publication(fqrn, path, revision.revision) for name, path in platforms.items()},
            )
        log.info("image_published", fqrn=fqrn, revision=revision.revision, seconds=round(time() - started, 3))

    def _note_published(self, job: Job, image: PreparedImage, fqrn: str, revision: Revision) -> None:
        """Blocking. Raises Unavailable."""
        self._guards.audit.record(
            Act.PUBLISHED,
            fqrn=fqrn,
            revision=revision.revision,
            source=str(job.source),
            manifest=str(image.digest),
            config=str(image.config),
            layers=[str(layer.digest) for layer in image.manifest.layers],
            names=[str(name) for name in image.names],
            platforms=[f"{name.image} {name.platform}" for name in image.platforms],
            is_new=job.fqrn is None,
        )

    async def _choose(self, job: Job, manifest: ImageManifest) -> Target:
        """The repository that holds the image already, or else that the scheduler prefers. Raises Unavailable."""
        if job.fqrn is not None and job.fqrn in self._targets:
            return self._targets[job.fqrn]
        held = await self._repositories.held_bytes([layer.digest for layer in manifest.layers])
        names = {request.image for request in job.requests}
        named = await self._queue.link_places(names) | {self._chosen[name] for name in names if name in self._chosen}
        candidates = [
            Candidate(
                facts.fqrn,
                facts.state,
                held.get(facts.fqrn, 0),
                facts.stored_bytes,
                away=not self._targets[facts.fqrn].lease.is_held,
                named=facts.fqrn in named,
            )
            for facts in await self._repositories.all()
            if facts.fqrn in self._targets
        ]
        chosen = choose(candidates)
        if chosen is None:
            raise Unavailable("no repository takes images now: each is being cleaned, full, or written by another publisher")
        self._chosen.update(dict.fromkeys(names, chosen))
        return self._targets[chosen]

    async def _renew(self) -> None:
        """Show that the claimed images are being worked on; stop work on those that somebody else has claimed."""
        while True:
            await asyncio.sleep(self._settings.lease / 3)
            lost = (
                await self._queue.renew(self._settings.owner, list(self._running), self._settings.lease) if self._running else ()
            )
            for manifest in lost:
                if manifest in self._running:
                    log.warning("image_lease_lost", job_id=str(manifest))
                    self._running[manifest].cancel()

    async def _abandon(self) -> None:
        """Stop work that is under way; what is stored by now is found again by the next try."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _give_back(self) -> None:
        """Let others, or the next process, go on at once instead of waiting for leases to run out."""
        try:
            await self._queue.release(self._settings.owner)
            for target in self._targets.values():
                await target.lease.release()
        except Unavailable as error:
            log.warning("leases_not_released", reason=str(error))


def _held(layer: UnpackedLayer) -> HeldLayer:
    packed = "" if layer.packed is None else layer.packed.object
    return HeldLayer(layer.descriptor.digest, layer.descriptor.size, layer.entries, layer.notes, packed)


def _path(fqrn: str, link: bytes) -> str:
    return f"/cvmfs/{fqrn}/{link.decode('ascii')}"
