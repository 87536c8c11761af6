"""One worker: a whole mirror in a process of its own, which accepts on the server's sockets and does as its parent says.

A worker that is to stop takes no new connection. Whoever is connected gets the answer, with the word that the connection ends;
connections that have nothing under way are closed a moment later, and what is left when the time is over is cut. Transfers from
upstreams stay as part files, which any other process goes on with. A worker whose parent has died stops in the same way.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from aiohttp import web
from aiohttp.abc import AbstractAccessLogger

from mirror.app import USER_AGENT, Mirror, open_mirror
from mirror.background import running
from mirror.config import wiring
from mirror.config.models import Config
from mirror.errors import MirrorError, Unavailable
from mirror.logs import Logs
from mirror.metrics import Metrics
from mirror.proxy.access_log import access_logger
from mirror.proxy.connection import ClientConnection
from mirror.report.writer import AccessLog
from mirror.snapshot import Snapshot, of_worker
from mirror.tls import ServerCertificate, bound_read_buffers
from mirror.workers.acceptor import Acceptor
from mirror.workers.channel import Answer, Channel
from mirror.workers.seats import Seats
from mirror.workers.shares import worker_share

log = structlog.get_logger()

EXIT_CANNOT_START = 1

_LAST_WORD_SECONDS = 0.5
"""After which a worker that stops closes connections with nothing under way: what was just sent on them has arrived by then."""
_LOOK_SECONDS = 0.05
_CUT_SECONDS = 0.5
_GOODBYE_SECONDS = 10.0
"""For clients of TLS: who takes no longer than the default of `server.slow_time` allows has the last bytes by then."""
_ASK_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Start:
    """What a worker is told when it begins."""

    config: Config
    """The server's settings; not yet this worker's share of them."""
    number: int
    """Which of the workers; number 0 does what needs doing once."""
    workers: int
    seat: int

    def as_json(self) -> dict[str, Any]:
        """For the channel."""
        settings = self.config.model_dump(mode="json")
        return {"settings": settings, "number": self.number, "workers": self.workers, "seat": self.seat}

    @classmethod
    def from_json(cls, given: dict[str, Any]) -> Start:
        """From the channel."""
        return cls(Config.model_validate(given["settings"]), given["number"], given["workers"], given["seat"])


def work(descriptors: Sequence[int]) -> int:
    """A worker's life, in a process that was just forked; its exit code.

    descriptors: of the channel to the parent, of the table of seats, and of all listening sockets, in this order.
    """
    channel, seats, *listeners = descriptors
    return asyncio.run(
        Worker(Seats(seats), [socket.socket(fileno=listener) for listener in listeners]).run(socket.socket(fileno=channel))
    )


class Worker:
    """One worker."""

    def __init__(self, seats: Seats, listeners: Sequence[socket.socket]) -> None:
        self._seats = seats
        self._listeners = listeners
        self._metrics = Metrics()
        self._number = 0
        self._is_leaving = False
        self._stop = asyncio.Event()
        self._deadline = math.inf
        self._mirror: Mirror | None = None

    async def run(self, parent: socket.socket) -> int:
        """Serve until told to stop, or until the parent has died; the exit code."""
        loop = asyncio.get_running_loop()
        asked: asyncio.Future[Start] = loop.create_future()
        started: asyncio.Future[None] = loop.create_future()

        async def start(given: dict[str, Any]) -> None:
            asked.set_result(Start.from_json(given))
            await started

        async def snapshot(_: None) -> Snapshot:
            return self._snapshot()

        answers: dict[str, Answer] = {
            "start": start,
            "metrics": snapshot,
            "health": self._health,
            "leave": self._leave,
            "stop": self._stop_within,
        }
        self._channel = await Channel.over(parent, answers)
        closed = asyncio.create_task(self._channel.closed())
        closed.add_done_callback(lambda _: asked.cancel())
        closed.add_done_callback(lambda _: self._stop.set())
        try:
            told = await asked
        except asyncio.CancelledError:
            return EXIT_CANNOT_START
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        _name_process(f"debark-{told.number}")
        try:
            async with self._serving(told):
                started.set_result(None)
                await self._stop.wait()
                self._is_leaving = True
        except MirrorError as error:
            if started.done():
                raise
            started.set_exception(error)
            await asyncio.sleep(0)
            await self._channel.closed()
            return EXIT_CANNOT_START
        finally:
            await self._channel.close()
            await asyncio.gather(closed, return_exceptions=True)
        return 0

    # What the parent may ask

    async def _health(self, _: None) -> dict[str, str]:
        return await self._mirror.findings() if self._mirror is not None else {}

    async def _leave(self, _: None) -> None:
        """Say that this server should get no more traffic, and go on."""
        self._is_leaving = True

    async def _stop_within(self, seconds: float) -> None:
        self._deadline = min(self._deadline, asyncio.get_running_loop().time() + seconds)
        self._is_leaving = True
        self._stop.set()

    # What this worker asks the parent

    async def metrics(self) -> Snapshot:
        """Of the whole server. Raises Unavailable."""
        found: Snapshot = await self._channel.ask("metrics", seconds=_ASK_SECONDS)
        return found

    async def health(self) -> dict[str, str | None]:
        """What is wrong with the server, by part, as all workers and the parent see it; None where all is well."""
        try:
            found: dict[str, str | None] = await self._channel.ask("health", seconds=_ASK_SECONDS)
        except Unavailable as error:
            return {"server": f"the process that keeps the workers: {error}"}
        return found

    @property
    def is_leaving(self) -> bool:
        """Whether the server is about to stop."""
        return self._is_leaving

    # Serving

    @asynccontextmanager
    async def _serving(self, told: Start) -> AsyncIterator[None]:
        self._number = told.number
        config = worker_share(told.config, told.workers)
        async with AsyncExitStack() as stack:
            stack.enter_context(_logging(config, self._metrics, told.number))
            self._mirror = await stack.enter_async_context(open_mirror(config, self._metrics, self, has_chores=told.number == 0))
            self._mirror.application.on_response_prepare.append(self._say_last_word)
            access_log_class = self._access_log_class(config, stack)
            runner = await self._open_runner(self._mirror, stack)
            certificate = _certificate(config)
            if certificate is not None:
                bound_read_buffers()
                await stack.enter_async_context(running("certificate", certificate.watch))
            server = runner.server
            assert server is not None  # noqa: S101 - `setup` has made it
            self._metrics.watch_connections(lambda: len(server.connections))
            connection = partial(
                ClientConnection,
                server,
                name=USER_AGENT,
                max_header=config.server.max_header,
                patience=config.server.slow_time,
                keepalive_timeout=config.server.keepalive,
                access_log_class=access_log_class,
                loop=asyncio.get_running_loop(),
            )
            acceptor = Acceptor(
                self._listeners,
                connection,
                connections=lambda: len(server.connections),
                seats=self._seats,
                seat=told.seat,
                tls=certificate.context if certificate else None,
                handshake_seconds=config.server.keepalive,
                goodbye_seconds=min(config.server.keepalive, _GOODBYE_SECONDS),
            )
            log.info("worker_started", pid=os.getpid())
            try:
                yield
                log.info("worker_stopping")
            finally:
                self._mirror.warm.close()
                acceptor.stop()
                await self._drain(server, config.server.grace)

    def _access_log_class(self, config: Config, stack: AsyncExitStack) -> type[AbstractAccessLogger]:
        access_log = None
        if config.access_log is not None:
            access_log = AccessLog(config.access_log, on_drop=lambda: self._metrics.log_line_dropped("access"))
            stack.callback(access_log.close)
        return access_logger(access_log, self._metrics)

    async def _open_runner(self, mirror: Mirror, stack: AsyncExitStack) -> web.AppRunner:
        stack.push_async_callback(self._send_last_figures)
        runner = await mirror.open_runner(shutdown_timeout=_CUT_SECONDS)
        stack.push_async_callback(runner.cleanup)
        return runner

    async def _drain(self, server: web.Server, grace: float) -> None:
        """Wait for what is under way. grace: seconds for that, unless the parent has said how many."""
        now = asyncio.get_running_loop().time()
        if math.isinf(self._deadline):
            self._deadline = now + grace
        await self._emptied(server, now + _LAST_WORD_SECONDS)
        server.pre_shutdown()
        # That leaves connections with nothing under way open, and unserved: each is closed as soon as that is so.
        closing = [asyncio.create_task(connection.shutdown(None)) for connection in server.connections]
        await self._emptied(server, math.inf)
        for task in closing:
            task.cancel()
        await asyncio.gather(*closing, return_exceptions=True)
        if server.connections:
            log.warning("connections_cut", connections=len(server.connections))

    async def _emptied(self, server: web.Server, until: float) -> None:
        """Return when nobody is connected, at that time, or at the deadline, which may come nearer meanwhile."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(_LOOK_SECONDS)
        while server.connections and loop.time() < min(until, self._deadline):  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(_LOOK_SECONDS)

    async def _say_last_word(self, _: web.Request, response: web.StreamResponse) -> None:
        if self._stop.is_set():
            response.force_close()
            response.headers["Connection"] = "close"  # The server library has made its headers already.

    async def _send_last_figures(self) -> None:
        try:
            await self._channel.ask("bye", self._snapshot(), seconds=_ASK_SECONDS)
        except Unavailable:
            log.debug("last_figures_not_sent")

    def _snapshot(self) -> Snapshot:
        return of_worker(self._metrics.snapshot(), str(self._number))


def _name_process(name: str) -> None:
    """As `top` and `ps` show it; the command line is the parent's."""
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(name)


def _logging(config: Config, metrics: Metrics, worker: int) -> Logs:
    try:
        return Logs(wiring.log_options(config, worker), on_drop=lambda: metrics.log_line_dropped("debark"))
    except OSError as error:
        raise Unavailable(f"the log {config.log_file} cannot be opened: {error.strerror}") from error


def _certificate(config: Config) -> ServerCertificate | None:
    """What the server presents; None if it speaks plain HTTP. Raises InvalidInput."""
    server = config.server
    return ServerCertificate(Path(server.tls_certificate), Path(server.tls_key)) if server.tls_certificate else None
