"""Sees images through that were asked for: by the publisher that runs, or by one in this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from mirror.config.models import Config
from mirror.data import DataDirectory
from mirror.jobs.repositories import Repositories
from publisher.alone import only_publisher
from publisher.errors import Conflict
from publisher.outcomes import Outcome, Watch
from publisher.owner import owner_name
from publisher.run import run

log = structlog.get_logger()

_LOOK_SECONDS = 0.3
_WRITER_SECONDS = 5.0
"""How often it is seen whether there is still a publisher."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where publishers work: one data directory, and the state database, which other machines may share."""

    config: Config
    repositories: Repositories

    async def has_publisher(self) -> bool:
        """Whether a publisher runs: on this data directory, or as the writer of a repository elsewhere. Raises Unavailable."""
        data = DataDirectory(self.config.data)
        writers = await self.repositories.writers()
        if any(owner != owner_name(data) for owner in writers.values()):
            return True
        # One of this data directory may have died and left its leases; its lock went with it.
        try:
            with only_publisher(data):
                return False
        except Conflict:
            return True


async def wait_for_all(site: Site, watch: Watch, seconds: float, told: Callable[[Outcome], None]) -> None:
    """Tell of each image when it is settled, for so many seconds at the most, and then where the others stand.

    Raises Unavailable.
    """
    end = time.monotonic() + seconds
    look_at_writers = time.monotonic() + _WRITER_SECONDS
    was_warned = False
    while True:
        for outcome in await watch.settled():
            told(outcome)
        now = time.monotonic()
        if not watch.waiting or now >= end:
            break
        if now >= look_at_writers:
            look_at_writers = now + _WRITER_SECONDS
            if not was_warned and not await site.repositories.writers():
                log.warning("no_publisher", effect="images wait until one runs", waiting=watch.waiting)
                was_warned = True
        await asyncio.sleep(min(_LOOK_SECONDS, max(0.0, end - now)))
    for outcome in await watch.left():
        told(outcome)


async def with_own_publisher(config: Config, work: Callable[[], Awaitable[None]]) -> None:
    """Run `work` beside a publisher in this process, which ends with it. If another one begins first, that one does it.

    Raises what `work` and `publisher.run.run` raise, except Conflict.
    """
    stop = asyncio.Event()
    publisher = asyncio.ensure_future(run(config, stop))
    worker = asyncio.ensure_future(work())
    try:
        await asyncio.wait({publisher, worker}, return_when=asyncio.FIRST_COMPLETED)
        if publisher.done() and not isinstance(publisher.exception(), Conflict):
            publisher.result()
        await worker
    finally:
        worker.cancel()
        stop.set()
        await asyncio.gather(publisher, worker, return_exceptions=True)
