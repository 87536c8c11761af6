"""Runs the server: its sockets, the workers that answer on them, the publisher beside them, the start screen.

SIGHUP makes it read its settings again; SIGTERM and SIGINT stop it in good order. This process is there for as long as the server
is, and answers nobody by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import structlog

from mirror.background import running
from mirror.config import wiring
from mirror.config.mistakes import ConfigError
from mirror.config.models import Config
from mirror.data import DataDirectory
from mirror.errors import MirrorError, Unavailable
from mirror.jobs.repositories import Repositories, RepositoryFacts
from mirror.listening import address_of, handed_over, listening
from mirror.publishing import PublisherCommand, Publishing
from mirror.reload import needing_restart, with_fixed
from mirror.screen import start_screen
from mirror.service_manager import ServiceManager
from mirror.state.engine import Database
from mirror.workers.nursery import Nursery
from mirror.workers.pool import WorkerPool

log = structlog.get_logger()

_REPOSITORIES_SECONDS = 20.0
"""How long the start screen waits for its own publisher to make the repositories; the mirror serves meanwhile."""
_LOOK_SECONDS = 0.1
_EVERYWHERE = frozenset({"0.0.0.0", "[::]"})  # noqa: S104 (read here, not bound)


@dataclass(frozen=True, slots=True)
class Invocation:
    """What the command line makes of itself."""

    config: Config
    load: Callable[[], Config]
    """Reads the settings again. Raises ConfigError."""
    log_as: Callable[[Config], None]
    """Has this process log as these settings say."""
    publisher_command: PublisherCommand
    show: Callable[[str], None]
    """Prints the start screen."""
    manager: ServiceManager


async def serve(invocation: Invocation, nursery: Nursery) -> None:
    """Serve until SIGTERM or SIGINT. Raises InvalidInput, ConfigError, StorageFull, Unavailable if it cannot start, or go on."""
    stopped, reload = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    loop.add_signal_handler(signal.SIGHUP, reload.set)
    config, manager = invocation.config, invocation.manager
    async with AsyncExitStack() as stack:
        listeners = handed_over() or stack.enter_context(listening(*config.address))
        server = _Server(invocation, WorkerPool(nursery, listeners), listeners)
        stack.push_async_callback(server.close)
        await server.start()
        address = address_of(listeners)
        stack.enter_context(_announced(DataDirectory(config.data).run / "address", address))
        await stack.enter_async_context(running("watchdog", lambda: manager.show_life(server.pool.is_alive)))
        await stack.enter_async_context(running("reload", lambda: server.reload_each(reload)))
        showing = asyncio.create_task(_show_when_ready(config, address, invocation.show))
        stack.callback(showing.cancel)
        log.info("serving", address=address, data=str(config.data), workers=config.workers)
        manager.ready(server.status)
        await _first(stopped, nursery.lost)
        manager.stopping()
        log.info("stopping")
    if nursery.lost.is_set():
        raise Unavailable("the process that makes workers has died, and no worker can be started again: start the server again")


class _Server:
    """The running server: its settings, which may change, and what is made of them."""

    def __init__(self, invocation: Invocation, pool: WorkerPool, listeners: list[socket.socket]) -> None:
        self.pool = pool
        self._invocation = invocation
        self._config = invocation.config
        self._listeners = listeners
        self._serves = False
        self._publishing = Publishing(invocation.publisher_command, pool.parts)

    @property
    def status(self) -> str:
        """One line."""
        workers = self._config.workers
        return f"serving at {address_of(self._listeners)} with {workers} worker{'s' if workers > 1 else ''}"

    async def start(self) -> None:
        """Raises Unavailable."""
        await self.pool.start(self._config)
        self.pool.parts["settings"] = None
        self._serves = True
        await self._publishing.apply(self._config)

    async def reload_each(self, asked: asyncio.Event) -> None:
        """Read the settings again whenever it is asked for, until cancelled."""
        while True:
            await asked.wait()
            asked.clear()
            self._invocation.manager.reloading()
            try:
                await self._reload()
            finally:
                self._invocation.manager.ready(self.status)

    async def close(self) -> None:
        """Stop, in good order."""
        if self._serves and self._config.server.stop_delay:
            await self.pool.leave()
            await asyncio.sleep(self._config.server.stop_delay)
        for listener in self._listeners:
            listener.close()
        await asyncio.gather(self.pool.stop(self._config.server.grace), self._publishing.close())

    async def _reload(self) -> None:
        try:
            wanted = self._invocation.load()
        except ConfigError as error:
            self._refuse([str(mistake) for mistake in error.mistakes])
            return
        fixed = needing_restart(self._config, wanted)
        if fixed:
            log.warning("settings_need_restart", settings=fixed)
        config = with_fixed(self._config, wanted)
        try:
            await self.pool.roll(config)
        except MirrorError as error:
            self._refuse([str(error)])
            return
        self.pool.parts["settings"] = None
        self._config = config
        self._invocation.log_as(config)
        log.info("settings_changed", workers=config.workers)
        await self._publishing.apply(config)

    def _refuse(self, mistakes: list[str]) -> None:
        """Go on as before, and say so until settings are read that can be used."""
        log.error("settings_not_changed", mistakes=mistakes)
        further = f" (and {len(mistakes) - 1} more, see the log)" if len(mistakes) > 1 else ""
        self.pool.parts["settings"] = f"those of before stay in effect, for the new ones have a mistake: {mistakes[0]}{further}"


async def _first(*events: asyncio.Event) -> None:
    """Return when any of them is set."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()


@contextlib.contextmanager
def _announced(file: Path, address: str) -> Iterator[None]:
    """Have the bound address in a file as long as it is served, for scripts; with port 0 nobody else knows it.

    Where the disk is full there is no such file: pulls can be answered all the same.
    """
    # Whoever waits for the file finds all of it.
    unfinished = file.with_suffix(".new")
    try:
        unfinished.write_text(f"{address}\n")
        unfinished.replace(file)
    except OSError as error:
        log.warning("address_not_written", file=str(file), address=address, reason=error.strerror)
    try:
        yield
    finally:
        for written in (unfinished, file):
            with contextlib.suppress(OSError):
                written.unlink()


async def _show_when_ready(config: Config, address: str, show: Callable[[str], None]) -> None:
    """Print the start screen once the publisher has made all repositories, or does not seem to."""
    wanted = set(config.publish.repositories) if config.publish.enabled else set()
    database = Database(wiring.database(config))
    try:
        found = await _made(Repositories(database), wanted, _REPOSITORIES_SECONDS if config.publish.supervised else 0.0)
    finally:
        await database.close()
    data = DataDirectory(config.data)
    scheme = "https" if config.server.tls_certificate else "http"
    url = config.public_url if config.server.public_url or address.startswith("unix:") else _url(scheme, address)
    show(start_screen(url, data.logs, data.keys, found, config.server.cvmfs_url))
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
