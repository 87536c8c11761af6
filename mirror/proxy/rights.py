"""Who has shown that they may read which private repository: the upstream said yes to their own credential, a short while ago.

What is remembered is a keyed hash of the credential, never the credential itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from weakref import WeakValueDictionary

import structlog
from cachetools import LRUCache, TTLCache

from mirror.errors import Denied, TooManyRequests
from mirror.oci.reference import RepositoryName
from mirror.proxy.visitor import Visitor
from mirror.proxy.ways import Way
from mirror.upstream.client import UpstreamClient
from mirror.upstream.fingerprint import fingerprint
from mirror.upstream.model import Credential, CredentialRefused

log = structlog.get_logger()

_Key = tuple[RepositoryName, bytes]

_TRIALS_AT_ONCE = 4
"""From one address, of credentials that are not known to be right: by so many the bound of wrong ones may be passed."""


@dataclass(frozen=True, slots=True)
class RightsLimits:
    """Bounds; times in seconds."""

    fresh: float = 60.0
    """How long an upstream's yes counts."""
    kept: float = 3600.0
    """How long it counts while the upstream cannot be asked again."""
    refused: float = 10.0
    """How long its no is repeated without asking it."""
    wrong: int = 20
    """Credentials that no upstream takes, from one address within `wrong_seconds`; then none is passed on from there."""
    wrong_seconds: float = 600.0
    remembered: int = 50_000
    readers: int = 1000
    """Credentials whose clients are kept."""


class Rights:
    """Remembers, and asks."""

    def __init__(
        self, ways: Mapping[str, Way], limits: RightsLimits | None = None, *, timer: Callable[[], float] = time.monotonic
    ) -> None:
        """ways: by registry, to what needs a client's own credential, which takes the place of each way's client."""
        limits = limits or RightsLimits()
        self._ways = ways
        self._limits = limits
        self._timer = timer
        self._seen: TTLCache[_Key, float] = TTLCache(limits.remembered, max(limits.kept, limits.fresh), timer)
        self._refused: TTLCache[_Key, str] = TTLCache(limits.remembered, limits.refused, timer)
        self._readers: LRUCache[tuple[str, bytes], Way] = LRUCache(limits.readers)
        self._wrong: TTLCache[str, set[bytes]] = TTLCache(limits.remembered, limits.wrong_seconds, timer)
        self._accepted: TTLCache[tuple[str, bytes], bool] = TTLCache(limits.remembered, limits.kept, timer)
        self._locks: WeakValueDictionary[tuple[str, bytes], asyncio.Lock] = WeakValueDictionary()
        self._places: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    def are_passed_to(self, registry: str) -> bool:
        """Whether clients' credentials are used towards this upstream."""
        return registry in self._ways

    def shown(self, name: RepositoryName, credential: Credential, *, long_ago: bool = False) -> Way | None:
        """The way for who has shown that right lately. long_ago: or, since the upstream cannot be asked, some time ago."""
        seen = self._seen.get((name, fingerprint(credential)))
        if seen is None or (not long_ago and self._timer() - seen >= self._limits.fresh):
            return None
        return self._way(name.registry, credential)

    async def show(self, name: RepositoryName, visitor: Visitor, ask: Callable[[UpstreamClient], Awaitable[object]]) -> Way:
        """The way for the visitor, after the upstream said yes. ask: for anything of the repository.

        The same answer for what is not theirs as for what does not exist, as far as the upstream does not tell them apart.
        Raises Denied, NotFound, TooManyRequests, Unavailable.
        """
        credential = visitor.credential
        if credential is None:
            raise Denied(f"{name} is not public")
        holder = fingerprint(credential)
        key = (name, holder)
        way = self._way(name.registry, credential)
        async with self._trial(visitor.address, name.registry, holder):
            if key in self._refused:
                raise Denied(self._refused[key])
            self._check_patience(visitor.address, holder)
            try:
                await ask(way.client)
            except Denied as error:
                self._seen.pop(key, None)
                self._refused[key] = str(error)
                if isinstance(error, CredentialRefused):
                    self._accepted.pop((name.registry, holder), None)
                    self._wrong.setdefault(visitor.address, set()).add(holder)
                    log.warning("client_credential_refused", client=visitor.address, upstream=name.registry)
                raise
        self._seen[key] = self._timer()
        self._accepted[name.registry, holder] = True
        return way

    async def close(self) -> None:
        """Give up what clients have under way."""
        await asyncio.gather(*(way.client.close() for way in self._readers.values()))

    def _way(self, registry: str, credential: Credential) -> Way:
        key = (registry, fingerprint(credential))
        way = self._readers.get(key)
        if way is None:
            plain = self._ways[registry]
            way = self._readers[key] = replace(plain, client=plain.client.acting_as(credential))
        return way

    @asynccontextmanager
    async def _trial(self, address: str, registry: str, holder: bytes) -> AsyncIterator[None]:
        """A block in which a credential is tried: one try of it at a time, until it is known to be right.

        Else as many as come at once would reach an upstream before the first of them is known to be wrong.
        """
        if (registry, holder) in self._accepted:
            yield
            return
        lock = self._locks.setdefault((registry, holder), asyncio.Lock())
        place = self._places.setdefault(address, asyncio.Semaphore(_TRIALS_AT_ONCE))
        async with lock, place:
            yield

    def _check_patience(self, address: str, holder: bytes) -> None:
        """Upstreams see all of this as coming from the mirror, and would ban it for what one client tries."""
        wrong = self._wrong.get(address, set())
        if len(wrong) >= self._limits.wrong and holder not in wrong:
            raise TooManyRequests(
                f"{address} has given {len(wrong)} wrong user names or passwords; none is passed on for a while", 60.0
            )
