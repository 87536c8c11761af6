"""One repository's revisions: images that are ready are committed in groups, and links out of date removed in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from time import time

import structlog

from mirror.errors import MirrorError
from mirror.jobs.model import Leftover, State
from mirror.jobs.queue import Queue
from mirror.jobs.repositories import Repositories
from publisher.commit import GroupCommitter
from publisher.cvmfs.cuts import CutLimits, GrowthLimits
from publisher.images.place import PlacePolicy, PreparedImage, check_trees, place_images
from publisher.images.remove import remove_links
from publisher.lease import RepositoryLease
from publisher.leftovers import TIDY, Leftovers, Tidy, inside
from publisher.repository import Revision, Step
from publisher.spool import FILES
from publisher.stratum0 import Stratum0
from publisher.threads import to_the_end
from publisher.transaction import Transaction
from publisher.unpack import Unpacker

log = structlog.get_logger()

_TIDY_SECONDS, _TIDY_AGAIN_SECONDS = 1.0, 60.0
"""How often links that are out of date are looked for, and the pause after a failure."""


@dataclass(frozen=True, slots=True)
class Target:
    """A repository that images go to."""

    stratum0: Stratum0
    unpacker: Unpacker
    lease: RepositoryLease
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by whoever commits."""


@dataclass(frozen=True, slots=True)
class RevisionSettings:
    """What a revision may hold: images at the most, catalogs, and whether images are added to podmanStore."""

    batch: int
    cuts: CutLimits
    growth: GrowthLimits
    podman_store: bool = False


class RevisionMaker:
    """Makes the revisions of one repository; `run` and `tidy` are to be kept running."""

    def __init__(
        self,
        target: Target,
        queue: Queue,
        repositories: Repositories,
        settings: RevisionSettings,
        *,
        owner: str,
        on_revision: Callable[[str], None],
    ) -> None:
        """owner: the publisher's name in the queue. on_revision: told the fqrn when a revision was published."""
        self._target = target
        self._fqrn = target.stratum0.fqrn
        self._queue = queue
        self._repositories = repositories
        self._settings = settings
        self._owner = owner
        self._on_revision = on_revision
        self._leftovers = Leftovers(queue)
        self._committer: GroupCommitter[PreparedImage | Tidy, Revision] = GroupCommitter(self._commit, settings.batch)

    async def publish(self, image: PreparedImage) -> Revision:
        """Return when a revision that holds the image is published; raises what its commit raised."""
        return await self._committer.submit(image)

    def spared(self, paths: Iterable[str]) -> AbstractContextManager[None]:
        """Keep links from being removed that are being placed, from before their commit until the state knows of it."""
        return self._leftovers.spared(self._fqrn, paths)

    async def run(self) -> None:
        """Commit for ever; returns only by cancellation."""
        await self._committer.run()

    async def tidy(self) -> None:
        """Have links removed, for ever, that lead to what their names stand for no more."""
        while True:
            await asyncio.sleep(_TIDY_SECONDS)
            try:
                if self._target.lease.is_held and await self._leftovers.of(self._fqrn):
                    await self._committer.submit(TIDY)
            except MirrorError as error:
                log.warning("leftovers_not_removed", fqrn=self._fqrn, reason=str(error))
                await asyncio.sleep(_TIDY_AGAIN_SECONDS)

    async def _commit(self, items: Sequence[PreparedImage | Tidy]) -> Revision:
        images = [item for item in items if not isinstance(item, Tidy)]
        left = await self._leftovers.of(self._fqrn) if len(images) < len(items) else []
        await self._queue.advance(self._owner, [image.digest for image in images], State.COMMITTING)
        async with self._target.turn:
            revision = await to_the_end(lambda: self._transact(images, left))
            self._on_revision(self._fqrn)
            await self._repositories.put(self._target.stratum0.facts(revision.manifest))
        await self._leftovers.removed(left)
        return revision

    def _transact(self, images: Sequence[PreparedImage], left: Sequence[Leftover]) -> Revision:
        def on_step(step: Step) -> None:
            if step is not Step.PUBLISHED:
                self._target.lease.check()

        stratum0 = self._target.stratum0
        with Transaction(stratum0.repository, limits=self._settings.cuts, growth=self._settings.growth) as transaction:
            policy = PlacePolicy(stratum0.repository.settings.whiteouts == FILES, self._settings.podman_store)
            new = place_images(transaction, stratum0.pipeline, images, time(), policy)
            if left:
                remove_links(transaction, stratum0.pipeline, [inside(leftover) for leftover in left], time())
            return transaction.commit(on_step, lambda snapshot: check_trees(snapshot, new))
