"""Tasks that run for as long as the process: whatever one of them raises is logged, and it is started again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog

from mirror.errors import MirrorError

log = structlog.get_logger()


@asynccontextmanager
async def running(name: str, work: Callable[[], Awaitable[None]], *, pause: float = 1.0) -> AsyncIterator[None]:
    """Run `work` beside the block, and stop it at its end. pause: seconds before it is started again after a failure."""
    task = asyncio.create_task(_for_ever(name, work, pause), name=name)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _for_ever(name: str, work: Callable[[], Awaitable[None]], pause: float) -> None:
    while True:
        try:
            await work()
        except MirrorError as error:
            log.warning("background_task_failed", task=name, reason=str(error), restart_in=pause)
        except Exception:
            log.exception("background_task_failed", task=name, restart_in=pause)
        await asyncio.sleep(pause)
