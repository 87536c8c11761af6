"""Listening sockets: bound by the server itself, or handed over by a service manager (socket activation, sd_listen_fds(3)).

Whoever holds them decides how long connections are taken: they outlive the workers that accept on them.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from mirror.errors import InvalidInput, Unavailable

_FIRST_HANDED_OVER = 3
_BACKLOG = 4096
"""Connections that may wait to be accepted; the kernel has a bound of its own (net.core.somaxconn)."""


@contextmanager
def listening(host: str, port: int) -> Iterator[list[socket.socket]]:
    """Listen on all addresses of the host, as long as the block lasts; port 0: any that is free. Raises Unavailable."""
    with ExitStack() as stack:
        try:
            addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            found = [stack.enter_context(_bound(family, address)) for family, _, _, _, address in dict.fromkeys(addresses)]
        except OSError as error:
            reason = "something else listens there" if error.errno == errno.EADDRINUSE else error.strerror
            raise Unavailable(
                f"cannot listen on {host}:{port}: {reason}; choose another address with --listen HOST:PORT"
            ) from error
        yield found


def handed_over() -> list[socket.socket]:
    """Sockets that the service manager listens on for this process; none if there are none. Raises InvalidInput.

    The environment variables are taken away: they are not for processes that this one starts.
    """
    number, pid = os.environ.pop("LISTEN_FDS", ""), os.environ.pop("LISTEN_PID", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not number.isdecimal():
        return []
    return [_checked(descriptor) for descriptor in range(_FIRST_HANDED_OVER, _FIRST_HANDED_OVER + int(number))]


def address_of(listeners: Sequence[socket.socket]) -> str:
    """Host and port of the first of them; `unix:` and a path, if all of them are Unix sockets."""
    names = [listener.getsockname() for listener in listeners if listener.family != socket.AF_UNIX]
    if not names:
        return f"unix:{listeners[0].getsockname()}"
    host, port = names[0][:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _checked(descriptor: int) -> socket.socket:
    os.set_inheritable(descriptor, False)
    try:
        handed = socket.socket(fileno=descriptor)
        is_listening = handed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise InvalidInput(f"descriptor {descriptor}, which the service manager handed over, is no socket") from error
    if not is_listening or handed.type != socket.SOCK_STREAM:
        raise InvalidInput(
            f"descriptor {descriptor}, which the service manager handed over, is no listening stream socket: "
            "its unit wants ListenStream= and Accept=no"
        )
    return handed


def _bound(family: int, address: tuple[object, ...]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # As a name may stand for addresses of both kinds, each socket takes its own kind only.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener
