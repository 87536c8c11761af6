"""The parent's hand on its workers: it keeps them running, changes them for new ones, and puts together what they tell.

Whatever a worker has accepted it keeps in the store, in part files and in SQL, where the next one finds it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog

from mirror.config.models import Config
from mirror.errors import MirrorError, Unavailable
from mirror.snapshot import Snapshot, added, lasting
from mirror.workers.channel import Channel, Ended
from mirror.workers.nursery import Nursery
from mirror.workers.seats import SEATS, Seats
from mirror.workers.worker import Start

log = structlog.get_logger()

_START_SECONDS = 60.0
_ASK_SECONDS = 2.0
_SPARE_SECONDS = 20.0
"""Beyond the time that a worker has for what is under way: to record pulls and close files."""
_SHORTEST_PAUSE = 0.1
_LONGEST_PAUSE = 30.0
_LONG_LIFE = 60.0


@dataclass(eq=False)
class _Child:
    """One process."""

    number: int
    seat: int
    pid: int
    exited: asyncio.Future[int]
    channel: Channel
    figures: Snapshot = field(default_factory=list)
    """As they were last told."""
    born: float = field(default_factory=time.monotonic)

    @property
    def lives(self) -> bool:
        return not self.exited.done()


@dataclass(eq=False)
class _Post:
    """The place of one worker, which one process after the other has."""

    number: int
    child: _Child
    keeper: asyncio.Task[None] | None = None


class WorkerPool:
    """As many workers as the settings say."""

    def __init__(self, nursery: Nursery, listeners: Sequence[socket.socket]) -> None:
        self._nursery = nursery
        self._listeners = listeners
        self._seats = Seats.make()
        self._free_seats = set(range(SEATS))
        self._posts: dict[int, _Post] = {}
        self._leaving: dict[_Child, asyncio.Task[None]] = {}
        self._closing: set[asyncio.Future[None]] = set()
        self._past: Snapshot = []
        self._restarts = 0
        self._config: Config | None = None
        self.parts: dict[str, str | None] = {}
        """What the parent finds: what is wrong by part, None where all is well. Workers pass it on."""

    async def start(self, config: Config) -> None:
        """Start all workers; returns when each of them serves. Raises Unavailable with the first one's reason."""
        self._config = config
        started = await asyncio.gather(*(self._spawn(number, config) for number in range(config.workers)), return_exceptions=True)
        for child in started:
            if isinstance(child, _Child):
                self._appoint(child)
        for failure in started:
            if isinstance(failure, BaseException):
                raise failure

    async def roll(self, config: Config) -> None:
        """Change every worker for one with these settings; the old ones finish what is under way.

        The first new one shows that the settings can be used. Raises Unavailable if they cannot: then nothing has changed.
        """
        first = await self._spawn(0, config)
        self._config = config
        self._appoint(first)
        for number in range(1, config.workers):
            try:
                self._appoint(await self._spawn(number, config))
            except Unavailable as error:
                log.error("worker_not_changed", worker=number, reason=str(error))  # noqa: TRY400 - no bug
        for number in [number for number in self._posts if number >= config.workers]:
            self._dismiss(self._posts.pop(number))

    async def leave(self) -> None:
        """Have all workers say that this server should get no more traffic; they go on serving."""
        await asyncio.gather(*(self._told(post.child, "leave", None) for post in self._posts.values()))

    async def stop(self, grace: float) -> None:
        """Stop all workers, also those that were to finish at their leisure; what is under way has so many seconds."""
        children = [*self._leaving, *(post.child for post in self._posts.values() if post.child.lives)]
        for task in (*self._leaving.values(), *(post.keeper for post in self._posts.values() if post.keeper is not None)):
            task.cancel()
        self._posts.clear()
        await asyncio.gather(*(self._see_off(child, grace) for child in children))
        await asyncio.gather(*self._closing)

    async def figures(self) -> Snapshot:
        """The metrics of all workers, those that have ended included."""
        posts = list(self._posts.values())
        await asyncio.gather(*(self._count(child) for child in (*(post.child for post in posts), *self._leaving)))
        # What ends keeps its counters, but no longer has memory or connections that anybody asks about; what has ended is past.
        parts = [post.child.figures for post in posts if post.child.lives]
        parts += [lasting(child.figures) for child in self._leaving]
        return added([*parts, self._past, self._own_figures()])

    async def findings(self) -> dict[str, str | None]:
        """What is wrong with the server, by part: as the parent sees it, and as any of the workers does."""
        found = dict(self.parts)
        silent: list[int] = []

        async def ask(child: _Child) -> None:
            try:
                found.update(await child.channel.ask("health", seconds=_ASK_SECONDS))
            except Unavailable:
                silent.append(child.number)

        # A worker that starts again is silent as well.
        await asyncio.gather(*(ask(post.child) for post in self._posts.values()))
        wanted = self._config.workers if self._config is not None else 0
        silent += sorted(set(range(wanted)) - self._posts.keys())
        names = ", ".join(map(str, sorted(silent)))
        found["workers"] = f"{len(silent)} of {wanted} do not answer: {names}; the log says why" if silent else None
        return found

    async def is_alive(self) -> bool:
        """Whether any worker answers."""
        return any(await asyncio.gather(*(self._count(post.child) for post in self._posts.values())))

    # One process

    async def _spawn(self, number: int, config: Config) -> _Child:
        """A worker that serves. Raises Unavailable."""
        if not self._free_seats:
            raise Unavailable("too many workers are still finishing what they have")
        seat = min(self._free_seats)
        self._free_seats.discard(seat)
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                handed = [theirs, *self._listeners]
                descriptors = [theirs.fileno(), self._seats.descriptor, *(one.fileno() for one in handed[1:])]
                pid, exited = await self._nursery.spawn(descriptors)
        except BaseException:
            ours.close()
            self._free_seats.add(seat)
            raise
        channel = await Channel.over(ours, {})
        child = _Child(number, seat, pid, exited, channel)
        channel.answers.update(
            {"metrics": lambda _: self.figures(), "health": lambda _: self.findings(), "bye": lambda told: _note(child, told)}
        )
        exited.add_done_callback(lambda _: self._buried(child))
        try:
            await channel.ask("start", Start(config, number, config.workers, seat).as_json(), seconds=_START_SECONDS)
        except BaseException as error:
            await channel.close()
            await self._wait_or_kill(child, _ASK_SECONDS)
            if isinstance(error, Ended):
                code = exited.result()
                how = f"by signal {-code}" if code < 0 else f"with exit code {code}, having said why"
                raise Unavailable(f"worker {number} ended while it started, {how}") from error
            raise
        log.info("worker_serves", worker=number, pid=pid)
        return child

    def _appoint(self, child: _Child) -> None:
        """Have this process in its post; whoever had it finishes at leisure."""
        post = self._posts.get(child.number)
        if post is None:
            post = self._posts[child.number] = _Post(child.number, child)
            post.keeper = asyncio.create_task(self._keep(post))
            return
        before, post.child = post.child, child
        self._retire(before)

    async def _keep(self, post: _Post) -> None:
        """Fill the post again whenever the process in it dies."""
        pause = _SHORTEST_PAUSE
        while True:
            child = post.child
            code = await asyncio.shield(child.exited)
            if post.child is not child:
                continue
            lived = time.monotonic() - child.born
            if lived > _LONG_LIFE:
                pause = _SHORTEST_PAUSE
            log.error("worker_died", worker=post.number, pid=child.pid, exit_code=code, lived=round(lived, 1), restart_in=pause)
            self._restarts += 1
            while post.child is child:
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
                if post.child is child:
                    await self._fill(post)

    async def _fill(self, post: _Post) -> None:
        assert self._config is not None  # noqa: S101 - `start` came first
        before = post.child
        try:
            child = await self._spawn(post.number, self._config)
        except (MirrorError, OSError) as error:
            log.error("worker_not_started", worker=post.number, reason=str(error))  # noqa: TRY400 - no bug
            return
        if post.child is before:
            post.child = child
        else:  # A reload was faster.
            self._retire(child)

    def _dismiss(self, post: _Post) -> None:
        if post.keeper is not None:
            post.keeper.cancel()
        self._retire(post.child)

    def _retire(self, child: _Child) -> None:
        assert self._config is not None  # noqa: S101 - `start` came first
        if child.lives:
            self._leaving[child] = asyncio.create_task(self._see_off(child, self._config.server.reload_grace))

    async def _see_off(self, child: _Child, seconds: float) -> None:
        await self._told(child, "stop", seconds)
        await self._wait_or_kill(child, seconds + _SPARE_SECONDS)

    async def _wait_or_kill(self, child: _Child, seconds: float) -> None:
        await asyncio.wait([child.exited], timeout=seconds)
        if child.lives:
            log.error("worker_killed", worker=child.number, pid=child.pid, waited=seconds)
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
            await asyncio.wait([child.exited])

    def _buried(self, child: _Child) -> None:
        self._seats.leave(child.seat)
        self._free_seats.add(child.seat)
        self._leaving.pop(child, None)
        self._past = added([self._past, lasting(child.figures)])
        closing = asyncio.ensure_future(child.channel.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    # Asking

    async def _told(self, child: _Child, what: str, argument: float | None) -> None:
        with contextlib.suppress(Unavailable):  # It has died, which its keeper sees.
            await child.channel.ask(what, argument, seconds=_ASK_SECONDS)

    async def _count(self, child: _Child) -> bool:
        """Whether it answers; if not, what it said last is what counts."""
        try:
            child.figures = await child.channel.ask("metrics", seconds=_ASK_SECONDS)
        except Unavailable:
            return False
        return True

    def _own_figures(self) -> Snapshot:
        return [
            {
                "name": "debark_workers",
                "help": "Worker processes",
                "type": "gauge",
                "samples": [{"name": "debark_workers", "labels": {}, "value": float(len(self._posts))}],
            },
            {
                "name": "debark_worker_restarts",
                "help": "Workers that died and were started again",
                "type": "counter",
                "samples": [{"name": "debark_worker_restarts_total", "labels": {}, "value": float(self._restarts)}],
            },
            {
                "name": "debark_server_condition",
                "help": "1 while the server has this trouble; /healthz says more",
                "type": "gauge",
                "samples": [
                    {"name": "debark_server_condition", "labels": {"condition": part}, "value": float(trouble is not None)}
                    for part, trouble in self.parts.items()
                ],
            },
        ]


async def _note(child: _Child, figures: Snapshot) -> None:
    child.figures = figures
