"""A whole soak test: a mirror on a small disk of its own, a hub, clients, and one misfortune after the other."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.soak.content import Content
from tests.soak.footprint import Footprint, footprint
from tests.soak.load import Load
from tests.soak.phases import World
from tests.support.debark_process import DebarkProcess
from tests.support.faulty_registry import FaultyRegistry
from tests.support.tool import as_root, run

_SETTINGS = """
default_upstream = "hub.test"
[server]
{workers}
grace = 2
[tags]
ttl = 1
absent = 1
[store]
min_free = 0
[publish]
enabled = false
[upstreams."hub.test"]
attempts = 2
connect_timeout = 2
read_timeout = 3
[fetch]
attempts = 3
longest_pause = 0.5
"""
_CALM_SECONDS = 30.0
"""Within which everything must be well again when misfortunes end."""


@dataclass(frozen=True)
class Plan:
    """How long and how hard. disk: bytes of the mirror's disk; phases: names, empty for all, gone through as a whole."""

    seconds: float = 0.0
    clients: int = 12
    workers: int = 1
    seed: int = 1
    disk: int = 128 << 20
    phase_seconds: float = 0.8
    phases: tuple[str, ...] = ()


@dataclass
class Outcome:
    """What there is to say in the end."""

    plan: Plan
    tally: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    begun: Footprint | None = None
    """After the first calm, when every part of the mirror had been in use."""
    ended: Footprint | None = None
    """When all clients were gone, and everything had been fetched once more."""
    unwell: list[str] = field(default_factory=list)
    """Requests that still failed when the world had been well again for long enough."""
    log: list[str] = field(default_factory=list)
    """Errors that the mirror logged and that no misfortune explains."""
    kills: int = 0


async def soak(plan: Plan, root: Path, tell: Callable[[str], None]) -> Outcome:
    """Raises RuntimeError where the mirror does not start or end as it should. tell: is told what goes on."""
    dice = random.Random(plan.seed)
    outcome = Outcome(plan)
    async with AsyncExitStack() as stack:
        data = root / "debark" / "data"
        stack.enter_context(_disk(data, plan.disk))
        hub = await stack.enter_async_context(FaultyRegistry())
        workers = f"workers = {plan.workers}" if plan.workers > 1 else ""
        mirror = DebarkProcess(root / "debark", {"hub.test": hub.url}, _SETTINGS.format(workers=workers))
        await asyncio.to_thread(mirror.start)
        stack.push_async_callback(asyncio.to_thread, mirror.stop)
        address = mirror.address
        content = Content(hub, dice, fresh_bytes=plan.disk // 3)
        content.add_lasting(20)
        world = World(hub, mirror, dice, plan.phase_seconds)
        load = Load(content, lambda: address, dice)
        async with _running(load, plan.clients):
            await asyncio.sleep(min(3.0, plan.phase_seconds * 2))
            outcome.begun = footprint(mirror.pid, data)
            tell(f"begun: {outcome.begun}")
            await _misfortunes(world, content, load, plan, tell)
        outcome.unwell = await _all_is_well(load, content)
        await asyncio.sleep(1.0)
        outcome.ended = footprint(mirror.pid, data)
        outcome.tally, outcome.wrong, outcome.kills = load.tally, load.wrong, world.kills
        outcome.log = _unexplained(data / "log" / "debark.log")
        tell(f"ended: {outcome.ended}")
    return outcome


async def _misfortunes(world: World, content: Content, load: Load, plan: Plan, tell: Callable[[str], None]) -> None:
    end = time.monotonic() + plan.seconds
    while True:
        for name in plan.phases or world.phases:
            before = load.tally.copy()
            content.move_a_tag()
            await world.phases[name]()
            counts = {key: load.tally[key] - before[key] for key in ("ok", "refused", "cut", "away", "wrong")}
            what = ", ".join(f"{key} {count}" for key, count in counts.items())
            tell(f"{name}: {what}; {footprint(world.mirror.pid, world.mirror.data)}")
            world.hub.seen.clear()
        if time.monotonic() > end:
            return


async def _all_is_well(load: Load, content: Content) -> list[str]:
    """Fetch everything once more; what does not come within a while."""
    failed = []
    end = time.monotonic() + _CALM_SECONDS
    for image in content.every:
        for what in (load.all_blobs, load.manifest_by_digest, load.pull) if image in content.lasting else (load.all_blobs,):
            while (outcome := await load.once(what, image)) != "ok":
                if outcome == "wrong" or time.monotonic() > end:
                    failed.append(f"{what.__name__} of {image.repository}:{image.tag}: {outcome}")
                    break
                await asyncio.sleep(0.3)
    return failed


def _unexplained(log: Path) -> list[str]:
    """Tracebacks: nothing that happens here may surprise the mirror."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return [line[:3000] for line in lines if '"exception"' in line or "Traceback" in line]


@asynccontextmanager
async def _running(load: Load, clients: int) -> AsyncIterator[None]:
    until = asyncio.Event()
    task = asyncio.create_task(load.run(clients, until))
    try:
        yield
    finally:
        until.set()
        await task


@contextmanager
def _disk(place: Path, size: int) -> Iterator[None]:
    """A file system of `size` bytes."""
    place.mkdir(parents=True, exist_ok=True)
    run(as_root(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0777", "soak", place]))
    try:
        yield
    finally:
        run(as_root(["umount", place]))
