"""What the parts of one replication share: the store, threads, a directory for files on their way, limits, and who is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from publisher.objects.store import ObjectStore
from publisher.replicate.listing import CatalogListing
from publisher.replicate.model import OnProgress, OnStep, Progress, ReplicationLimits

Result = TypeVar("Result")


class Threads:
    """For everything that blocks: the file system, SQLite, hashing, a store across the network. To be closed."""

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="replicate")

    async def run(self, work: Callable[[], Result]) -> Result:
        """Do it in a thread. Work that has begun goes on if the caller is cancelled."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def close(self) -> None:
        """Wait for what has begun and drop the rest. Blocking."""
        self._pool.shutdown(cancel_futures=True)


@dataclass(frozen=True, slots=True)
class Workbench:
    """One replication's."""

    store: ObjectStore
    scratch: Path
    """A directory of this replication's own; everything in it can be deleted between two of them."""
    limits: ReplicationLimits
    threads: Threads
    on_progress: OnProgress
    on_step: OnStep
    progress: Progress = field(default_factory=Progress)
    listings: set[CatalogListing] = field(default_factory=set)
    """Open ones."""

    def close(self) -> None:
        """Wait for the threads, then free what they used. Blocking."""
        self.threads.close()
        for listing in self.listings:
            listing.close()
