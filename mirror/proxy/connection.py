"""One client's connection, as far as the mirror does more than the server library.

Requests that are no HTTP, or have more in their head than a server takes, are refused here, before any handler. Sources:
RFC 9112, section 3 (a request line that is too long is a 414), RFC 6585, section 5 (headers that are too large: 431).
A client that does not read is left: what waits for it would be kept for ever.
"""

from __future__ import annotations

import asyncio
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
    """What is wrong with its requests is told and logged as every other failure is."""

    __slots__ = ("_name", "_patience", "_stall")

    def __init__(self, server: web.Server, *, name: str, max_header: int, patience: float, **options: Any) -> None:
        """name: as what the server names itself. max_header: bytes of the longest request line, and of the longest header.

        patience: seconds for which the client may read nothing of what waits for it.
        """
        # Which of the limits was passed can be told if they differ.
        super().__init__(server, max_line_size=max_header, max_field_size=max_header + 1, **options)
        self._name = name
        self._patience = patience
        self._stall: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        """The client does not keep up."""
        super().pause_writing()
        self._stall = asyncio.get_running_loop().call_later(self._patience, self._leave)

    def resume_writing(self) -> None:
        """It does again."""
        self._forget_stall()
        super().resume_writing()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Nobody is there any more."""
        self._forget_stall()
        super().connection_lost(exc)

    def _forget_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _leave(self) -> None:
        if self.transport is not None:
            log.info("client_too_slow", client=self.transport.get_extra_info("peername"), seconds=self._patience)
            self.transport.abort()

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
