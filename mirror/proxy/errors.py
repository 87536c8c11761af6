"""Failures as responses: OCI error JSON with the right status, for whatever a handler raised.

Clients show the message of the first error to their users, so it names the thing, the upstream and the reason.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Awaitable, Callable
from itertools import count
from math import ceil
from typing import TypeVar

import structlog
from aiohttp import web

from mirror.errors import Denied, MirrorError, NotFound, TooManyRequests, Unauthenticated, Unavailable
from mirror.logs import REQUEST_ID
from mirror.oci.codes import ErrorCode, code_of, error_body
from mirror.oci.listing import BadCount
from mirror.proxy.exchange import Exchange, begin_exchange
from mirror.proxy.routes import BadDigest, BadReference, UnknownUpstream

log = structlog.get_logger()

R = TypeVar("R", bound=web.BaseRequest)

REQUEST_ID_HEADER = "X-Request-Id"

_PROCESS = [secrets.token_hex(6)]
"""Begins the ids of this process's requests; a number follows. Random bytes for each would cost more than all else here."""
_NUMBERS = count()


def _begin_anew() -> None:
    """In a process that was forked: its ids are its own."""
    _PROCESS[:] = [secrets.token_hex(6)]


os.register_at_fork(after_in_child=_begin_anew)


def new_request_id() -> str:
    """One that no other request has."""
    return f"{_PROCESS[0]}{next(_NUMBERS):08x}"


_ROUTE_CODES: dict[type[MirrorError], ErrorCode] = {
    BadDigest: ErrorCode.DIGEST_INVALID,
    BadReference: ErrorCode.MANIFEST_INVALID,
    BadCount: ErrorCode.PAGINATION_NUMBER_INVALID,
    UnknownUpstream: ErrorCode.NAME_UNKNOWN,
}
_HTTP_CODES = {404: ErrorCode.NAME_UNKNOWN, 405: ErrorCode.UNSUPPORTED}


async def answer_errors(request: R, handler: Callable[[R], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
    """Begin an exchange, and turn what the handler raises into a response; an unexpected exception is logged and a 500."""
    exchange = begin_exchange(request, new_request_id())
    outside = REQUEST_ID.set(exchange.request_id)
    try:
        return await handler(request)
    except MirrorError as error:
        return _response(error, exchange)
    except web.HTTPException as error:
        code = _HTTP_CODES.get(error.status)
        if code is None:
            raise
        return _http_response(error, code)
    except Exception:
        log.exception("request_failed", method=request.method, path=request.path)
        return _json(ErrorCode.UNKNOWN, None, {})
    finally:
        REQUEST_ID.reset(outside)


def _response(error: MirrorError, exchange: Exchange) -> web.Response:
    code = _ROUTE_CODES.get(type(error)) or code_of(error, exchange.subject)
    headers = dict(exchange.hints or {})
    if isinstance(error, Unauthenticated):
        # The one challenge that every client can answer: a token may be given as the password.
        headers["WWW-Authenticate"] = error.challenge or 'Basic realm="debark", charset="UTF-8"'
    if isinstance(error, Unavailable):
        headers["Retry-After"] = str(ceil(error.retry_after or 1))
    if not isinstance(error, NotFound | Denied | TooManyRequests):
        log.info("request_refused", code=code.value, reason=str(error))
    return _json(code, str(error), headers)


def _http_response(error: web.HTTPException, code: ErrorCode) -> web.Response:
    allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
    return _json(code, error.text if code is not ErrorCode.UNSUPPORTED else None, allow)


def _json(code: ErrorCode, message: str | None, headers: dict[str, str]) -> web.Response:
    return web.Response(
        status=code.status, body=error_body(code, message), headers={**headers, "Content-Type": "application/json"}
    )
