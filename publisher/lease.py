"""Being the one writer of a repository: a lease in the state database, prolonged as long as this process works.

The spool's lock keeps other processes of this machine out; the lease keeps other machines out. It is looked at once more in the
moment before clients can see a revision, with this machine's own clock of how long it holds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from mirror.errors import Unavailable
from mirror.jobs.repositories import Repositories
from publisher.errors import LeaseLost

log = structlog.get_logger()


class RepositoryLease:
    """The lease of one repository for one publisher."""

    def __init__(
        self, repositories: Repositories, fqrn: str, owner: str, seconds: float, timer: Callable[[], float] = time.monotonic
    ) -> None:
        """seconds: how long the lease is good for without being prolonged."""
        self._repositories = repositories
        self._fqrn = fqrn
        self._owner = owner
        self._seconds = seconds
        self._timer = timer
        self._held_until = float("-inf")
        self._is_waiting = False

    @property
    def is_held(self) -> bool:
        """Whether this publisher is the repository's writer now."""
        return self._timer() < self._held_until

    def check(self) -> None:
        """Raise LeaseLost unless the lease is held."""
        if not self.is_held:
            raise LeaseLost(f"another publisher may write {self._fqrn} now: this one's lease ran out; the work is done again")

    async def acquire(self) -> None:
        """Become the writer, or stay it, from now on; `is_held` tells whether that worked. An obstacle is logged once."""
        asked = self._timer()
        obstacle = None
        try:
            if not await self._repositories.acquire(self._fqrn, self._owner, self._seconds):
                obstacle = "another publisher is its writer"
        except Unavailable as error:
            obstacle = str(error)
        if obstacle is None:
            self._held_until = asked + self._seconds
        elif not self._is_waiting:
            log.warning("lease_not_held", fqrn=self._fqrn, reason=obstacle)
        self._is_waiting = obstacle is not None

    async def keep(self) -> None:
        """Prolong the lease, or go on trying to get it, until cancelled."""
        while True:
            await asyncio.sleep(self._seconds / 3)
            await self.acquire()

    async def release(self) -> None:
        """Let another publisher have it at once. Raises Unavailable."""
        self._held_until = float("-inf")
        await self._repositories.release(self._fqrn, self._owner)
