"""Where worker processes come from: a small process of one thread that forks them whenever the parent asks.

Everything is imported once, before the nursery begins; what it forks is there within milliseconds and shares that memory. The
parent itself cannot fork: it has an event loop and threads, of which a child would inherit torn halves.

The nursery ends when the parent does, in whatever way: their socket closes. Workers see the same on channels of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence

from mirror.errors import Unavailable

Work = Callable[[Sequence[int]], int]
"""What a worker does: from descriptors that the parent sent, which it owns, to its exit code."""

_MESSAGE = 64
_MAX_DESCRIPTORS = 64
_SPAWN_SECONDS = 30.0


class Nursery:
    """The parent's hand on it. One object a process, made by `begin_nursery`, to be used by one event loop."""

    def __init__(self, pid: int, control: socket.socket) -> None:
        self._pid = pid
        self._control = control
        self._control.setblocking(False)
        self._turn = asyncio.Lock()
        self._born: asyncio.Future[int] | None = None
        self._exits: dict[int, asyncio.Future[int]] = {}
        self._reader: asyncio.Task[None] | None = None
        self.lost = asyncio.Event()
        """Set when the nursery has died: no worker can be made any more."""

    async def spawn(self, descriptors: Sequence[int]) -> tuple[int, asyncio.Future[int]]:
        """Make a worker; its process id, and what will be its exit code (negative: the signal that ended it).

        descriptors: for the worker, which gets copies of its own. Raises Unavailable.
        """
        if self._reader is None:
            self._reader = asyncio.create_task(self._listen())
        async with self._turn:
            if self.lost.is_set():
                raise Unavailable("the process that makes workers has died")
            self._born = asyncio.get_running_loop().create_future()
            try:
                socket.send_fds(self._control, [b"spawn"], list(descriptors))
                async with asyncio.timeout(_SPAWN_SECONDS):
                    pid = await self._born
            except TimeoutError as error:
                raise Unavailable("a worker cannot be made: the process that makes them does not answer") from error
            except OSError as error:
                raise Unavailable(f"a worker cannot be made: {error.strerror}") from error
            finally:
                self._born = None
        return pid, self._exits[pid]

    def close(self) -> None:
        """End it, with nothing left behind; workers that still run are not touched."""
        self._control.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        while message := await loop.sock_recv(self._control, _MESSAGE):
            kind, *numbers = message.split()
            match kind, [int(number) for number in numbers]:
                case b"born", [pid]:
                    self._exits[pid] = loop.create_future()
                    if self._born is not None and not self._born.done():
                        self._born.set_result(pid)
                case b"failed", [reason] if self._born is not None:
                    self._born.set_exception(Unavailable(f"a worker cannot be made: {os.strerror(reason)}"))
                case b"died", [pid, code]:
                    self._exits.pop(pid).set_result(code)
        self.lost.set()
        for exited in self._exits.values():
            exited.set_result(0)
        if self._born is not None and not self._born.done():
            self._born.set_exception(Unavailable("the process that makes workers has died"))


def begin_nursery(work: Work) -> Nursery:
    """Fork the nursery; to be called before the process has a second thread or an event loop. Raises OSError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if not pid:
        _end(lambda: _tend(theirs, work))
    theirs.close()
    return Nursery(pid, ours)


def _tend(control: socket.socket, work: Work) -> int:
    """The nursery's life; returns in it only."""
    # Ctrl-C reaches the whole group, and a hang-up too: the parent decides what is to happen.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _keep_only(control.fileno())
    children: dict[int, int] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is control:
                    message, descriptors, _, _ = socket.recv_fds(control, _MESSAGE, _MAX_DESCRIPTORS)
                    if not message:
                        return 0
                    _spawn(control, descriptors, work, children, selector)
                else:
                    _bury(control, key.fd, children, selector)


def _spawn(
    control: socket.socket, descriptors: Sequence[int], work: Work, children: dict[int, int], selector: selectors.BaseSelector
) -> None:
    try:
        pid = os.fork()
    except OSError as error:
        control.send(b"failed %d" % (error.errno or 0))
    else:
        if not pid:
            control.close()
            selector.close()
            for handle in children:
                os.close(handle)
            _end(lambda: work(descriptors))
        handle = os.pidfd_open(pid)
        children[handle] = pid
        selector.register(handle, selectors.EVENT_READ)
        control.send(b"born %d" % pid)
    for descriptor in descriptors:
        os.close(descriptor)


def _bury(control: socket.socket, handle: int, children: dict[int, int], selector: selectors.BaseSelector) -> None:
    selector.unregister(handle)
    os.close(handle)
    pid = children.pop(handle)
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(OSError):  # The parent may be gone; the next look at its socket tells.
        control.send(b"died %d %d" % (pid, os.waitstatus_to_exitcode(status)))


def _end(life: Callable[[], int]) -> None:
    """Live, and never return into the stack of whoever forked."""
    code = 1
    try:
        code = life()
    except BaseException:  # noqa: BLE001 - there is nobody above
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)


def _keep_only(descriptor: int) -> None:
    """Close what the parent was given by whoever started it: a listening socket, say, that would outlive the server here."""
    os.closerange(3, descriptor)
    os.closerange(descriptor + 1, descriptor + 1024)
