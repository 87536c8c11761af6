"""Clients for measurements of a registry: many manifests, many blobs at once, readers that hardly read. One thread, epoll."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

_BUFFER = 1 << 20


@dataclass
class Load:
    """What came of it: seconds from the start (blobs) or for each request (manifests), and bytes."""

    seconds: float = 0.0
    requests: int = 0
    size: int = 0
    first: list[float] = field(default_factory=list)
    last: list[float] = field(default_factory=list)
    failed: int = 0

    def share(self, part: float) -> float:
        """So much of all `last` is not longer than this."""
        return sorted(self.last)[min(int(len(self.last) * part), len(self.last) - 1)]


def manifests(port: int, path: str, connections: int, seconds: float) -> Load:
    """One request after the other on each connection."""
    load, request = Load(), _request(path)
    with _connections(port, connections) as (poll, sockets):
        asked = dict.fromkeys(sockets, time.monotonic())
        held = dict.fromkeys(sockets, b"")
        began = time.monotonic()
        for one in sockets.values():
            one.send(request)
        while (now := time.monotonic()) < began + seconds:
            for number, _ in poll.poll(0.2):
                held[number] += sockets[number].recv(65536)
                head, end, body = held[number].partition(b"\r\n\r\n")
                if not end or len(body) < _length(head):
                    continue
                now = time.monotonic()
                load.failed += not head.startswith(b"HTTP/1.1 200")
                load.last.append(now - asked[number])
                held[number], asked[number] = b"", now
                sockets[number].send(request)
        load.seconds, load.requests = time.monotonic() - began, len(load.last)
    return load


def blobs(port: int, path: str, clients: int) -> Load:
    """Each client reads the blob once, at full speed; the bytes are thrown away in the kernel."""
    load, buffer, left, heads = Load(), bytearray(_BUFFER), {}, {}
    with _connections(port, clients) as (poll, sockets):
        began = time.monotonic()
        for number, one in sockets.items():
            one.send(_request(path))
            heads[number] = b""
        while len(load.last) + load.failed < clients:
            for number, _ in poll.poll(60):
                if number not in left:
                    heads[number] += sockets[number].recv(16384)
                    head, end, body = heads[number].partition(b"\r\n\r\n")
                    if not end or not body:
                        continue
                    load.first.append(time.monotonic() - began)
                    left[number] = _length(head)
                    count = len(body)
                else:
                    count = sockets[number].recv_into(buffer, min(_BUFFER, left[number]), socket.MSG_TRUNC)
                left[number] -= count
                load.size += count
                if not left[number] or not count:
                    poll.unregister(number)
                    if left[number]:
                        load.failed += 1
                    else:
                        load.last.append(time.monotonic() - began)
        load.seconds = time.monotonic() - began
    return load


@contextmanager
def slow_readers(port: int, path: str, readers: int) -> Iterator[None]:
    """Ask for a blob, and read nothing of it while the block runs."""
    with _connections(port, readers, receive_buffer=32768) as (_, sockets):
        for one in sockets.values():
            one.send(_request(path))
        time.sleep(2)
        yield


@contextmanager
def idle(port: int, connections: int) -> Iterator[None]:
    """Connections that have asked once and stay open."""
    with _connections(port, connections) as (_, sockets):
        for one in sockets.values():
            one.send(_request("/v2/"))
        time.sleep(2)
        yield


@contextmanager
def _connections(port: int, number: int, receive_buffer: int = 0) -> Iterator[tuple[select.epoll, dict[int, socket.socket]]]:
    poll, sockets = select.epoll(), {}
    try:
        for _ in range(number):
            one = socket.socket()
            sockets[one.fileno()] = one
            if receive_buffer:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            one.connect(("127.0.0.1", port))
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            poll.register(one.fileno(), select.EPOLLIN)
        yield poll, sockets
    finally:
        for one in sockets.values():
            one.close()
        poll.close()


def _request(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: debark-bench\r\n\r\n".encode()


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0
