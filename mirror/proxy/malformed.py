"""Requests that are no HTTP, or have more in their head than a server takes: refused by the connection, before any handler.

Sources: RFC 9112, section 3 (a request line that is too long is a 414), RFC 6585, section 5 (headers that are too large: 431).
"""

from __future__ import annotations

from typing import Any

import structlog
from aiohttp import web
from aiohttp.http_exceptions import BadHttpMethod, HttpProcessingError, LineTooLong

from mirror.logs import REQUEST_ID
from mirror.oci.codes import ErrorCode, error_body
from mirror.proxy.errors import REQUEST_ID_HEADER, new_request_id
from mirror.proxy.exchange import begin_exchange

log = structlog.get_logger()

_LONGEST = 200
"""Characters of a reason."""


class ClientConnection(web.RequestHandler):
    """One client's connection: what is wrong with its requests is told and logged as every other failure is."""

    __slots__ = ("_name",)

    def __init__(self, server: web.Server, *, name: str, max_header: int, **options: Any) -> None:
        """name: as what the server names itself. max_header: bytes of the longest request line, and of the longest header."""
        # Which of the limits was passed can be told if they differ.
        super().__init__(server, max_line_size=max_header, max_field_size=max_header + 1, **options)
        self._name = name

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """The answer to a request that could not be read, the last one on this connection."""
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        exchange = begin_exchange(request, new_request_id())
        REQUEST_ID.set(exchange.request_id)
        status, reason = self._reason(exc)
        # Clients that try TLS first, on a port without, are many, and mean no harm.
        note = log.debug if isinstance(exc, BadHttpMethod) else log.info
        note("request_malformed", client=request.remote, status=status, reason=reason)
        headers = {"Content-Type": "application/json", "Server": self._name, REQUEST_ID_HEADER: exchange.request_id}
        return web.Response(status=status, body=error_body(ErrorCode.REQUEST_INVALID, reason), headers=headers)

    def _reason(self, error: HttpProcessingError) -> tuple[int, str]:
        """Status and words; nothing of the request itself, which may have a password in it."""
        if isinstance(error, LineTooLong):
            if error.args[1] == self.max_line_size:
                return 414, f"the request line has more than {self.max_line_size} bytes (server.max_header)"
            return 431, f"a header has more than {self.max_line_size} bytes (server.max_header)"
        reason = " ".join(error.message.partition(":")[0].split())[:_LONGEST]
        return (431 if reason.startswith("Too many headers") else 400), f"this is no HTTP request that can be read: {reason}"
