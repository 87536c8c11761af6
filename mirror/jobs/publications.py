"""What is known of images, in memory: a warm manifest answer carries its hint without any SQL.

A watcher asks the state database once a second which repositories have changed and drops what it remembers of those, "nothing is
known" included. While the database is away, what is remembered stays; changes of that time are seen when it is back.
"""

from __future__ import annotations

from cachetools import LRUCache

from mirror.errors import Unavailable
from mirror.jobs.following import Follower
from mirror.jobs.model import ImageStatus
from mirror.jobs.statuses import Statuses
from mirror.oci.digest import Digest
from mirror.oci.reference import ImageReference, Reference


class PublicationIndex(Follower):
    """Bounded memory of image states in front of `Statuses`."""

    def __init__(self, statuses: Statuses, *, remembered: int = 20_000, interval: float = 1.0) -> None:
        """remembered: how many answers are kept. interval: seconds between two looks at what changed."""
        super().__init__("publication_index", interval)
        self._statuses = statuses
        self._memory: LRUCache[ImageReference, ImageStatus | None] = LRUCache(remembered)
        # Up to where changes were seen. Without it nothing may be remembered, for nobody would drop it.
        self._serial: int | None = None

    async def lookup(self, image: ImageReference, served: Digest) -> ImageStatus | None:
        """The state of the image that is served for this name; never fails, but knows nothing while the database is away.

        served: the digest of the manifest or index in the answer. A tag whose name still stands for an older image is answered by
        what is known of the digest instead.
        """
        status = await self._find(image)
        if status is not None and served in (status.target, status.manifest):
            return status
        if image.reference.digest == served:
            return None
        return await self._find(ImageReference(image.name, Reference(digest=served)))

    async def last_known(self, image: ImageReference) -> ImageStatus | None:
        """The state of the image that this name stood for when it was last served; never fails."""
        return await self._find(image)

    async def _find(self, image: ImageReference) -> ImageStatus | None:
        if image in self._memory:
            return self._memory[image]
        before = self._serial
        try:
            status = await self._statuses.status(image)
        except Unavailable:
            return None
        # If the watcher has seen changes meanwhile, this answer may be older than what it has dropped.
        if before is not None and before == self._serial:
            self._memory[image] = status
        return status

    async def _follow(self) -> None:
        if self._serial is None:
            self._serial = await self._statuses.serial()
            return
        changes = await self._statuses.changes(self._serial)
        self._serial = changes.serial
        if changes.repositories:
            for image in [image for image in self._memory if image.name in changes.repositories]:
                del self._memory[image]
