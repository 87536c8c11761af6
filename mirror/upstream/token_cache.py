"""Tokens and refusals, each for as long as it counts; one memory for all clients of a process.

A user name and password that are refused are not tried again for a time that doubles with each refusal: registries lock accounts,
and ban addresses, that go on. Whoever changes the password is somebody else here, and is tried at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cachetools import LRUCache, TLRUCache, TTLCache
from yarl import URL

from mirror.errors import Denied, MirrorError
from mirror.upstream.model import CredentialRefused

REFUSAL_LIFETIME = 10.0
"""Seconds for which a refusal of the token service is repeated without asking it, and the first pause of a wrong password."""
LONGEST_REFUSAL = 600.0
"""Seconds; no pause of a wrong password is longer."""
OUTAGE_LIFETIME = 1.0
"""Seconds for which a token service that cannot be used is left alone."""
ACCEPTED_SECONDS = 300.0
"""For which a credential that brought a token counts as right: a refusal is then about the scope."""
RENEWAL_PAUSE = 5.0
"""Seconds between two tries to get a new token while the old one is still good."""


@dataclass(frozen=True, slots=True)
class TokenKey:
    """What a token is for: one scope at one upstream with the rights of one credential, named by its fingerprint."""

    upstream: str
    scope: str
    holder: bytes

    @property
    def whole(self) -> TokenKey:
        """For what concerns the credential itself, whatever the scope."""
        return TokenKey(self.upstream, "", self.holder)


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """Where a token is to be had, and for what."""

    realm: URL
    query: Mapping[str, str]


@dataclass(slots=True)
class _Held:
    header: str | None
    failure: MirrorError | None
    lifetime: float
    request: TokenRequest | None = None
    renew_from: float = 0.0


class TokenCache:
    """Values of the `Authorization` header, and recent refusals, for a limited time."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, max_entries: int = 10_000) -> None:
        self._clock = clock
        self._held: TLRUCache[TokenKey, _Held] = TLRUCache(max_entries, ttu=lambda _, held, now: now + held.lifetime, timer=clock)
        self._refusals: LRUCache[TokenKey, int] = LRUCache(max_entries)
        self._accepted: TTLCache[TokenKey, bool] = TTLCache(max_entries, ACCEPTED_SECONDS, timer=clock)

    def get(self, key: TokenKey) -> str | None:
        """The header's value, None if there is none that can still be used. Raises the failure that was noted last."""
        for held in (self._held.get(key), self._held.get(key.whole)):
            if held is not None and held.failure is not None:
                raise held.failure
            if held is not None and held.header is not None:
                return held.header
        return None

    def put(
        self, key: TokenKey, header: str, lifetime: float, request: TokenRequest | None = None, *, is_proven: bool = True
    ) -> None:
        """Keep a token for its lifetime in seconds, less what a request may take: a fifth of it, 30 s at most.

        request: how to get another one, which is to be done in the last fifth of that time. is_proven: whether the credential was
        right to get it.
        """
        usable = lifetime - min(lifetime / 5, 30.0)
        self._held[key] = _Held(header, None, usable, request, self._clock() + usable * 0.8)
        if is_proven:
            self.accept(key)

    def accept(self, key: TokenKey) -> None:
        """The credential is right."""
        self._accepted[key.whole] = True
        for refused in (key, key.whole):
            self._refusals.pop(refused, None)

    def due(self, key: TokenKey) -> TokenRequest | None:
        """How to get another token, if it is time for that; then not again for some seconds."""
        held, now = self._held.get(key), self._clock()
        if held is None or held.request is None or now < held.renew_from:
            return None
        held.renew_from = now + RENEWAL_PAUSE
        return held.request

    def fail(self, key: TokenKey, failure: MirrorError) -> None:
        """Keep a refusal or an outage."""
        place, lifetime = key, REFUSAL_LIFETIME if isinstance(failure, Denied) else OUTAGE_LIFETIME
        if isinstance(failure, CredentialRefused):
            place = key if key.whole in self._accepted else key.whole
            times = self._refusals.get(place, 0)
            self._refusals[place] = times + 1
            lifetime = min(REFUSAL_LIFETIME * 2.0 ** min(times, 20), LONGEST_REFUSAL)
        self._held[place] = _Held(None, failure, lifetime)

    def drop(self, key: TokenKey, header: str | None) -> None:
        """Forget a token that the upstream refused, unless another has replaced it."""
        held = self._held.get(key)
        if held is not None and held.header is not None and held.header == header:
            self._held.pop(key, None)
