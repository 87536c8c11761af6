"""Complete answers to requests for manifests, kept for a moment: many nodes that start one job ask for one tag at the same time.

An answer is given again only to requests that cannot get another one: the same path and query under the same name of the server,
without credentials, conditions or wishes for freshness. A moment is short enough for whatever an answer is made of (how fresh a
tag is, where an image stands, what is public) to be looked at again in time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web
from multidict import CIMultiDict

from mirror.fetch.result import CacheResult
from mirror.observe.events import Pull
from mirror.proxy.exchange import Exchange
from mirror.proxy.logins import ANONYMOUS
from mirror.proxy.routes import Route

_PERSONAL = ("Cache-Control", "If-None-Match")
_METHODS = frozenset({"GET", "HEAD"})
_Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class WarmAnswer:
    """An answer, and what the logs and the publisher are told of a request that gets it."""

    body: bytes
    headers: CIMultiDict[str]
    until: float
    route: Route | None
    digest: str
    media_type: str
    state: str
    pull: Pull | None

    def respond(self, exchange: Exchange) -> web.Response:
        """Once more."""
        exchange.route, exchange.digest, exchange.media_type = self.route, self.digest, self.media_type
        exchange.cache, exchange.state = CacheResult.HIT, self.state
        return web.Response(body=self.body, headers=self.headers.copy())


class WarmAnswers:
    """A memory of answers."""

    def __init__(
        self, seconds: float = 1.0, *, answers: int = 2000, largest: int = 32 << 10, timer: Callable[[], float] = time.monotonic
    ) -> None:
        """seconds: what a moment is, 0 for none. answers: how many are kept; largest: bytes of the largest one."""
        self._seconds = seconds
        self._limit = answers
        self._largest = largest
        self._timer = timer
        self._answers: dict[_Key, WarmAnswer] = {}

    def find(self, request: web.Request) -> WarmAnswer | None:
        """What this request can be answered with, if it is known."""
        found = self._answers.get(_key(request))
        if found is None or found.until < self._timer() or not _is_plain(request):
            return None
        return found

    def keep(self, request: web.Request, exchange: Exchange, response: web.Response, pull: Pull | None) -> None:
        """Remember how a request was answered, if another one may be answered alike."""
        body = response.body
        if (
            self._seconds <= 0
            or exchange.cache is not CacheResult.HIT
            or response.status != 200
            or not isinstance(body, bytes)
            or len(body) > self._largest
            or not _is_plain(request)
        ):
            return
        if len(self._answers) >= self._limit:
            self._answers.clear()
        self._answers[_key(request)] = WarmAnswer(
            body,
            response.headers.copy(),
            self._timer() + self._seconds,
            exchange.route,
            exchange.digest,
            exchange.media_type,
            exchange.state,
            pull,
        )


def _key(request: web.Request) -> _Key:
    return request.method, request.headers.get("Host", ""), request.raw_path


def _is_plain(request: web.Request) -> bool:
    """Whether nothing about the request asks for more than its address says."""
    headers = request.headers
    if headers.get("Authorization", ANONYMOUS) != ANONYMOUS:
        return False
    return request.method in _METHODS and not any(name in headers for name in _PERSONAL)
