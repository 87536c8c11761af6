"""Keeps the publisher running beside the mirror: started again when it ends, stopped with the mirror.

The child's standard input is a pipe that only this process holds. When the mirror dies, in whatever way, the pipe closes and the
child ends by itself, so that no publisher is left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

log = structlog.get_logger()

_LONGEST_WORDS = 500
"""Characters of what a child said that are passed on."""


class Supervisor:
    """Runs one command for as long as it is not stopped.

    log_file: where the child's output is appended.
    shortest_pause, longest_pause: seconds before a restart; doubled each time the child lives for less than the longest pause.
    grace: seconds that the child has to end after SIGTERM.
    settling: seconds that a child has to live before it is no longer told why the one before it ended.
    """

    def __init__(
        self,
        command: Sequence[str],
        log_file: Path,
        *,
        shortest_pause: float = 0.5,
        longest_pause: float = 30.0,
        grace: float = 20.0,
        settling: float = 10.0,
        on_change: Callable[[str | None], None] = lambda _trouble: None,
    ) -> None:
        """on_change: called with what is wrong when a child has ended, and with None when one runs and nothing is."""
        self._command = tuple(command)
        self._log_file = log_file
        self._shortest_pause = shortest_pause
        self._longest_pause = longest_pause
        self._grace = grace
        self._settling = settling
        self._on_change = on_change
        self._process: asyncio.subprocess.Process | None = None

    async def run(self) -> None:
        """Start the child and start it again whenever it ends; returns only by cancellation, having stopped the child."""
        loop = asyncio.get_running_loop()
        pause = self._shortest_pause
        try:
            while True:
                started = loop.time()
                code, said = await self._run_once()
                lived = loop.time() - started
                if lived > self._longest_pause:
                    pause = self._shortest_pause
                log.warning("publisher_ended", exit_code=code, said=said, lived=round(lived, 1), restart_in=pause)
                self._on_change(f"the publisher ended and is started again: {said or f'exit code {code}, see {self._log_file}'}")
                await asyncio.sleep(pause)
                pause = min(pause * 2, self._longest_pause)
        finally:
            await self._stop()

    async def _run_once(self) -> tuple[int, str]:
        """The child's exit code, and its last words."""
        with self._log_file.open("ab") as output:
            beginning = output.tell()
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdin=asyncio.subprocess.PIPE, stdout=output, stderr=output
            )
        log.info("publisher_started", pid=self._process.pid)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settling):
                await self._process.wait()
        if self._process.returncode is None:
            self._on_change(None)
        code = await self._process.wait()
        return code, _last_words(self._log_file, beginning)

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


def _last_words(log_file: Path, beginning: int) -> str:
    """What the lines at the end of the file say that are for people: neither log records nor the inside of a traceback."""
    try:
        with log_file.open("rb") as file:
            file.seek(max(beginning, file.seek(0, os.SEEK_END) - 8 * _LONGEST_WORDS))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    words: list[str] = []
    for line in reversed(lines):
        if line.startswith(("{", " ", "Traceback ")):
            break
        words.insert(0, line)
    return "; ".join(words)[-_LONGEST_WORDS:]
