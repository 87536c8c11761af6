import asyncio
import os
import sys
from pathlib import Path

from mirror.supervisor import Supervisor


async def eventually(path: Path, lines: int) -> list[str]:
    async with asyncio.timeout(20):
        while True:
            found = path.read_text().split() if path.exists() else []
            if len(found) >= lines:
                return found
            await asyncio.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_child_that_ends_is_started_again_and_its_output_is_kept(tmp_path: Path) -> None:
    supervisor = Supervisor([sys.executable, "-c", "import os; print(os.getpid())"], tmp_path / "log", shortest_pause=0.01)
    task = asyncio.create_task(supervisor.run())
    pids = await eventually(tmp_path / "log", 3)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert len(set(pids)) == len(pids)


async def test_the_child_is_stopped_with_the_supervisor(tmp_path: Path) -> None:
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    task = asyncio.create_task(Supervisor([sys.executable, "-c", code], tmp_path / "log").run())
    (pid,) = await eventually(tmp_path / "log", 1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not alive(int(pid))


async def test_a_child_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    code = "import os, signal, time; signal.signal(15, signal.SIG_IGN); print(os.getpid(), flush=True); time.sleep(60)"
    task = asyncio.create_task(Supervisor([sys.executable, "-c", code], tmp_path / "log", grace=0.2).run())
    (pid,) = await eventually(tmp_path / "log", 1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not alive(int(pid))


async def told(tmp_path: Path, code: str, *, settling: float, times: int) -> list[str | None]:
    """What is said of children with this code, so many times."""
    said = asyncio.Queue[str | None]()
    supervisor = Supervisor(
        [sys.executable, "-c", code], tmp_path / "log", shortest_pause=0.01, settling=settling, on_change=said.put_nowait
    )
    task = asyncio.create_task(supervisor.run())
    async with asyncio.timeout(20):
        found = [await said.get() for _ in range(times)]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return found


async def test_why_a_child_ended_is_told_as_long_as_none_lives_for_a_while(tmp_path: Path) -> None:
    code = """
import pathlib
print('{"event": "starts"}', flush=True)
if len(pathlib.Path("LOG").read_text().splitlines()) > 3:
    raise ValueError("no reason")
raise SystemExit("the policy is broken:\\nin two places")
""".replace("LOG", str(tmp_path / "log"))
    first, second = await told(tmp_path, code, settling=60, times=2)
    assert first is not None
    assert first.endswith(": the policy is broken:; in two places")
    assert second is not None
    assert second.endswith(": ValueError: no reason")


async def test_a_child_that_lives_is_well(tmp_path: Path) -> None:
    assert await told(tmp_path, "import time; time.sleep(60)", settling=0.01, times=1) == [None]
