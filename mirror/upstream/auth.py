"""Rights at an upstream: tokens for a scope, got from the token service that the upstream names, or Basic authentication.

Sources: RFC 7617 (Basic), RFC 6750 (Bearer), and the distribution project's token specification ("Token Authentication
Specification": GET realm?service=..&scope=.., answer {"token" or "access_token", "expires_in"}).
Tokens and passwords are in no message and in no log.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
from cachetools import TLRUCache
from yarl import URL

from mirror.errors import Denied, MirrorError
from mirror.oci.challenge import BearerChallenge, Challenge, accepts_basic, find_bearer
from mirror.upstream.body import read_limited
from mirror.upstream.flight import SingleFlight
from mirror.upstream.model import Credential, Failure, Upstream, UpstreamUnavailable
from mirror.upstream.policy import is_server_error, parse_retry_after
from mirror.upstream.trust import check_realm

DEFAULT_LIFETIME = 60.0
"""Seconds that a token is good for if its service does not say (token specification, "expires_in")."""
REFUSAL_LIFETIME = 10.0
"""Seconds for which a refusal of the token service is repeated without asking it: a wrong password locks no account."""
OUTAGE_LIFETIME = 1.0
"""Seconds for which a token service that cannot be used is left alone."""
MAX_ANSWER_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class TokenKey:
    """What a token is for: one scope at one upstream with the rights of one user (None: of nobody)."""

    upstream: str
    scope: str
    username: str | None


@dataclass(frozen=True, slots=True)
class _Held:
    header: str | None
    failure: MirrorError | None
    lifetime: float


class TokenCache:
    """Values of the `Authorization` header, and recent refusals, for a limited time."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, max_entries: int = 10_000) -> None:
        self._held: TLRUCache[TokenKey, _Held] = TLRUCache(max_entries, ttu=lambda _, held, now: now + held.lifetime, timer=clock)

    def get(self, key: TokenKey) -> str | None:
        """The header's value, None if there is none that can still be used. Raises the failure that was noted last."""
        held = self._held.get(key)
        if held is None:
            return None
        if held.failure is not None:
            raise held.failure
        return held.header

    def put(self, key: TokenKey, header: str, lifetime: float) -> None:
        """Keep a token for its lifetime in seconds, less what a request may take: a fifth of it, 30 s at most."""
        self._held[key] = _Held(header, None, lifetime - min(lifetime / 5, 30.0))

    def fail(self, key: TokenKey, failure: MirrorError) -> None:
        """Keep a refusal or an outage."""
        self._held[key] = _Held(None, failure, REFUSAL_LIFETIME if isinstance(failure, Denied) else OUTAGE_LIFETIME)

    def drop(self, key: TokenKey, header: str | None) -> None:
        """Forget a token that the upstream refused, unless another has replaced it."""
        held = self._held.get(key)
        if held is not None and held.header == header:
            self._held.pop(key, None)


class Authenticator:
    """Answers the challenges of one upstream with one credential, or as nobody."""

    def __init__(
        self, session: aiohttp.ClientSession, upstream: Upstream, credential: Credential | None, cache: TokenCache
    ) -> None:
        self._session = session
        self._upstream = upstream
        self._credential = credential
        self._cache = cache
        self._flights: SingleFlight[TokenKey, str] = SingleFlight()

    def known(self, scope: str) -> str | None:
        """The value of `Authorization` to send with a request at once, None if none is known. Raises Denied if just refused."""
        return self._cache.get(self._key(scope))

    async def answer(self, challenges: Sequence[Challenge], scope: str, refused: str | None) -> str:
        """The value of `Authorization` that the challenges ask for.

        scope: what is wanted, such as `repository:library/debian:pull`. refused: the value that was sent and brought the
        challenge. Raises Denied, UpstreamUnavailable.
        """
        key = self._key(scope)
        self._cache.drop(key, refused)
        known = self._cache.get(key)
        if known is not None:
            return known
        header, _ = await self._flights.run(key, lambda: self._obtain(key, challenges, refused))
        return header

    async def close(self) -> None:
        """Give up what is under way."""
        await self._flights.close()

    def _key(self, scope: str) -> TokenKey:
        return TokenKey(self._upstream.name, scope, self._credential.username if self._credential else None)

    async def _obtain(self, key: TokenKey, challenges: Sequence[Challenge], refused: str | None) -> str:
        bearer = find_bearer(challenges)
        if bearer is None:
            header, lifetime = self._basic(key, challenges, refused), float("inf")
        else:
            query = {"scope": bearer.scope or key.scope}
            if bearer.service:
                query["service"] = bearer.service
            realm = self._realm(bearer)
            try:
                header, lifetime = await self._fetch(realm, query)
            except MirrorError as error:
                self._cache.fail(key, error)
                raise
        self._cache.put(key, header, lifetime)
        return header

    def _basic(self, key: TokenKey, challenges: Sequence[Challenge], refused: str | None) -> str:
        name = self._upstream.name
        if not accepts_basic(challenges):
            raise Denied(f"upstream {name} denies access and does not say how to get it")
        if self._credential is None:
            raise Denied(f"upstream {name} wants a user name and password, and none is used for this")
        header = _basic_header(self._credential)
        if header == refused:
            error = Denied(f"upstream {name} refuses the user name and password configured for it")
            self._cache.fail(key, error)
            raise error
        return header

    def _realm(self, bearer: BearerChallenge) -> URL:
        try:
            realm = URL(bearer.realm)
        except ValueError as error:
            raise Denied(f"upstream {self._upstream.name} names a token service that is no web address") from error
        check_realm(self._upstream, realm)
        return realm

    async def _fetch(self, realm: URL, query: dict[str, str]) -> tuple[str, float]:
        name, scope = self._upstream.name, query["scope"]
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if self._credential:
            headers["Authorization"] = _basic_header(self._credential)
        where = f"the token service of upstream {name} at {realm.host}"
        timeout = aiohttp.ClientTimeout(total=self._upstream.connect_timeout + self._upstream.read_timeout)
        try:
            async with self._session.get(
                realm.update_query(query), headers=headers, allow_redirects=False, auto_decompress=False, timeout=timeout
            ) as response:
                status = response.status
                retry_after = parse_retry_after(response.headers.get("Retry-After"), time.time())
                body = await read_limited(response, MAX_ANSWER_BYTES) if status == 200 else b""
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise UpstreamUnavailable(
                f"{where} cannot be reached: {str(error) or type(error).__name__}", Failure.UNREACHABLE
            ) from error
        if body is None:
            raise UpstreamUnavailable(f"{where} answers with more than {MAX_ANSWER_BYTES} bytes", Failure.PROTOCOL)
        if status == 200:
            return _read_token(body, where)
        if status == 429:
            raise UpstreamUnavailable(f"{where} throttles this mirror", Failure.THROTTLED, retry_after)
        if is_server_error(status):
            raise UpstreamUnavailable(f"{where} fails with status {status}", Failure.ERROR, retry_after)
        who = "the configured user" if self._credential else "an anonymous client"
        raise Denied(f"{where} gives {who} no token for {scope} (status {status})")


def _basic_header(credential: Credential) -> str:
    pair = f"{credential.username}:{credential.password}".encode()
    return f"Basic {base64.b64encode(pair).decode()}"


def _read_token(body: bytes, where: str) -> tuple[str, float]:
    """The header's value and the token's life in seconds."""
    try:
        document: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UpstreamUnavailable(f"{where} answers with something that is not JSON", Failure.PROTOCOL) from error
    token = (document.get("token") or document.get("access_token")) if isinstance(document, dict) else None
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise UpstreamUnavailable(f"{where} answers without a token", Failure.PROTOCOL)
    lifetime = document.get("expires_in")
    usable = isinstance(lifetime, int | float) and not isinstance(lifetime, bool) and lifetime > 0
    return f"Bearer {token}", float(lifetime) if usable else DEFAULT_LIFETIME
