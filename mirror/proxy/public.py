"""Which repositories everybody may read, where the mirror itself has an account, or clients use theirs.

Only the upstream knows. Its yes to a client without credentials counts for a while, for all processes that share the state
database; while the upstream cannot be asked again it counts for longer, over a restart too, so that an outage takes nothing away
from anybody. Its no counts at once: whoever is told, forgets the yes for all others.
Failures of the state database are logged, and make this process ask for itself; they never fail a pull.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import structlog
from cachetools import LRUCache, TTLCache

from mirror.errors import Denied, MirrorError, Unavailable
from mirror.oci.reference import RepositoryName
from mirror.upstream.client import UpstreamClient
from mirror.upstream.flight import SingleFlight

log = structlog.get_logger()

Ask = Callable[[UpstreamClient], Awaitable[object]]
"""Asks an upstream for anything of a repository."""


class SightingStore(Protocol):
    """What all processes know (`mirror.store.sightings`). Every method may raise Unavailable."""

    async def seen(self, name: RepositoryName) -> float | None:
        """When the repository was last seen to be public, in Unix seconds; None if never."""

    async def note(self, name: RepositoryName, at: float) -> None:
        """It was public at that time."""

    async def forget(self, name: RepositoryName) -> None:
        """It is not public any more."""


@dataclass(frozen=True, slots=True)
class PublicLimits:
    """Bounds; times in seconds."""

    fresh: float = 600.0
    """How long an upstream's yes counts."""
    kept: float = 86_400.0
    """How long it counts while the upstream cannot be asked again."""
    hold: float = 5.0
    """How long an upstream that could not be asked is not asked for the same repository again, if an earlier yes counts."""
    patience: float = 5.0
    """How long an upstream may take to answer, if an earlier yes counts, until that is taken."""
    remembered: int = 50_000
    """Repositories kept in memory."""


@dataclass(frozen=True, slots=True)
class _Sighting:
    at: float
    is_noted: bool
    """Whether the state database has it: then it is forgotten when the database has none any more."""


class PublicRepositories:
    """Remembers, and asks: once for all who want to know at the same time."""

    def __init__(
        self,
        guards: Mapping[str, UpstreamClient],
        sightings: SightingStore,
        limits: PublicLimits | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """guards: anonymous clients, by registry. clock: Unix seconds; what is noted is kept beyond this process's life."""
        self._guards = guards
        self._sightings = sightings
        self._limits = limits = limits or PublicLimits()
        self._clock = clock
        self._memory: LRUCache[RepositoryName, _Sighting] = LRUCache(limits.remembered)
        self._denied: LRUCache[RepositoryName, float] = LRUCache(limits.remembered)
        self._held: TTLCache[RepositoryName, bool] = TTLCache(limits.remembered, limits.hold, timer=clock)
        self._flights: SingleFlight[RepositoryName, None] = SingleFlight()

    def are_asked_of(self, registry: str) -> bool:
        """Whether what is not public is kept from anybody there."""
        return registry in self._guards

    async def check(self, name: RepositoryName, ask: Ask) -> None:
        """Return if everybody may read the repository. ask: for what the client wants of it.

        Raises Denied if not, NotFound if the upstream does not have what is asked for, Unavailable if nobody knows now.
        """
        if self._counts(name, self._limits.fresh) or name in self._held:
            return
        try:
            async with asyncio.timeout(self._limits.patience):
                await self._find_out(name, ask)
        except TimeoutError:
            if self._counts(name, self._limits.kept):
                self._take_for_public(name, f"there is no answer within {self._limits.patience:g} s")
                return
            await self._find_out(name, ask)

    async def close(self) -> None:
        """Give up what is under way."""
        await self._flights.close()

    async def _find_out(self, name: RepositoryName, ask: Ask) -> None:
        was_under_way = self._flights.is_under_way(name)
        try:
            await self._flights.run(name, lambda: self._look_and_ask(name, ask))
        except (Denied, Unavailable):
            raise
        except MirrorError:
            if not was_under_way:
                raise
            await self._ask(name, ask)  # Somebody else asked, for something that is not there.

    async def _look_and_ask(self, name: RepositoryName, ask: Ask) -> None:
        await self._recall(name)
        if not self._counts(name, self._limits.fresh):
            await self._ask(name, ask)

    async def _ask(self, name: RepositoryName, ask: Ask) -> None:
        began = self._clock()
        try:
            await ask(self._guards[name.registry])
        except Denied:
            await self._forget(name)
            raise
        except Unavailable as error:
            if not self._counts(name, self._limits.kept):
                raise
            self._take_for_public(name, str(error))
            return
        await self._note(name, began)

    def _counts(self, name: RepositoryName, seconds: float) -> bool:
        """Whether it was seen to be public less than so long ago; a time as far ahead is another server's clock."""
        seen = self._memory.get(name)
        return seen is not None and abs(self._clock() - seen.at) < seconds

    def _take_for_public(self, name: RepositoryName, reason: str) -> None:
        log.warning("taken_for_public", name=str(name), reason=reason)
        self._held[name] = True

    async def _recall(self, name: RepositoryName) -> None:
        """Bring the memory up to what all processes know."""
        try:
            noted = await self._sightings.seen(name)
        except Unavailable as error:
            log.warning("state_unavailable", reason=str(error))
            return
        known = self._memory.get(name)
        if noted is None:
            if known is not None and known.is_noted:  # Another process was told that it is not public any more.
                del self._memory[name]
        elif noted <= self._denied.get(name, 0.0):  # The database was away when this process was told, or a yes came late.
            await self._forget_for_all(name)
        elif known is None or known.at <= noted:
            self._memory[name] = _Sighting(noted, is_noted=True)

    async def _note(self, name: RepositoryName, at: float) -> None:
        """at: when the question was asked that was answered with yes; a no that came since is the later answer."""
        if at < self._denied.get(name, 0.0):
            return
        self._denied.pop(name, None)
        self._held.pop(name, None)
        self._memory[name] = seen = _Sighting(at, is_noted=False)
        try:
            await self._sightings.note(name, at)
        except Unavailable as error:
            log.warning("state_unavailable", reason=str(error))
            return
        if self._memory.get(name) is seen:
            self._memory[name] = _Sighting(at, is_noted=True)

    async def _forget(self, name: RepositoryName) -> None:
        known = self._memory.pop(name, None)
        self._held.pop(name, None)
        self._denied[name] = self._clock()
        if known is not None:
            await self._forget_for_all(name)

    async def _forget_for_all(self, name: RepositoryName) -> None:
        try:
            await self._sightings.forget(name)
        except Unavailable as error:
            log.warning("state_unavailable", reason=str(error))
