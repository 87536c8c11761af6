"""What is answered before, or in place of, a handler: requests that no route takes, and what requests `Expect`.

Both would else be answered by the server library, in words of its own, and an odd `Expect` be refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

from aiohttp import web

_LONGEST = 200
"""Characters of a path that are repeated in an answer."""


def complete(routes: Iterable[web.RouteDef]) -> list[web.RouteDef]:
    """The routes of a server that only gives, and one more that refuses whatever they do not take.

    `Expect` is passed over, for no body is read: the answer itself tells the client all (RFC 9110, section 10.1.1, lets a server
    answer at once in place of `100 Continue`, and ignore what else may be expected).
    """
    everything = [*routes, web.route("*", r"/{path:[\s\S]*}", _refuse)]
    return [
        web.RouteDef(route.method, route.path, route.handler, {**route.kwargs, "expect_handler": _pass_over})
        for route in everything
    ]


async def _refuse(request: web.Request) -> NoReturn:
    if request.method not in {"GET", "HEAD"}:
        raise web.HTTPMethodNotAllowed(request.method, ("GET", "HEAD"))
    place = request.path[:_LONGEST]
    raise web.HTTPNotFound(text=f"nothing is at {place} here: images are below /v2/, CVMFS repositories below /cvmfs/")


async def _pass_over(request: web.Request) -> None:
    """As if it were not there."""
