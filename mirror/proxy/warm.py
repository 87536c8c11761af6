"""Complete answers to requests for manifests and small blobs, kept for a moment: nodes that start one job ask all at once.

An answer is given again only to requests that cannot get another one: the same path and query under the same name of the server,
without credentials for an upstream, conditions or wishes for freshness, and from clients that take its media type. A moment is
short enough for all that an answer is made of (how fresh a tag is, where an image stands, what is public) to be looked at again.

What is kept is what goes over the wire, but for the request's id: to make headers of it each time would cost as much CPU as all
that is done to decide whether the client may have it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import formatdate

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter

from mirror.fetch.result import CacheResult
from mirror.observe.events import Pull, PullQueue
from mirror.oci.accept import parse_accept
from mirror.proxy.errors import REQUEST_ID_HEADER
from mirror.proxy.exchange import Exchange, exchange_of
from mirror.proxy.logins import ANONYMOUS
from mirror.proxy.routes import Route
from mirror.report.accesslog import RequestKind

_WISHES = ("Cache-Control", "If-None-Match", "Range")
_METHODS = frozenset({"GET", "HEAD"})
_Key = tuple[str, str, str]


class _WarmResponse(web.StreamResponse):
    """Status 200 with headers and body as they go over the wire; one object for any number of requests at the same time."""

    def __init__(self, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__(headers=headers)
        lines = ["HTTP/1.1 200 OK", *(f"{name}: {value}" for name, value in headers.items()), f"{REQUEST_ID_HEADER}: "]
        self._head = "\r\n".join(lines).encode()
        self._tail = b"\r\n\r\n" + body

    @property
    def keep_alive(self) -> bool:
        """Only requests that leave the connection open are answered with this."""
        return True

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        """Send everything."""
        exchange = exchange_of(request)
        identity = exchange.request_id.encode() if exchange is not None else b"-"
        await request.writer.write(self._head + identity + self._tail)
        await request.writer.drain()  # Small ones would be taken without end from who asks for many and reads none.
        return request.writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to send."""


@dataclass(frozen=True, slots=True)
class WarmAnswer:
    """An answer, and what the logs and the publisher are told of a request that gets it."""

    response: web.StreamResponse
    sent: int
    """Bytes of the body."""
    until: float
    kind: RequestKind
    route: Route | None
    digest: str
    media_type: str
    state: str
    pull: Pull | None


class WarmAnswers:
    """A memory of answers."""

    def __init__(
        self,
        seconds: float = 1.0,
        *,
        server: str = "debark",
        pulls: PullQueue | None = None,
        passes_credentials: bool = True,
        answers: int = 2000,
        largest: int = 32 << 10,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        """seconds: what a moment is, 0 for none. answers: how many are kept; largest: bytes of the largest one.

        server: as what the server names itself. pulls: where what was given again is noted; None if nothing is to be published.
        passes_credentials: whether what a client may read depends on who it is; an account of the mirror itself opens all of it.
        """
        self._seconds = seconds
        self._server = server
        self._pulls = pulls
        self._passes_credentials = passes_credentials
        self._limit = answers
        self._largest = largest
        self._timer = timer
        self._answers: dict[_Key, WarmAnswer] = {}

    def close(self) -> None:
        """Keep and give none any more: their headers do not say that a server which stops closes the connection."""
        self._seconds = 0.0
        self._answers.clear()

    def answer(self, request: web.BaseRequest, exchange: Exchange) -> web.StreamResponse | None:
        """What this request can be answered with, if it is known."""
        found = self._answers.get(_key(request))
        if found is None or found.until < self._timer() or not self._is_plain(request):
            return None
        if not parse_accept(request.headers.getall("Accept", ())).takes(found.media_type):
            return None
        if self._pulls is not None and found.pull is not None:
            self._pulls.put(found.pull)
        exchange.kind, exchange.cache = found.kind, CacheResult.HIT
        exchange.route, exchange.digest, exchange.media_type = found.route, found.digest, found.media_type
        exchange.state, exchange.sent = found.state, found.sent
        return found.response

    def keep(self, request: web.Request, exchange: Exchange, response: web.Response, pull: Pull | None) -> None:
        """Remember how a request was answered, if another one may be answered alike."""
        body = response.body
        if (
            self._seconds <= 0
            or exchange.cache is not CacheResult.HIT
            or response.status != 200
            or not isinstance(body, bytes)
            or len(body) > self._largest
            or not self._is_plain(request)
        ):
            return
        headers = {**response.headers, "Content-Length": str(len(body)), "Date": formatdate(usegmt=True), "Server": self._server}
        if not all(value.isascii() and value.isprintable() for value in headers.values()):
            return
        if len(self._answers) >= self._limit:
            self._answers.clear()
        sent = body if request.method == "GET" else b""
        self._answers[_key(request)] = WarmAnswer(
            _WarmResponse(headers, sent),
            len(sent),
            self._timer() + self._seconds,
            exchange.kind,
            exchange.route,
            exchange.digest,
            exchange.media_type,
            exchange.state,
            pull,
        )

    def _is_plain(self, request: web.BaseRequest) -> bool:
        """Whether nothing about the request asks for more than its address says."""
        headers = request.headers
        return (
            request.method in _METHODS
            and request.keep_alive
            and request.version == HttpVersion11
            and not any(name in headers for name in _WISHES)
            and not (self._passes_credentials and headers.get("Authorization", ANONYMOUS) != ANONYMOUS)
        )


def _key(request: web.BaseRequest) -> _Key:
    return request.method, request.headers.get("Host", ""), request.raw_path
