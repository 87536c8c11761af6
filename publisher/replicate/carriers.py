"""The processes beside a replication that fetch small objects, seen from the replication: `carrier.py` is what they run.

One event loop is one core's worth of HTTP, hashing and system calls. With processes for the many small objects, the replication's
own loop is left with catalogs, large objects and whatever goes wrong.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable

import structlog

from publisher.replicate import carrier as program
from publisher.replicate.carrier import Order
from publisher.replicate.listing import WantedObject
from publisher.threads import to_the_end

_IN_HAND = 16
"""Objects that a carrier has been told of, for each of its connections."""
_READ_AT_ONCE = 64 << 10
_PATIENCE = 10.0
"""Seconds for a carrier to end, after which it is killed."""

log = structlog.get_logger()


class Carriers:
    """Some of them; to be closed. For one event loop."""

    def __init__(
        self,
        order: Order,
        group: asyncio.TaskGroup,
        *,
        on_stored: Callable[[WantedObject, int], None],
        on_refused: Callable[[WantedObject], Awaitable[None]],
    ) -> None:
        """group: for the tasks that hear them. on_stored is told the bytes; what is refused is for the caller to fetch."""
        self._order = order
        self._group = group
        self._on_stored = on_stored
        self._on_refused = on_refused
        self._carriers: list[_Carrier] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self._room = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, count: int) -> None:
        """Start so many, or as many as the machine allows."""
        for _ in range(count):
            try:
                process, connection = _process()
            except OSError as error:
                log.warning("carrier_not_started", error=str(error))
                return
            self._processes.append(process)
            replies, orders = await asyncio.open_unix_connection(sock=connection)
            orders.write(self._order.line())
            carrier = _Carrier(process.pid, replies, orders)
            self._carriers.append(carrier)
            self._tasks.append(self._group.create_task(self._hear(carrier)))

    async def take(self, wanted: WantedObject) -> bool:
        """Let a carrier fetch the object, as soon as one has room for it; False if there is none left."""
        most = _IN_HAND * self._order.connections
        while alive := [carrier for carrier in self._carriers if carrier.is_alive]:
            carrier = min(alive, key=lambda one: len(one.in_hand))
            if len(carrier.in_hand) < most:
                carrier.take(wanted)
                return True
            self._room.clear()
            await self._room.wait()
        return False

    def stop(self) -> None:
        """Hear no more; nothing may be under way."""
        for task in self._tasks:
            task.cancel()

    async def close(self) -> None:
        """End them, and return when they have ended."""
        for carrier in self._carriers:
            carrier.orders.close()
        await to_the_end(self._reap)

    async def _hear(self, carrier: _Carrier) -> None:
        while lines := await carrier.hear():
            for line in lines:
                name, _, size = line.partition(b" ")
                wanted = carrier.in_hand.pop(name)
                if size:
                    self._on_stored(wanted, int(size))
                else:
                    await self._on_refused(wanted)
            self._room.set()
        carrier.is_alive = False
        self._room.set()
        log.warning("carrier_lost", pid=carrier.pid, next="its objects are fetched without it")
        for wanted in carrier.in_hand.values():
            await self._on_refused(wanted)

    def _reap(self) -> None:
        for process in self._processes:
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class _Carrier:
    """One of them, and what it was told."""

    def __init__(self, pid: int, replies: asyncio.StreamReader, orders: asyncio.StreamWriter) -> None:
        self.pid = pid
        self.orders = orders
        self.in_hand: dict[bytes, WantedObject] = {}
        self.is_alive = True
        self._replies = replies
        self._rest = b""
        self._pending: list[bytes] = []

    def take(self, wanted: WantedObject) -> None:
        """Tell it of an object, with all others that it is told of before the event loop comes round."""
        text = str(wanted.content)
        name = f"{text[:2]}/{text[2:]}{wanted.kind.value}".encode("ascii")
        self.in_hand[name] = wanted
        if not self._pending:
            asyncio.get_running_loop().call_soon(self._tell)
        self._pending.append(name)

    async def hear(self) -> list[bytes]:
        """The next lines of replies; none at the end."""
        lines: list[bytes] = []
        while not lines:
            try:
                data = await self._replies.read(_READ_AT_ONCE)
            except ConnectionError:
                return []
            if not data:
                return []
            *lines, self._rest = (self._rest + data).split(b"\n")
        return lines

    def _tell(self) -> None:
        self.orders.write(b"\n".join(self._pending) + b"\n")
        self._pending.clear()


def _process() -> tuple[subprocess.Popen[bytes], socket.socket]:
    """It finds its modules where this process found them, and not in the directory that somebody happens to be in."""
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            process = subprocess.Popen(  # noqa: S603 (the same program)
                [sys.executable, "-P", "-m", program.__name__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        except BaseException:
            ours.close()
            raise
    return process, ours
