"""What systemd, or who takes its place, is told of the server's state (sd_notify(3)), if it asked for it.

A message is one datagram to the socket that `NOTIFY_SOCKET` names. Nobody waits for it, and nothing fails with it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Self

import structlog

log = structlog.get_logger()


class ServiceManager:
    """Who started this process and wants to know how it is; or nobody, and then all is said into the void."""

    def __init__(self, address: str, watchdog_seconds: float | None = None) -> None:
        """address: of its socket, `@` for abstract ones; empty: nobody. watchdog_seconds: how often it wants a sign of life."""
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._watchdog_seconds = watchdog_seconds

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self:
        """As its environment says."""
        wanted = environment.get("WATCHDOG_USEC", "")
        is_ours = environment.get("WATCHDOG_PID", "") in ("", str(os.getpid()))
        watchdog = int(wanted) / 1e6 if is_ours and wanted.isdecimal() and int(wanted) else None
        return cls(environment.get("NOTIFY_SOCKET", ""), watchdog)

    def ready(self, status: str) -> None:
        """The server serves; also after a reload. status: one line for people."""
        self._send(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        """The server reads its settings again; `ready` follows in any case."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}\nSTATUS=reloading")

    def stopping(self) -> None:
        """The server finishes what is under way, and ends."""
        self._send("STOPPING=1\nSTATUS=stopping")

    async def show_life(self, is_well: Callable[[], Awaitable[bool]]) -> None:
        """Give the signs of life that it wants, for as long as all is well, until cancelled."""
        if self._watchdog_seconds is None:
            await asyncio.Event().wait()
            return
        while True:
            if await is_well():
                self._send("WATCHDOG=1")
            await asyncio.sleep(self._watchdog_seconds / 3)

    def _send(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)
                sender.sendto(message.encode(), self._address)
        except OSError as error:
            log.warning("service_manager_not_told", message=message, reason=error.strerror)
