"""Keeps the publisher running beside the mirror: started again when it ends, stopped with the mirror.

The child's standard input is a pipe that only this process holds. When the mirror dies, in whatever way, the pipe closes and the
child ends by itself, so that no publisher is left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

log = structlog.get_logger()


class Supervisor:
    """Runs one command for as long as it is not stopped.

    log_file: where the child's output is appended.
    shortest_pause, longest_pause: seconds before a restart; doubled each time the child lives for less than the longest pause.
    grace: seconds that the child has to end after SIGTERM.
    """

    def __init__(
        self,
        command: Sequence[str],
        log_file: Path,
        *,
        shortest_pause: float = 0.5,
        longest_pause: float = 30.0,
        grace: float = 20.0,
        on_change: Callable[[int | None], None] = lambda _pid: None,
    ) -> None:
        """on_change: called with the child's process id when it starts, and with None when it has ended."""
        self._command = tuple(command)
        self._log_file = log_file
        self._shortest_pause = shortest_pause
        self._longest_pause = longest_pause
        self._grace = grace
        self._on_change = on_change
        self._process: asyncio.subprocess.Process | None = None

    async def run(self) -> None:
        """Start the child and start it again whenever it ends; returns only by cancellation, having stopped the child."""
        loop = asyncio.get_running_loop()
        pause = self._shortest_pause
        try:
            while True:
                started = loop.time()
                code = await self._run_once()
                lived = loop.time() - started
                if lived > self._longest_pause:
                    pause = self._shortest_pause
                log.warning("publisher_ended", exit_code=code, lived=round(lived, 1), restart_in=pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, self._longest_pause)
        finally:
            await self._stop()

    async def _run_once(self) -> int:
        with self._log_file.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdin=asyncio.subprocess.PIPE, stdout=output, stderr=output
            )
        log.info("publisher_started", pid=self._process.pid)
        self._on_change(self._process.pid)
        code = await self._process.wait()
        self._on_change(None)
        return code

    async def _stop(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(self._grace):
                await process.wait()
        except TimeoutError:
            log.warning("publisher_killed", pid=process.pid, grace=self._grace)
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
