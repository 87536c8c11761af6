"""Rights at an upstream: tokens for a scope, got from the token service that the upstream names, or Basic authentication.

Sources: RFC 7617 (Basic), RFC 6750 (Bearer), and the distribution project's token specifications ("Token Authentication
Specification": GET realm?service=..&scope=.., answer {"token" or "access_token", "expires_in"}; "Oauth2 Token Authentication":
POST with grant_type=refresh_token, for identity tokens).
Tokens and passwords are in no message and in no log.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import aiohttp
import structlog
from yarl import URL

from mirror.connecting import trouble
from mirror.errors import Denied, MirrorError
from mirror.oci.challenge import BearerChallenge, Challenge, accepts_basic, find_bearer
from mirror.upstream.body import read_limited
from mirror.upstream.fingerprint import fingerprint
from mirror.upstream.flight import SingleFlight
from mirror.upstream.model import Credential, CredentialRefused, CredentialSource, Failure, Upstream, UpstreamUnavailable
from mirror.upstream.policy import is_server_error, parse_retry_after
from mirror.upstream.token_cache import TokenCache, TokenKey, TokenRequest
from mirror.upstream.trust import check_realm

log = structlog.get_logger()

DEFAULT_LIFETIME = 60.0
"""Seconds that a token is good for if its service does not say (token specification, "expires_in")."""
MAX_ANSWER_BYTES = 256 * 1024
_CLIENT_ID = "debark"
_BASIC = "Basic "


class Authenticator:
    """Answers the challenges of one upstream with the credential that is for a repository, or as nobody."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        upstream: Upstream,
        credentials: CredentialSource | None,
        cache: TokenCache,
        *,
        of_client: bool = False,
    ) -> None:
        """of_client: the credential is a client's own; one of the mirror's that is refused is the operator's to mend."""
        self._of_client = of_client
        self._session = session
        self._upstream = upstream
        self._credentials = credentials
        self._cache = cache
        self._flights: SingleFlight[TokenKey, str] = SingleFlight()
        self._renewals: set[asyncio.Task[None]] = set()

    def acting_as(self, credential: Credential) -> Authenticator:
        """The same for somebody else; tokens are kept in the same place, each for its holder."""
        return Authenticator(self._session, self._upstream, credential, self._cache, of_client=True)

    async def known(self, repository: str) -> str | None:
        """The value of `Authorization` to send with a request to pull at once, None if none is known.

        Raises Denied if just refused, UpstreamUnavailable. One whose time is nearly up is replaced in the background.
        """
        credential = await self._credential(repository)
        key = self._key(repository, credential)
        header = self._cache.get(key)
        request = self._cache.due(key)
        if request is not None:
            self._renew(key, request, credential)
        return header

    async def answer(self, challenges: Sequence[Challenge], repository: str, refused: str | None) -> str:
        """The value of `Authorization` that the challenges ask for, to pull from a repository.

        refused: the value that was sent and brought the challenge. Raises Denied, UpstreamUnavailable.
        """
        credential = await self._credential(repository)
        key = self._key(repository, credential)
        self._cache.drop(key, refused)
        known = self._cache.get(key)
        if known is not None:
            return known
        header, _ = await self._flights.run(key, lambda: self._obtain(key, challenges, refused, credential))
        return header

    async def judged(self, repository: str, authorization: str, *, is_refused: bool) -> CredentialRefused | None:
        """What the upstream's answer to this value means for its holder: of Basic, nothing else tells whether it is right."""
        if not authorization.startswith(_BASIC):
            return None
        key = self._key(repository, await self._credential(repository))
        if not is_refused:
            self._cache.accept(key)
            return None
        self._cache.drop(key, authorization)
        return self._refused(key)

    async def close(self) -> None:
        """Give up what is under way."""
        for renewal in self._renewals:
            renewal.cancel()
        await asyncio.gather(*self._renewals, return_exceptions=True)
        await self._flights.close()

    async def _credential(self, repository: str) -> Credential | None:
        return await self._credentials.credential_for(repository) if self._credentials is not None else None

    def _key(self, repository: str, credential: Credential | None) -> TokenKey:
        return TokenKey(self._upstream.name, f"repository:{repository}:pull", fingerprint(credential))

    def _renew(self, key: TokenKey, request: TokenRequest, credential: Credential | None) -> None:
        """Get another token while the old one is still good; if that fails, the old one stays."""

        async def fetch() -> str:
            header, lifetime = await self._fetch(request, credential)
            self._cache.put(key, header, lifetime, request)
            return header

        async def renew() -> None:
            with contextlib.suppress(MirrorError):
                await self._flights.run(key, fetch)

        task = asyncio.create_task(renew())
        self._renewals.add(task)
        task.add_done_callback(self._renewals.discard)

    async def _obtain(
        self, key: TokenKey, challenges: Sequence[Challenge], refused: str | None, credential: Credential | None
    ) -> str:
        bearer = find_bearer(challenges)
        if bearer is None:
            header = self._basic(key, challenges, refused, credential)
            self._cache.put(key, header, float("inf"), is_proven=False)
            return header
        query = {"scope": bearer.scope or key.scope, **({"service": bearer.service} if bearer.service else {})}
        request = TokenRequest(self._realm(bearer), query)
        try:
            header, lifetime = await self._fetch(request, credential)
        except MirrorError as error:
            self._fail(key, error)
            raise
        self._cache.put(key, header, lifetime, request)
        return header

    def _basic(self, key: TokenKey, challenges: Sequence[Challenge], refused: str | None, credential: Credential | None) -> str:
        name = self._upstream.name
        if not accepts_basic(challenges):
            raise Denied(f"upstream {name} denies access and does not say how to get it")
        if credential is None or credential.is_identity_token:
            raise Denied(f"upstream {name} wants a user name and password, and none is used for this")
        header = _basic_header(credential)
        if header == refused:
            raise self._refused(key)
        return header

    def _refused(self, key: TokenKey) -> CredentialRefused:
        error = CredentialRefused(f"upstream {self._upstream.name} refuses the user name and password that are used for it")
        self._fail(key, error)
        return error

    def _fail(self, key: TokenKey, error: MirrorError) -> None:
        self._cache.fail(key, error)
        if isinstance(error, CredentialRefused) and not self._of_client:
            log.warning("account_refused", upstream=self._upstream.name, scope=key.scope, reason=str(error))

    def _realm(self, bearer: BearerChallenge) -> URL:
        try:
            realm = URL(bearer.realm)
        except ValueError as error:
            raise Denied(f"upstream {self._upstream.name} names a token service that is no web address") from error
        check_realm(self._upstream, realm)
        return realm

    async def _fetch(self, request: TokenRequest, credential: Credential | None) -> tuple[str, float]:
        name, scope = self._upstream.name, request.query["scope"]
        where = f"the token service of upstream {name} at {request.realm.host}"
        try:
            async with self._asked(request, credential) as response:
                status = response.status
                retry_after = parse_retry_after(response.headers.get("Retry-After"), time.time())
                body = await read_limited(response, MAX_ANSWER_BYTES) if status == 200 else b""
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise UpstreamUnavailable(f"{where} cannot be reached: {trouble(error)}", Failure.UNREACHABLE) from error
        if body is None:
            raise UpstreamUnavailable(f"{where} answers with more than {MAX_ANSWER_BYTES} bytes", Failure.PROTOCOL)
        if status == 200:
            return _read_token(body, where)
        if status == 429:
            raise UpstreamUnavailable(f"{where} throttles this mirror", Failure.THROTTLED, retry_after)
        if is_server_error(status):
            raise UpstreamUnavailable(f"{where} fails with status {status}", Failure.ERROR, retry_after)
        if credential is None:
            raise Denied(f"{where} gives an anonymous client no token for {scope} (status {status})")
        # RFC 6749, section 5.2: a refresh token that is not good is a 400.
        is_wrong = status == 401 or (status == 400 and credential.is_identity_token)
        kind = CredentialRefused if is_wrong else Denied
        raise kind(f"{where} gives this user no token for {scope} (status {status})")

    def _asked(self, request: TokenRequest, credential: Credential | None) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """The request to the token service: a password goes by GET and Basic, an identity token in the body of a POST."""
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        timeout = aiohttp.ClientTimeout(total=self._upstream.connect_timeout + self._upstream.read_timeout)
        # Never along a redirect: it would take the credential to a place that nobody has checked.
        if credential is not None and credential.is_identity_token:
            form = {"grant_type": "refresh_token", "client_id": _CLIENT_ID, "refresh_token": credential.password, **request.query}
            return self._session.post(
                request.realm, data=form, headers=headers, allow_redirects=False, auto_decompress=False, timeout=timeout
            )
        if credential is not None:
            headers["Authorization"] = _basic_header(credential)
        url = request.realm.update_query(request.query)
        return self._session.get(url, headers=headers, allow_redirects=False, auto_decompress=False, timeout=timeout)


def _basic_header(credential: Credential) -> str:
    pair = f"{credential.username}:{credential.password}".encode("utf-8", "replace")
    return f"{_BASIC}{base64.b64encode(pair).decode()}"


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
