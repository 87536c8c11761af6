"""HTTP by hand, byte for byte: for what no client library would send, and for what real clients do send."""

from __future__ import annotations

import contextlib
import http.client
import socket
import struct
from dataclasses import dataclass
from types import TracebackType
from typing import Self

_NO_BODY = {204, 304}


@dataclass(frozen=True)
class Reply:
    status: int
    headers: http.client.HTTPMessage
    body: bytes


class RawConnection:
    """One TCP connection to `address` (host:port). Waiting for an answer too long is a TimeoutError."""

    def __init__(self, address: str, seconds: float = 20) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=seconds)
        self._file = self._socket.makefile("rb")

    def send(self, data: bytes) -> None:
        """A server that has closed already is no failure: it may have answered before."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(data)

    def reply(self, method: str = "GET") -> Reply | None:
        """The next final answer; None if the connection ends in place of one. Raises EOFError for one that is cut."""
        while True:
            try:
                line = self._file.readline()
            except ConnectionResetError:
                return None
            if not line:
                return None
            status = int(line.split()[1])
            headers = http.client.parse_headers(self._file)
            if status >= 200:
                return Reply(status, headers, self._body(method, status, headers))

    def some_body(self, size: int) -> bytes:
        """The first bytes of the next answer's body, the rest being left unread."""
        self._file.readline()
        http.client.parse_headers(self._file)
        return self._file.read(size)

    def is_closed(self) -> bool:
        """Whether the server ends the connection, all of its answers being read."""
        try:
            return self._file.read(1) == b""
        except ConnectionResetError:
            return True

    def reset(self) -> None:
        """Leave as a process does that was killed, or a machine that is gone."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _body(self, method: str, status: int, headers: http.client.HTTPMessage) -> bytes:
        if method == "HEAD" or status in _NO_BODY:
            return b""
        length = int(headers["Content-Length"])
        body = self._file.read(length)
        if len(body) < length:
            raise EOFError(f"{len(body)} of {length} bytes")
        return body
