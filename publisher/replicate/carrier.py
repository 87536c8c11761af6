"""A process beside a replication, which fetches small objects: one try for each, verified before it can be seen.

It is told names of objects, and says of each how many bytes it stored, or only the name if it did not. Whatever was wrong: the
replication fetches such an object itself, tries again with patience, and finds the words for what it is told then. So a carrier
knows neither retries nor messages, needs no threads, and costs half of what an object costs there.

    down  one line of JSON, an `Order`; then lines `0c/b816...`, paths below `data/`
    up    lines `0c/b816... 4711` or `0c/b816...`

It ends when the socket does, and so never outlives the replication by more than a moment. What it stores in that moment is right,
whoever writes the replica then.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from mirror.errors import MirrorError
from publisher.objects.http_client import HttpLimits, RepositoryClient, open_client
from publisher.objects.local import LocalObjectStore
from publisher.objects.names import parse_object_name
from publisher.replicate.wrong import verify

LARGEST = 256 << 10
"""Bytes of an object, as stored, that it holds at most for each connection."""

_REPLY_SECONDS = 0.003
_READ_AT_ONCE = 64 << 10


@dataclass(frozen=True, slots=True)
class Order:
    """From where to where, and as in `HttpLimits`."""

    url: str
    storage: str
    connections: int
    connect_seconds: float
    silence_seconds: float
    slowest_rate: int

    def line(self) -> bytes:
        """As the carrier reads it."""
        return json.dumps(asdict(self)).encode() + b"\n"


class _Carrier:
    def __init__(self, client: RepositoryClient, store: LocalObjectStore, replies: asyncio.StreamWriter) -> None:
        self._client = client
        self._store = store
        self._replies = replies
        self._names: asyncio.Queue[str] = asyncio.Queue()
        self._pending: list[str] = []

    async def work(self, orders: asyncio.StreamReader, connections: int) -> None:
        """Carry until there are no more orders."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._carry_all()) for _ in range(connections)]
            rest = b""
            while data := await orders.read(_READ_AT_ONCE):
                *names, rest = (rest + data).split(b"\n")
                for name in names:
                    self._names.put_nowait(name.decode("ascii"))
            for task in tasks:
                task.cancel()

    async def _carry_all(self) -> None:
        while True:
            name = await self._names.get()
            size = await self._carried(name)
            self._reply(f"{name}\n" if size is None else f"{name} {size}\n")

    async def _carried(self, name: str) -> int | None:
        """Bytes that were stored; None if nothing was."""
        parsed = parse_object_name(name)
        if parsed is None:
            return None
        try:
            async with await self._client.begin(f"data/{name}", LARGEST) as body:
                data = await body.whole()
            verify(data, *parsed)
            self._store.put(*parsed, data)
        except MirrorError:
            return None
        return len(data)

    def _reply(self, line: str) -> None:
        """Soon, with all others until then: one by one they would wake the replication as often as there are objects."""
        if not self._pending:
            asyncio.get_running_loop().call_later(_REPLY_SECONDS, self._send)
        self._pending.append(line)

    def _send(self) -> None:
        self._replies.write("".join(self._pending).encode("ascii"))
        self._pending.clear()


async def _carry(connection: socket.socket) -> None:
    orders, replies = await asyncio.open_unix_connection(sock=connection)
    order = Order(**json.loads(await orders.readline()))
    limits = HttpLimits(
        connections=order.connections,
        connect_seconds=order.connect_seconds,
        silence_seconds=order.silence_seconds,
        slowest_rate=order.slowest_rate,
    )
    async with open_client(order.url, limits) as client:
        await _Carrier(client, LocalObjectStore(Path(order.storage)), replies).work(orders, order.connections)


def main(descriptor: int) -> None:
    """Work for whoever holds the other end of this socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the replication says when it is over
    with suppress(MirrorError):  # the replication meets with the same, and says it
        asyncio.run(_carry(socket.socket(fileno=descriptor)))


if __name__ == "__main__":
    main(int(sys.argv[1]))
