"""Whether an image may be published, asked when its job is taken and again as its numbers become known."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import structlog

from mirror.errors import Denied, Unavailable
from mirror.jobs.amounts import Amounts
from mirror.jobs.blocks import Blocks
from mirror.jobs.model import Job, PublishRequest
from mirror.jobs.queue import Queue
from mirror.oci.manifest import ImageManifest
from publisher.errors import AgainstPolicy
from publisher.policy.daily import DAY, Published
from publisher.policy.sizes import Measure, compressed_size
from publisher.policy_file import PolicyFile
from publisher.public import PublicContent

log = structlog.get_logger()


class Admission:
    """Asks the policy in force, the take-downs and what was published lately."""

    def __init__(
        self,
        policy: PolicyFile,
        blocks: Blocks,
        amounts: Amounts,
        queue: Queue,
        *,
        owner: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """owner: of the jobs. clock: Unix seconds."""
        self._policy = policy
        self._blocks = blocks
        self._amounts = amounts
        self._queue = queue
        self._owner = owner
        self._clock = clock

    async def admit(self, job: Job) -> Job | None:
        """The job with the names that the policy allows; None if there is none: then the job is over, and its names say why.

        Raises AgainstPolicy if the image was taken down, LeaseExpired, Unavailable.
        """
        blocks = await self._blocks.among([job.manifest, *(request.target for request in job.requests)])
        if job.manifest in blocks:
            raise AgainstPolicy(blocks[job.manifest].for_users)
        policy = self._policy.current
        refused: dict[PublishRequest, str] = {}
        for request in job.requests:
            block = blocks.get(request.target)
            denial = block.for_users if block is not None else policy.denial(request.image)
            if denial is not None:
                refused[request] = denial
        return await self._without(job, refused)

    async def show_names(self, job: Job, content: PublicContent) -> Job | None:
        """The job without names of private repositories, which an image that is public elsewhere must not make public.

        None if there is no other. Raises LeaseExpired, NotFound, Unavailable, IntegrityError.
        """
        refused: dict[PublishRequest, str] = {}
        for name in {request.image.name for request in job.requests} - {job.source}:
            try:
                await content.manifest(name, job.manifest)
            except Denied as error:
                refused |= {request: str(error) for request in job.requests if request.image.name == name}
        return await self._without(job, refused)

    async def weigh(self, job: Job, manifest: ImageManifest) -> None:
        """Look at what the manifest says of the image's size, and whether the day has room for it.

        Raises AgainstPolicy if it is too large; Unavailable, with the time until there is room, if too much was published.
        """
        policy = self._policy.current
        policy.limits.check_manifest(manifest)
        size = compressed_size(manifest)
        await self._amounts.note_size(job.manifest, size)
        if job.fqrn is not None:
            return
        now = self._clock()
        before = await self._amounts.before(job.manifest, job.source, now - DAY)
        wait = policy.daily.wait([Published(at, amount) for at, amount in before], size, now)
        if wait > 0:
            limits = policy.daily
            raise Unavailable(
                f"a day's amount of {job.source} is published ({limits.images} images or {limits.compressed_bytes} bytes in 24 h)"
                "; it is tried again by itself, or this mirror's operator can raise the policy's limits of [daily]",
                retry_after=wait,
            )

    def measure(self) -> Measure:
        """What adds up the layers of one image. It raises AgainstPolicy when they are too much."""
        return Measure(self._policy.current.limits)

    async def _without(self, job: Job, refused: Mapping[PublishRequest, str]) -> Job | None:
        if not refused:
            return job
        await self._queue.refuse_names(self._owner, job.manifest, refused)
        for request, reason in refused.items():
            log.warning("name_refused", image=str(request.image), manifest=str(job.manifest), reason=reason)
        allowed = tuple(request for request in job.requests if request not in refused)
        if not allowed:
            return None
        sources = {request.image.name for request in allowed}
        return replace(job, requests=allowed, source=job.source if job.source in sources else allowed[0].image.name)
