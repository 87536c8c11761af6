"""Runs the mirror: listens, keeps the publisher beside it, says how to use it, and stops in good order."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import structlog
from aiohttp import web

from mirror.app import Mirror, open_mirror
from mirror.background import running
from mirror.config.models import Config
from mirror.data import DataDirectory
from mirror.errors import Unavailable
from mirror.jobs.repositories import Repositories, RepositoryFacts
from mirror.metrics import Metrics
from mirror.proxy.access_log import access_logger
from mirror.proxy.status import HealthProbe
from mirror.report.writer import AccessLog
from mirror.screen import start_screen
from mirror.supervisor import Supervisor
from mirror.tls import ServerCertificate

log = structlog.get_logger()

_REPOSITORIES_SECONDS = 20.0
"""How long the start screen waits for its own publisher to make the repositories; the mirror serves meanwhile."""
_LOOK_SECONDS = 0.1
_EVERYWHERE = frozenset({"0.0.0.0", "[::]"})  # noqa: S104 (read here, not bound)


async def serve(config: Config, publisher_command: Sequence[str], metrics: Metrics, show: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT.

    publisher_command: starts the publisher with the same settings. show: prints the start screen.
    Raises InvalidInput, ConfigError, StorageFull, Unavailable if it cannot start.
    """
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    data = DataDirectory(config.data)
    async with AsyncExitStack() as stack:
        publisher = None
        if config.publish.enabled and config.publish.supervised:
            publisher = Supervisor(publisher_command, data.logs / "publisher.log", grace=config.server.grace)
        mirror = await stack.enter_async_context(open_mirror(config, metrics, _probe(publisher) if publisher else None))
        address = await _listen(config, mirror, metrics, stack)
        if publisher is not None:
            await stack.enter_async_context(running("publisher", publisher.run))
        stack.enter_context(_announced(data.run / "address", address))
        log.info("serving", address=address, data=str(config.data))
        showing = asyncio.create_task(_show_when_ready(config, mirror.repositories, address, show))
        await stopped.wait()
        log.info("stopping")
        showing.cancel()
        await asyncio.gather(showing, return_exceptions=True)


async def _listen(config: Config, mirror: Mirror, metrics: Metrics, stack: AsyncExitStack) -> str:
    """Accept requests; host and port as bound."""
    access_log = None
    if config.access_log is not None:
        access_log = AccessLog(config.access_log, on_drop=lambda: metrics.log_line_dropped("access"))
        stack.callback(access_log.close)
    runner = web.AppRunner(
        mirror.application,
        access_log_class=access_logger(access_log, metrics),
        handle_signals=False,
        shutdown_timeout=config.server.grace,
        keepalive_timeout=config.server.keepalive,
        max_line_size=config.server.max_header,
        max_field_size=config.server.max_header,
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    host, port = config.address
    certificate = _certificate(config)
    if certificate is not None:
        await stack.enter_async_context(running("certificate", certificate.watch))
    try:
        await web.TCPSite(runner, host, port, ssl_context=certificate.context if certificate else None).start()
    except OSError as error:
        reason = "something else listens there" if error.errno == errno.EADDRINUSE else error.strerror
        raise Unavailable(f"cannot listen on {host}:{port}: {reason}; choose another address with --listen HOST:PORT") from error
    bound_host, bound_port = runner.addresses[0][:2]
    return f"[{bound_host}]:{bound_port}" if ":" in bound_host else f"{bound_host}:{bound_port}"


def _certificate(config: Config) -> ServerCertificate | None:
    """What the server presents; None if it speaks plain HTTP. Raises InvalidInput."""
    server = config.server
    return ServerCertificate(Path(server.tls_certificate), Path(server.tls_key)) if server.tls_certificate else None


@contextlib.contextmanager
def _announced(file: Path, address: str) -> Iterator[None]:
    """Have the bound address in a file as long as it is served, for scripts; with port 0 nobody else knows it."""
    file.write_text(f"{address}\n")
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def _probe(publisher: Supervisor) -> HealthProbe:
    async def probe() -> str | None:
        return None if publisher.pid is not None else "the publisher does not run; its log says why, and it is started again"

    return probe


async def _show_when_ready(config: Config, repositories: Repositories, address: str, show: Callable[[str], None]) -> None:
    """Print the start screen once the publisher has made all repositories, or does not seem to."""
    wanted = set(config.publish.repositories) if config.publish.enabled else set()
    found = await _made(repositories, wanted, _REPOSITORIES_SECONDS if config.publish.supervised else 0.0)
    data = DataDirectory(config.data)
    scheme = "https" if config.server.tls_certificate else "http"
    show(start_screen(config.server.public_url or _url(scheme, address), data.logs, data.keys, found))
    missing = wanted - {facts.fqrn for facts in found}
    if missing:
        log.warning("repositories_not_ready", missing=sorted(missing), see=str(data.logs / "publisher.log"))


def _url(scheme: str, address: str) -> str:
    """Of the server for clients that may be elsewhere, if it listens to all of them."""
    host, _, port = address.rpartition(":")
    return f"{scheme}://{socket.gethostname() if host in _EVERYWHERE else host}:{port}"


async def _made(repositories: Repositories, wanted: set[str], patience: float) -> list[RepositoryFacts]:
    end = asyncio.get_running_loop().time() + patience
    while True:
        found: list[RepositoryFacts] = []
        with contextlib.suppress(Unavailable):  # /healthz says so; the screen has more to tell.
            found = [facts for facts in await repositories.all() if facts.fqrn in wanted]
        if len(found) == len(wanted) or asyncio.get_running_loop().time() >= end:
            return found
        await asyncio.sleep(_LOOK_SECONDS)
