"""The background task that turns pulls into publish requests and records of use.

While the state database is away the pulls stay in their bounded queue and are tried again, so that nothing accepted is lost as
long as the process lives; everything it does may be done twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

import structlog
from cachetools import TTLCache

from mirror.errors import InvalidInput, Unavailable
from mirror.jobs.queue import Queue
from mirror.jobs.statuses import Statuses
from mirror.jobs.usage import Usage, Use
from mirror.observe.events import Pull, PullQueue
from mirror.observe.intake import Intake, Wish
from mirror.oci.digest import Digest
from mirror.oci.manifest import parse_manifest
from mirror.oci.reference import ImageReference, Reference

log = structlog.get_logger()

_Key = tuple[ImageReference, bool]


class Recorder:
    """Consumes a queue of pulls."""

    def __init__(
        self,
        pulls: PullQueue,
        *,
        queue: Queue,
        statuses: Statuses,
        intake: Intake,
        usage: Usage,
        batch: int = 500,
        retry_seconds: float = 1.0,
        settled: int = 10_000,
        settled_seconds: float = 60.0,
        rest_seconds: float = 0.2,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        """intake: what follows from a pull.

        batch: pulls recorded together. retry_seconds: pause while the state database is away. settled, settled_seconds: how many
        pulled names are remembered, and for how long, so that a name that is pulled all the time is not judged all the time.
        rest_seconds: pause after the last pulls that wait, if they brought nothing new, so that a crowd's use of an image is
        written down a few times a second, not all the time.
        """
        self._pulls = pulls
        self._queue = queue
        self._statuses = statuses
        self._intake = intake
        self._usage = usage
        self._batch = batch
        self._retry_seconds = retry_seconds
        self._rest_seconds = rest_seconds
        # One entry a name, not a digest: a tag that moves there and back is judged each time.
        self._settled: TTLCache[_Key, tuple[Digest, frozenset[Digest]]] = TTLCache(settled, settled_seconds, timer)

    async def run(self) -> None:
        """Record pulls until cancelled. Then `drain` what is left."""
        away = False
        while True:
            pulls = await self._pulls.peek(self._batch)
            try:
                is_news = await self._record(pulls)
            except Unavailable as error:
                if not away:
                    log.warning("pulls_wait", waiting=len(self._pulls), dropped=self._pulls.dropped, reason=str(error))
                away = True
                await asyncio.sleep(self._retry_seconds)
                continue
            if away:
                log.info("pulls_recorded_again", waiting=len(self._pulls), dropped=self._pulls.dropped)
            away = False
            self._pulls.discard(len(pulls))
            if not is_news and len(pulls) < self._batch:
                await asyncio.sleep(self._rest_seconds)

    async def drain(self, seconds: float) -> int:
        """Record what is left in the queue, for so long at the most; returns how many pulls are lost with the process."""
        try:
            async with asyncio.timeout(seconds):
                while len(self._pulls):
                    pulls = await self._pulls.peek(self._batch)
                    await self._record(pulls)
                    self._pulls.discard(len(pulls))
        except (TimeoutError, Unavailable) as error:
            log.error("pulls_lost", lost=len(self._pulls), reason=str(error) or "no time left")  # noqa: TRY400 - no bug
        return len(self._pulls)

    async def _record(self, pulls: Iterable[Pull]) -> bool:
        """Returns whether there was one among them that had to be judged."""
        uses: dict[Digest, Use] = {}
        is_news = False
        for pull in pulls:
            try:
                images = self._settled_images(pull)
                if images is None:
                    is_news = True
                    images = await self._judged_images(pull)
            except Unavailable:
                raise
            except Exception:
                # Whatever it is about this one, those behind it in the queue must not wait for it.
                log.exception("pull_not_recorded", image=str(pull.image), digest=str(pull.digest))
                continue
            for manifest in images:
                before = uses.get(manifest, Use(pull.at, 0))
                # Clients ask for a tag, then for an index, then for the image: only the last of these is counted.
                counts = pull.raw is not None and pull.digest == manifest
                uses[manifest] = Use(max(before.last_used, pull.at), before.pulls + counts * pull.times)
        await self._usage.add(uses)
        return is_news

    def _settled_images(self, pull: Pull) -> frozenset[Digest] | None:
        """Manifests of the images that the pull is a use of; None if that has to be found out."""
        settled = self._settled.get(_key(pull))
        return settled[1] if settled is not None and settled[0] == pull.digest else None

    async def _judged_images(self, pull: Pull) -> frozenset[Digest]:
        """The same, after asking for what is to be published because of the pull."""
        if pull.image.reference.tag is not None:
            # docker and containerd ask for the tag by HEAD and then for its digest, which may now have one more name.
            self._settled.pop((ImageReference(pull.image.name, Reference(digest=pull.digest)), True), None)
        known = await self._statuses.requests(pull.image.name, pull.digest)
        found = frozenset(request.manifest for request in known)
        is_settled = True
        if pull.raw is not None:
            try:
                manifest = parse_manifest(pull.raw, pull.media_type)
            except InvalidInput as error:
                log.warning("manifest_not_understood", image=str(pull.image), digest=str(pull.digest), reason=str(error))
            else:
                wish = await self._intake.wish_of(pull, manifest, known)
                await self._submit(pull, wish)
                found |= {request.manifest for request in wish.requests if pull.digest in (request.target, request.manifest)}
                is_settled = wish.is_complete
        if is_settled:
            self._settled[_key(pull)] = (pull.digest, found)
        return found

    async def _submit(self, pull: Pull, wish: Wish) -> None:
        for request in await self._queue.enqueue_all(wish.requests, wish.gone):
            platform = str(request.platform or "")
            log.info("publish_queued", image=str(request.image), platform=platform, manifest=str(request.manifest))
        if wish.artifacts and await self._queue.note_artifact(wish.artifacts, pull.digest, wish.reason):
            log.info("not_an_image", image=str(pull.image), manifest=str(pull.digest), reason=wish.reason)


def _key(pull: Pull) -> _Key:
    return pull.image, pull.raw is not None
