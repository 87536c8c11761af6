"""Which hint artifacts there are: one for each published image, made when a list of referrers or a client wants it, kept nowhere.

A list is given by one process, and what it names may be asked of another one, of another server even. So what is unknown here is
looked for among the artifacts of all that the repository has published. That is remembered as pairs of digests; what is served is
always what is true now, or was listed here a short while ago.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from cachetools import LRUCache, TTLCache

from mirror.errors import Unavailable
from mirror.jobs.model import ImageStatus
from mirror.jobs.statuses import PublishedSubject
from mirror.oci.digest import Digest
from mirror.oci.reference import ImageReference, Reference, RepositoryName
from mirror.proxy.access import Links
from mirror.proxy.hint_artifact import HintArtifact, hint_artifact
from mirror.upstream.flight import SingleFlight


class Publications(Protocol):
    """What is known of the /cvmfs path of an image."""

    async def lookup(self, image: ImageReference, served: Digest) -> ImageStatus | None:
        """The state of the image that is served for this name; never fails."""

    async def last_known(self, image: ImageReference) -> ImageStatus | None:
        """The state of the image that this name stood for when it was last served; never fails."""


class Subjects(Protocol):
    """What a repository has published."""

    async def subjects(self, name: RepositoryName, since: int, limit: int) -> list[PublishedSubject]:
        """What changed since that serial, the newest changes last, and no more of these than `limit`. Raises Unavailable."""


@dataclass(frozen=True, slots=True)
class _Derived:
    """What the artifacts of a repository consist of, up to a serial: digests to their subjects'."""

    serial: int = 0
    subjects: dict[Digest, Digest] = field(default_factory=dict)


class HintArtifacts:
    """Makes them, and finds them by digest."""

    def __init__(
        self,
        publications: Publications,
        subjects: Subjects,
        links: Links,
        *,
        kept_seconds: float = 600.0,
        remembered: int = 100_000,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        """links: of what repositories may serve, so that nothing is looked for that is an upstream's.

        kept_seconds: how long what was listed is served, whatever changes meanwhile. remembered: digests of artifacts, and of
        their blobs, of all repositories; a tenth of it of one repository, and of what was listed.
        """
        self._publications = publications
        self._subjects = subjects
        self._links = links
        self._limit = remembered // 10
        self._listed: TTLCache[tuple[RepositoryName, Digest], HintArtifact] = TTLCache(self._limit, kept_seconds, timer)
        self._derived: LRUCache[RepositoryName, _Derived] = LRUCache(
            remembered, getsizeof=lambda derived: len(derived.subjects) + 1
        )
        self._flights: SingleFlight[RepositoryName, _Derived] = SingleFlight()

    async def of(self, name: RepositoryName, subject: Digest) -> HintArtifact | None:
        """The artifact that refers to this manifest or index; None if that is not published, or nothing is known now."""
        status = await self._publications.lookup(ImageReference(name, Reference(digest=subject)), subject)
        if status is None or status.publication is None:
            return None
        try:
            descriptor = await self._links.find(name, subject)
        except Unavailable:
            return None
        artifact = hint_artifact(status, descriptor) if descriptor is not None else None
        if artifact is not None:
            for digest in artifact.digests:
                self._listed[name, digest] = artifact
        return artifact

    async def find(self, name: RepositoryName, digest: Digest) -> HintArtifact | None:
        """The artifact of this repository that has this digest, or a blob with it; None: that is for the upstream to say.

        Whoever may read its subject may read it.
        """
        listed = self._listed.get((name, digest))
        if listed is not None:
            return listed
        try:
            if await self._links.find(name, digest) is not None:
                return None
            derived, _ = await self._flights.run(name, lambda: self._derive(name))
        except Unavailable:
            return None
        subject = derived.subjects.get(digest)
        if subject is None:
            return None
        artifact = await self.of(name, subject)
        if artifact is None:
            self._derived.pop(name, None)  # What is not published any more is left out next time.
        return artifact if artifact is not None and digest in artifact.digests else None

    async def close(self) -> None:
        """Give up what is under way."""
        await self._flights.close()

    async def _derive(self, name: RepositoryName) -> _Derived:
        """What is known of a repository, after what has changed was looked at."""
        known = self._derived.get(name) or _Derived()
        changed = await self._subjects.subjects(name, known.serial, self._limit)
        if changed:
            new = await asyncio.to_thread(_digests, changed)
            old = {digest: subject for digest, subject in known.subjects.items() if digest not in new}
            newest = list((old | new).items())[-self._limit :]
            known = self._derived[name] = _Derived(changed[-1].serial, dict(newest))
        return known


def _digests(published: Iterable[PublishedSubject]) -> dict[Digest, Digest]:
    """Everything that artifacts consist of, and the subjects' digests."""
    found: dict[Digest, Digest] = {}
    for one in published:
        artifact = hint_artifact(one.status, one.subject)
        if artifact is not None:
            found |= dict.fromkeys(artifact.digests, one.subject.digest)
    return found
