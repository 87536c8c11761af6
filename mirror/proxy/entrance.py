"""What every request passes first: who asks is looked at, and whether there is room; what is known already is answered here.

Only what is left goes on to the application, whose router alone would take longer than all of this.

One request more than may be under way at the same time is told to come again, before it has cost anything: 503 is what clients
fall back from at once (429 would make most of them wait). What operators need to see in such a moment is let in always.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from mirror.errors import Unavailable
from mirror.proxy.errors import answer_errors
from mirror.proxy.exchange import current_exchange
from mirror.proxy.guard import Guard
from mirror.proxy.warm import WarmAnswers

_Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
_Finish = Callable[[Any, web.StreamResponse], Awaitable[None]]

_RETRY_SECONDS = 2.0
_OPEN = frozenset({"/healthz", "/readyz"})
"""For everybody."""
_ALWAYS = frozenset({"/metrics"})
"""Whatever else is under way."""


class Entrance:
    """In front of an application; itself the handler that a server calls."""

    def __init__(self, application: _Handler, guard: Guard, warm: WarmAnswers, max_requests: int, finish: _Finish) -> None:
        """max_requests: how many the application may be answering at the same time.

        finish: adds to a response what all have in common; the application does so for those that it sends by itself.
        """
        self._application = application
        self._guard = guard
        self._warm = warm
        self._max_requests = max_requests
        self._finish = finish
        self._under_way = 0

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer it; whatever goes wrong is an answer as well."""
        response = await answer_errors(request, self._let_in)
        if isinstance(response, web.Response):  # It may be a refusal that the application has not seen.
            await self._finish(request, response)
        return response

    async def _let_in(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path in _OPEN:
            return await self._application(request)
        exchange = current_exchange(request)
        client = await self._guard.identify(request, exchange)
        self._guard.gate.enter(client)
        try:
            warm = self._warm.answer(request, exchange)
            return warm if warm is not None else await self._enter(request)
        finally:
            self._guard.gate.leave(client)

    async def _enter(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path in _ALWAYS:
            return await self._application(request)
        if self._under_way >= self._max_requests:
            limit = self._max_requests
            raise Unavailable(f"the mirror is answering {limit} requests already, and takes no more", _RETRY_SECONDS)
        self._under_way += 1
        try:
            return await self._application(request)
        finally:
            self._under_way -= 1
