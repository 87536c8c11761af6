"""One request to an upstream: with the rights it asks for, and along the redirects that it may make.

Authorization goes to the upstream's own origin (scheme, host and port) and nowhere else. Every failure of the HTTP client leaves
here as one of ours, naming the upstream and the thing that was asked for.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import aiohttp
from yarl import URL

from mirror.connecting import trouble
from mirror.errors import Denied, MirrorError, NotFound
from mirror.oci.challenge import parse_challenges
from mirror.upstream.auth import Authenticator
from mirror.upstream.body import upstream_words
from mirror.upstream.gate import Gate
from mirror.upstream.model import Failure, Upstream, UpstreamRequest, UpstreamUnavailable
from mirror.upstream.policy import is_server_error, parse_retry_after
from mirror.upstream.trust import check_redirect

MAX_REDIRECTS = 5
_KINDS = {"manifests": "manifest", "blobs": "blob", "referrers": "referrers", "tags": "tags"}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class Transport:
    """Sends requests to one upstream."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        upstream: Upstream,
        authenticator: Authenticator,
        gate: Gate,
        on_request: Callable[[UpstreamRequest], None],
    ) -> None:
        """on_request: called at the end of each request, but for its body; those for tokens are not counted."""
        self._session = session
        self._gate = gate
        self._on_request = on_request
        self._upstream = upstream
        self._authenticator = authenticator
        self._personal = False
        connect, read = upstream.connect_timeout, upstream.read_timeout
        self._endless = aiohttp.ClientTimeout(total=None, connect=connect, sock_connect=connect, sock_read=read)
        self._short = aiohttp.ClientTimeout(total=connect + 2 * read, connect=connect, sock_connect=connect, sock_read=read)

    def acting_as(self, authenticator: Authenticator) -> Transport:
        """The same with the rights of one client."""
        other = copy.copy(self)
        other._personal = True  # noqa: SLF001 - one of us
        other._authenticator = authenticator  # noqa: SLF001 - one of us
        return other

    async def send(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        *,
        repository: str,
        what: str,
        endless: bool = False,
        insist: bool = False,
    ) -> aiohttp.ClientResponse:
        """The answer to a request below the base URL, whatever its status but 401 with a way out; the caller releases it.

        what: names the thing in messages. endless: the body may take any time, as long as something of it keeps coming.
        insist: ask also while the upstream is left alone. Raises Denied, UpstreamUnavailable.
        """
        way = self._gate.attempt(what, repository, transfer=endless, insist=insist, personal=self._personal)
        async with way as attempt:
            response = await self._send(method, path, headers, repository=repository, what=what, endless=endless)
            if response.status == 429 or is_server_error(response.status):
                failure = Failure.THROTTLED if response.status == 429 else Failure.ERROR
                attempt.failure = UpstreamUnavailable(f"status {response.status}", failure, _retry_after(response))
            return response

    async def _send(
        self, method: str, path: str, headers: Mapping[str, str], *, repository: str, what: str, endless: bool
    ) -> aiohttp.ClientResponse:
        start = URL(f"{self._upstream.url}{path}", encoded=True)
        authorization = await self._authenticator.known(repository)
        response = await self._follow(method, start, headers, authorization, what=what, endless=endless)
        if response.status != 401 or response.url.origin() != start.origin():
            return response
        challenges = parse_challenges(response.headers.getall("WWW-Authenticate", []))
        response.release()
        if not challenges and authorization is not None:
            # Some say no more than 401 to a token that has expired, and how to get one only to who has none.
            response = await self._follow(method, start, headers, None, what=what, endless=endless)
            if response.status != 401 or response.url.origin() != start.origin():
                return response
            challenges = parse_challenges(response.headers.getall("WWW-Authenticate", []))
            response.release()
        authorization = await self._authenticator.answer(challenges, repository, authorization)
        response = await self._follow(method, start, headers, authorization, what=what, endless=endless)
        is_refused = response.status == 401 and response.url.origin() == start.origin()
        refusal = await self._authenticator.judged(repository, authorization, is_refused=is_refused)
        if refusal is not None:
            response.release()
            raise refusal
        return response

    async def _follow(
        self, method: str, start: URL, headers: Mapping[str, str], authorization: str | None, *, what: str, endless: bool
    ) -> aiohttp.ClientResponse:
        status = 0
        try:
            response = await self._follow_redirects(method, start, headers, authorization, what=what, endless=endless)
            status = response.status
        finally:
            self._on_request(UpstreamRequest(self._upstream.name, method, _kind(start.raw_path), status))
        return response

    async def _follow_redirects(
        self, method: str, start: URL, headers: Mapping[str, str], authorization: str | None, *, what: str, endless: bool
    ) -> aiohttp.ClientResponse:
        timeout = self._endless if endless else self._short
        url = start
        for _ in range(MAX_REDIRECTS + 1):
            sent = {**headers, "Accept-Encoding": "identity"}
            if authorization is not None and url.origin() == start.origin():
                sent["Authorization"] = authorization
            with self.wrapped(what):
                response = await self._session.request(
                    method, url, headers=sent, allow_redirects=False, auto_decompress=False, timeout=timeout
                )
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or location is None:
                return response
            response.release()
            try:
                url = url.join(URL(location, encoded=True))
            except ValueError as error:
                raise self._nonsense(what, "redirects to something that is no web address") from error
            check_redirect(self._upstream, url)
        raise self._nonsense(what, f"redirects more than {MAX_REDIRECTS} times")

    def _nonsense(self, what: str, does: str) -> UpstreamUnavailable:
        return UpstreamUnavailable(f"upstream {self._upstream.name} {does}, asked for {what}", Failure.PROTOCOL)

    @contextmanager
    def wrapped(self, what: str) -> Iterator[None]:
        """Turn the HTTP client's exceptions into ours."""
        where = f"upstream {self._upstream.name}"
        try:
            yield
        except (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError) as error:
            raise UpstreamUnavailable(
                f"{where} cannot be reached, asked for {what}: {trouble(error)}", Failure.UNREACHABLE
            ) from error
        except TimeoutError as error:
            raise UpstreamUnavailable(
                f"{where} was silent for {self._upstream.read_timeout:g} s, asked for {what}", Failure.TIMEOUT
            ) from error
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, OSError) as error:
            raise UpstreamUnavailable(
                f"{where} broke the connection, asked for {what}: {trouble(error)}", Failure.LOST
            ) from error
        except (aiohttp.ClientError, ValueError) as error:
            raise UpstreamUnavailable(
                f"{where} does not speak HTTP, asked for {what}: {trouble(error)}", Failure.PROTOCOL
            ) from error

    async def failure(self, response: aiohttp.ClientResponse, what: str) -> MirrorError:
        """What an answer that is not the wanted one means; reads and releases it."""
        status = response.status
        retry_after = _retry_after(response)
        words = await upstream_words(response)
        response.release()
        where = f"upstream {self._upstream.name}"
        if status == 404:
            return NotFound(f"{where} has no {what}{words}")
        if status in (401, 403):
            return Denied(f"{where} denies access to {what} (status {status}){words}")
        if status == 429:
            return UpstreamUnavailable(f"{where} throttles this mirror, asked for {what}{words}", Failure.THROTTLED, retry_after)
        if is_server_error(status):
            return UpstreamUnavailable(f"{where} fails with status {status}, asked for {what}{words}", Failure.ERROR, retry_after)
        return UpstreamUnavailable(f"{where} answers with status {status}, asked for {what}{words}", Failure.PROTOCOL)


def _kind(path: str) -> str:
    """What a path below the base URL asks for, in one word."""
    return _KINDS.get(path.split("/")[-2], "other")


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    return parse_retry_after(response.headers.get("Retry-After"), time.time())
