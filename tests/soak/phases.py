"""What happens to hub, disk and mirror while the clients of a soak test go on."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.soak.footprint import leaves
from tests.support.debark_process import DebarkProcess
from tests.support.faulty_registry import Faults, FaultyRegistry


@dataclass
class World:
    """What phases act on."""

    hub: FaultyRegistry
    mirror: DebarkProcess
    dice: random.Random
    phase_seconds: float
    kills: int = field(default=0, init=False)

    async def hub_has(self, faults: Faults) -> None:
        """For one phase."""
        self.hub.faults = faults
        await asyncio.sleep(self.phase_seconds)
        self.hub.release.set()
        self.hub.faults = Faults()
        self.hub.release.clear()

    async def hub_is_away(self) -> None:
        await self.hub.kill()
        await asyncio.sleep(self.phase_seconds)
        self.hub.release.clear()
        await self.hub.start()

    async def hub_comes_and_goes(self) -> None:
        for _ in range(3):
            await self.hub.kill()
            await asyncio.sleep(self.phase_seconds / 6)
            self.hub.release.clear()
            await self.hub.start()
            await asyncio.sleep(self.phase_seconds / 6)

    async def disk_is_full(self) -> None:
        """To the last byte; what is freed meanwhile is taken again."""
        ballast = self.mirror.data / "ballast"
        for _ in range(10):
            await asyncio.to_thread(_fill, ballast)
            await asyncio.sleep(self.phase_seconds / 10)
        ballast.unlink()

    async def mirror_is_killed(self) -> None:
        self.kills += 1
        await asyncio.to_thread(self.mirror.kill)
        await asyncio.to_thread(self.mirror.start)
        await asyncio.sleep(self.phase_seconds / 2)

    async def mirror_is_restarted(self) -> None:
        await asyncio.to_thread(self.mirror.stop)
        await asyncio.to_thread(self.mirror.start)
        await asyncio.sleep(self.phase_seconds / 2)

    async def workers_are_killed(self) -> None:
        """Where the mirror has worker processes; else nothing happens."""
        for _ in range(3):
            workers = leaves(self.mirror.pid)
            if workers:
                self.kills += 1
                with suppress(ProcessLookupError):
                    os.kill(self.dice.choice(workers), signal.SIGKILL)
            await asyncio.sleep(self.phase_seconds / 3)

    async def nothing_happens(self) -> None:
        await asyncio.sleep(self.phase_seconds)

    @property
    def phases(self) -> dict[str, Callable[[], Awaitable[None]]]:
        """By name; each leaves the world as it found it."""

        def has(**faults: object) -> Callable[[], Awaitable[None]]:
            return lambda: self.hub_has(Faults(**faults))  # type: ignore[arg-type]

        return {
            "calm": self.nothing_happens,
            "hub slow": has(before_headers=0.3, between_pieces=0.05),
            "hub answers 503": has(status=503),
            "hub killed": self.hub_is_away,
            "hub cuts": has(cut_at=50_000, cuts=1_000_000),
            "mirror killed": self.mirror_is_killed,
            "disk full": self.disk_is_full,
            "hub throttles": has(status=429, headers={"Retry-After": "1"}),
            "hub stalls": has(hold_at=30_000),
            "hub resets": has(cut_at=5_000, cuts=1_000_000, reset=True),
            "workers killed": self.workers_are_killed,
            "hub sends other bytes": has(wrong_content=True),
            "hub answers 500, then not": has(statuses=[500, 502, 504] * 10),
            "mirror restarted": self.mirror_is_restarted,
            "hub has no lengths": has(chunked=True),
            "hub comes and goes": self.hub_comes_and_goes,
        }


def _fill(file: Path) -> None:
    """Take all that is free; file: grows by it."""
    with file.open("ab", buffering=0) as out, suppress(OSError):
        for size in (1 << 20, 1 << 12):
            with suppress(OSError):
                while True:
                    out.write(b"\1" * size)
