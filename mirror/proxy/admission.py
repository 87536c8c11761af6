"""How many requests may be under way at the same time: one more is told to come again, before it has cost anything.

503 is what clients fall back from at once (429 would make most of them wait). What operators need to see in such a moment is let
in always.
"""

from __future__ import annotations

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from mirror.errors import Unavailable

RETRY_SECONDS = 2.0
_ALWAYS = frozenset({"/healthz", "/readyz", "/metrics"})


def bounded_requests(limit: int) -> Middleware:
    """A middleware that raises Unavailable for a request that comes while `limit` others are under way."""
    under_way = 0

    @web.middleware
    async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
        nonlocal under_way
        if request.path in _ALWAYS:
            return await handler(request)
        if under_way >= limit:
            raise Unavailable(f"the mirror is answering {limit} requests already, and takes no more", RETRY_SECONDS)
        under_way += 1
        try:
            return await handler(request)
        finally:
            under_way -= 1

    return admit
