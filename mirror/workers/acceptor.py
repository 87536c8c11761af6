"""Takes connections from listening sockets that several workers share, so that each of them gets its part.

All workers wait on the same sockets, so no connection waits for a worker that is busy or dead, and none is lost when one goes.
But whoever runs first would take them all: asyncio's own server empties the queue each time it wakes. Here a worker lets a moment
pass before it takes a connection while another worker has clearly fewer. What it takes it takes at once: in the middle of many
transfers its next turn may be a while away.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable, Sequence

import structlog

from mirror.workers.seats import Seats

log = structlog.get_logger()

_YIELD_SECONDS = 0.001
_LEAD = 8
"""A worker may be ahead of another by an eighth of its connections: few are spread evenly, many quickly."""
_MOST_AT_ONCE = 128
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_EXHAUSTED_SECONDS = 1.0


class Acceptor:
    """Accepts from construction to `stop`."""

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        make_protocol: Callable[[], asyncio.BaseProtocol],
        *,
        connections: Callable[[], int],
        seats: Seats,
        seat: int,
        tls: ssl.SSLContext | None = None,
        handshake_seconds: float = 60.0,
        goodbye_seconds: float = 10.0,
    ) -> None:
        """connections: how many are open. seat: of this process.

        handshake_seconds: how long a client of TLS may take for it. goodbye_seconds: how long it may take, once the connection
        ends, for the last bytes (some 100 KiB at the most) and for saying that it has seen the end (RFC 8446, section 6.1).
        """
        self._loop = asyncio.get_running_loop()
        self._listeners = list(listeners)
        self._make_protocol = make_protocol
        self._connections = connections
        self._seats = seats
        self._seat = seat
        self._tls = tls
        self._handshake_seconds = handshake_seconds if tls is not None else None
        self._goodbye_seconds = goodbye_seconds if tls is not None else None
        self._pauses: dict[socket.socket, asyncio.TimerHandle] = {}
        self._opening: set[asyncio.Task[None]] = set()
        seats.take(seat, connections())
        for listener in self._listeners:
            listener.setblocking(False)
            self._watch(listener)

    def stop(self) -> None:
        """Take no more; what has been taken is served. The sockets stay open for others."""
        self._seats.leave(self._seat)
        for pause in self._pauses.values():
            pause.cancel()
        for listener in self._listeners:
            self._loop.remove_reader(listener)
            listener.close()
        self._listeners.clear()

    def _watch(self, listener: socket.socket) -> None:
        self._loop.add_reader(listener, self._ready, listener)

    def _ready(self, listener: socket.socket) -> None:
        for _ in range(_MOST_AT_ONCE):
            own = self._count()
            if own > self._seats.least() + own // _LEAD:
                self._pause(listener, _YIELD_SECONDS, lambda: self._accept(listener))
                return
            if not self._accept(listener):
                return

    def _count(self) -> int:
        """Connections that are open or about to be, for the others to see as well."""
        own = self._connections() + len(self._opening)
        self._seats.take(self._seat, own)
        return own

    def _pause(self, listener: socket.socket, seconds: float, then: Callable[[], object] = lambda: None) -> None:
        """Look away for so long; then do something, and look again."""

        def over() -> None:
            del self._pauses[listener]
            self._watch(listener)
            then()

        self._loop.remove_reader(listener)
        self._pauses[listener] = self._loop.call_later(seconds, over)

    def _accept(self, listener: socket.socket) -> bool:
        """Take a connection, if one waits; whether there may be another one."""
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False  # Another worker was faster, or the client is gone.
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                raise
            log.error("connection_not_accepted", reason=error.strerror, pause=_EXHAUSTED_SECONDS)  # noqa: TRY400 - no bug
            self._pause(listener, _EXHAUSTED_SECONDS)
            return False
        connection.setblocking(False)
        task = self._loop.create_task(self._open(connection))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)
        self._count()
        return True

    async def _open(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(
                self._make_protocol,
                connection,
                ssl=self._tls,
                ssl_handshake_timeout=self._handshake_seconds,
                ssl_shutdown_timeout=self._goodbye_seconds,
            )
        except OSError as error:  # ssl.SSLError is one: the client broke off, or speaks something else.
            log.debug("connection_not_opened", reason=str(error))
            connection.close()
