"""What places were seen to serve, and seeing it: nobody is sent to a place that was not, or not lately.

A place has to have the revision of the repository that brought a blob, or a later one, and to serve the blob with the right size.
What it has of a repository is looked at again every few seconds for as long as it is asked for, beside the requests: so a place
that lags behind, or is away, is left out until that is over. That it serves a blob is believed for longer: objects do not change.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from cachetools import LRUCache, TTLCache

from mirror.errors import InvalidInput, MirrorError
from mirror.jobs.packed_layers import PackedCopy
from mirror.redirect.asking import PlaceClient
from mirror.redirect.places import Place
from mirror.upstream.flight import SingleFlight

log = structlog.get_logger()

_STILL_GOOD = 3
"""An answer is used for so many times its freshness while it is asked for anew."""


@dataclass(frozen=True, slots=True)
class WitnessLimits:
    """Seconds, but for numbers of answers."""

    fresh: float = 5.0
    """After which it is looked again what a place has of a repository."""
    again: float = 60.0
    """After which a place is asked again that failed, or did not serve a blob."""
    believed: float = 600.0
    """For which a place that served a blob is believed to serve it."""
    remembered: int = 50_000
    """Answers about blobs that are kept, of either kind."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a place had of a repository, and when it was asked; None: it failed."""

    revision: int | None
    at: float


class Witness:
    """Of all places; to be closed."""

    def __init__(self, client: PlaceClient, limits: WitnessLimits, *, timer: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._limits = limits
        self._timer = timer
        self._repositories: LRUCache[tuple[str, str], _Seen] = LRUCache(limits.remembered)
        self._served: TTLCache[tuple[str, PackedCopy], bool] = TTLCache(limits.remembered, limits.believed, timer)
        self._refused: TTLCache[tuple[str, PackedCopy], bool] = TTLCache(limits.remembered, limits.again, timer)
        self._looks: SingleFlight[tuple[str, str], int | None] = SingleFlight()
        self._checks: SingleFlight[tuple[str, PackedCopy], bool] = SingleFlight()
        self._ahead: set[asyncio.Task[int | None]] = set()

    def knows(self, place: Place, copy: PackedCopy) -> bool | None:
        """Whether the place serves the blob, as far as that was seen; None if it has to be asked (`see`)."""
        revision = self._known_revision(place, copy)
        if not revision:
            return revision
        key = (place.name, copy)
        if key in self._served:
            return True
        return False if key in self._refused else None

    async def see(self, place: Place, copy: PackedCopy) -> bool:
        """Whether the place serves the blob, by asking it; one who leaves does not end the asking. Never fails."""
        serves, _ = await self._checks.run((place.name, copy), lambda: self._check(place, copy))
        return serves

    async def close(self) -> None:
        """Give up what is asked."""
        await self._checks.close()
        await self._looks.close()
        await asyncio.gather(*self._ahead, return_exceptions=True)

    def _known_revision(self, place: Place, copy: PackedCopy) -> bool | None:
        """Whether the place has the revision that brought the blob, as far as that was seen lately."""
        seen = self._repositories.get((place.name, copy.fqrn))
        if seen is None:
            return None
        age = self._timer() - seen.at
        if seen.revision is None:
            return False if age < self._limits.again else None
        if seen.revision < copy.revision:
            return False if age < self._limits.fresh else None
        if age >= self._limits.fresh * _STILL_GOOD:
            return None
        if age >= self._limits.fresh:
            self._look_ahead(place, copy.fqrn)
        return True

    def _look_ahead(self, place: Place, fqrn: str) -> None:
        """Look again, beside whatever is done now."""
        if not self._looks.is_under_way((place.name, fqrn)):
            look = asyncio.create_task(self._revision(place, fqrn))
            self._ahead.add(look)
            look.add_done_callback(self._ahead.discard)

    async def _revision(self, place: Place, fqrn: str) -> int | None:
        """The revision of a repository that the place has, by asking it; None if it fails."""
        revision, _ = await self._looks.run((place.name, fqrn), lambda: self._look(place, fqrn))
        return revision

    async def _check(self, place: Place, copy: PackedCopy) -> bool:
        has_revision = self._known_revision(place, copy)
        if has_revision is None:
            revision = await self._revision(place, copy.fqrn)
            has_revision = revision is not None and revision >= copy.revision
        if not has_revision:
            return False
        key = (place.name, copy)
        problem = None if key in self._served else await self._problem(place, copy)
        if problem is None:
            self._served[key] = True
            return True
        log.info("blob_not_at_place", place=place.name, digest=str(copy.digest), reason=problem)
        self._refused[key] = True
        return False

    async def _problem(self, place: Place, copy: PackedCopy) -> str | None:
        """What keeps clients from getting the blob there."""
        try:
            size = await self._client.size(place, copy.fqrn, copy.object)
        except MirrorError as error:
            return str(error)
        return None if size == copy.size else f"{place.address_of(copy)} has {size} bytes, not {copy.size}"

    async def _look(self, place: Place, fqrn: str) -> int | None:
        key = (place.name, fqrn)
        before = self._repositories.get(key)
        try:
            published = await self._client.published(place, fqrn)
            if published.fqrn != fqrn:
                raise InvalidInput(f"{place.address(fqrn, '')} is the repository {published.fqrn}")
        except MirrorError as error:
            revision = None
            if before is None or before.revision is not None:
                log.warning("place_left_out", place=place.name, fqrn=fqrn, reason=str(error))
        else:
            revision = published.revision
            if before is not None and before.revision is None:
                log.info("place_back", place=place.name, fqrn=fqrn, revision=revision)
        self._repositories[key] = _Seen(revision, self._timer())
        return revision
