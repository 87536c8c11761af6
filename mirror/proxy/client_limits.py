"""How much one client may ask for: requests under way at the same time, and requests a second."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from cachetools import LRUCache

from mirror.errors import TooManyRequests, Unavailable

_RETRY_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """Bounds of one client, which is a user or an address; many machines may be behind one address."""

    requests: int = 1000
    """Under way at the same time."""
    rate: float = 50_000.0
    """Requests a second that it may keep up."""
    burst: int = 100_000
    """Requests that it may make at once after a pause."""
    remembered: int = 100_000
    """Clients that are told apart; those that asked least recently are forgotten."""


@dataclass(slots=True)
class _Bucket:
    """Tokens that a client has; each request takes one."""

    tokens: float
    at: float


class ClientGate:
    """Counts what each client does."""

    def __init__(self, limits: ClientLimits, timer: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._timer = timer
        self._under_way: Counter[str] = Counter()
        self._buckets: LRUCache[str, _Bucket] = LRUCache(limits.remembered)

    def enter(self, client: str) -> None:
        """One more request of this client is under way, until `leave`.

        Raises TooManyRequests where it comes too fast. Raises Unavailable where too many are under way: clients then go to the
        hub at once, where they would wait after a 429.
        """
        self._take(client)
        if self._under_way[client] >= self._limits.requests:
            raise Unavailable(f"{client} has {self._limits.requests} requests under way already", _RETRY_SECONDS)
        self._under_way[client] += 1

    def leave(self, client: str) -> None:
        """A request that had entered is answered."""
        self._under_way[client] -= 1
        if not self._under_way[client]:
            del self._under_way[client]

    def _take(self, client: str) -> None:
        limits, now = self._limits, self._timer()
        bucket = self._buckets.get(client)
        if bucket is None:
            bucket = self._buckets[client] = _Bucket(limits.burst, now)
        bucket.tokens = min(limits.burst, bucket.tokens + (now - bucket.at) * limits.rate)
        bucket.at = now
        if bucket.tokens < 1:
            raise TooManyRequests(
                f"{client} makes more than {limits.rate:g} requests a second", (1 - bucket.tokens) / limits.rate
            )
        bucket.tokens -= 1
