"""Turns between processes: one asks, the others wait, and the death of the one is the turn of the next."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import pytest

from mirror.fetch.turns import Turns
from tests.support.mirror_server import add_image, mirror_server

ROOT = Path(__file__).parents[3]
HOLDER = """
import asyncio, sys
from pathlib import Path
from mirror.fetch.turns import Turns

async def main():
    async with Turns(Path(sys.argv[1])).turn(sys.argv[2], 60) as has_waited:
        print(has_waited, flush=True)
        await asyncio.to_thread(sys.stdin.readline)

asyncio.run(main())
"""


async def holder(path: Path, key: str) -> Process:
    """Another process, which has the turn until it is told to go on, or killed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDER, str(path), key, stdin=PIPE, stdout=PIPE, env=environment
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"False\n"
    return process


async def take(turns: Turns, key: str, longest: float = 60) -> bool:
    async with turns.turn(key, longest) as has_waited:
        return has_waited


async def test_a_turn_is_waited_for_and_others_are_not(tmp_path: Path) -> None:
    process = await holder(tmp_path / "run" / "turns", "a")
    turns = Turns(tmp_path / "run" / "turns")
    waiting = asyncio.create_task(take(turns, "a"))

    assert await take(turns, "b") is False
    await asyncio.sleep(0.1)
    assert not waiting.done()
    await process.communicate(b"\n")

    assert await waiting is True
    assert await take(turns, "a") is False
    turns.close()


async def test_the_turn_of_a_process_that_is_killed_comes_back(tmp_path: Path) -> None:
    process = await holder(tmp_path / "turns", "a")
    turns = Turns(tmp_path / "turns")
    waiting = asyncio.create_task(take(turns, "a"))
    await asyncio.sleep(0.05)
    process.kill()
    await process.communicate()

    assert await waiting is True
    turns.close()


async def test_who_gives_up_waiting_or_holding_holds_nobody_up(tmp_path: Path) -> None:
    process = await holder(tmp_path / "turns", "a")
    turns = Turns(tmp_path / "turns")
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.05):
            await take(turns, "a")
    await process.communicate(b"\n")
    with contextlib.suppress(ZeroDivisionError):
        async with turns.turn("a", 60):
            raise ZeroDivisionError
    turns.close()

    other = await holder(tmp_path / "turns", "a")
    await other.communicate(b"\n")
    assert (tmp_path / "turns").stat().st_size == 0


async def test_a_process_that_hangs_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    process = await holder(tmp_path / "turns", "a")
    turns = Turns(tmp_path / "turns")
    assert await take(turns, "a", longest=0.05) is True
    waiting = asyncio.create_task(take(turns, "a"))  # It has its turn still.
    await asyncio.sleep(0.1)
    assert not waiting.done()
    await process.communicate(b"\n")
    assert await waiting is True
    turns.close()


@pytest.mark.parametrize("by_digest", [False, True], ids=["tag", "digest"])
async def test_a_client_gets_its_manifest_although_another_process_hangs(tmp_path: Path, by_digest: bool) -> None:
    async with mirror_server(tmp_path, upstream={"connect_timeout": 0.1, "read_timeout": 1}) as mirror:
        image = add_image(mirror.hub, "team/app", "1", b"a layer")
        reference = f"@{image.digest}" if by_digest else ":1"
        process = await holder(mirror.data / "run" / "turns", f"hub.test/team/app{reference}")
        answer = await mirror.get(f"/v2/team/app/manifests/{reference[1:]}")
        assert (answer.status, answer.body) == (200, image.raw)
        await process.communicate(b"\n")


async def test_without_a_place_for_the_file_nobody_waits(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("in the way")
    turns = Turns(tmp_path / "run" / "turns")

    assert await take(turns, "a") is False
    turns.close()
