"""Following what changes in the state database, for memories in front of it, which drop what is out of date."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod

import structlog

from mirror.errors import Unavailable

log = structlog.get_logger()


class Follower(ABC):
    """Looks for changes again and again, and goes on when the database was away."""

    def __init__(self, name: str, interval: float) -> None:
        """name: in logs. interval: seconds between two looks."""
        self._name = name
        self._interval = interval
        self._away = False

    async def watch(self) -> None:
        """Follow the changes until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(self._interval)

    async def refresh(self) -> None:
        """Drop what changed since the last time. A database that is away is logged once."""
        try:
            await self._follow()
        except Unavailable as error:
            if not self._away:
                log.warning(f"{self._name}_stale", reason=str(error))
            self._away = True
            return
        if self._away:
            log.info(f"{self._name}_current")
        self._away = False

    @abstractmethod
    async def _follow(self) -> None:
        """Drop what changed. Raises Unavailable."""
