"""A TCP relay in front of a server, slow enough that something can happen in the middle of an answer."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Self

_PIECE = 64 * 1024


class Wire:
    """Relays connections from a loopback port to `target` (host:port), what comes back at `bytes_per_second` per connection."""

    def __init__(self, target: str, bytes_per_second: float) -> None:
        self.carried = 0
        """Bytes that went back to clients so far."""
        self._target = target
        self._pace = _PIECE / bytes_per_second
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._listener.close()
        with self._lock:
            for end in self._sockets:
                _shut(end)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            host, _, port = self._target.rpartition(":")
            try:
                server = socket.create_connection((host, int(port)))
            except OSError:
                client.close()
                continue
            with self._lock:
                self._sockets |= {client, server}
            for source, sink, pace in ((client, server, 0.0), (server, client, self._pace)):
                threading.Thread(target=self._relay, args=(source, sink, pace), daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket, pace: float) -> None:
        try:
            while data := source.recv(_PIECE):
                sink.sendall(data)
                if pace:
                    with self._lock:
                        self.carried += len(data)
                    time.sleep(pace * len(data) / _PIECE)
        except OSError:
            pass
        finally:
            _shut(source)
            _shut(sink)
            with self._lock:
                self._sockets -= {source}
            source.close()


def _shut(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
