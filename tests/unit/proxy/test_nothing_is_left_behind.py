"""Whatever became of requests: when they are over, no task, descriptor or part file of theirs is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

import pytest

from tests.support.faulty_registry import Faults, until
from tests.support.mirror_server import MirrorServer, add_image, mirror_server

LAYER = bytes(range(256)) * 2000


@pytest.mark.parametrize(
    "faults",
    [
        Faults(),
        Faults(status=503),
        Faults(cut_at=100_000, cuts=1000),
        Faults(cut_at=100_000, cuts=1000, reset=True),
        Faults(wrong_content=True),
        Faults(before_headers=0.2, between_pieces=0.01),
        Faults(chunked=True),
        Faults(content_encoding="gzip"),
    ],
    ids=["well", "503", "cut", "reset", "other bytes", "slow", "no length", "encoded"],
)
async def test_requests_leave_no_task_and_no_descriptor_behind(tmp_path: Path, faults: Faults) -> None:
    settings = {"fetch": {"attempts": 2, "longest_pause": 0.1}}
    async with mirror_server(tmp_path, settings=settings) as mirror:
        await _all_kinds(mirror, "before")
        await asyncio.sleep(0.3)
        tasks, files = _tasks(), _files()
        mirror.hub.faults = faults
        for number in range(5):
            await _all_kinds(mirror, f"round-{number}")
        mirror.hub.faults = Faults()
        await until(lambda: _tasks() <= tasks, 20)
        await until(lambda: _files() <= files, 20)


async def _all_kinds(mirror: MirrorServer, name: str) -> None:
    """A pull, parts, lists, what is not there, and clients that leave in the middle."""
    image = add_image(mirror.hub, f"team/{name}", "1", LAYER + name.encode())
    path = f"/v2/team/{name}"
    asked = [f"{path}/manifests/1", f"{path}/manifests/{image.digest}", f"{path}/blobs/{image.config}", f"{path}/tags/list"]
    asked += [f"{path}/referrers/{image.digest}", f"{path}/manifests/never", f"{path}/blobs/{image.layer}"]
    await asyncio.gather(*(mirror.get(one) for one in asked), return_exceptions=True)
    for _ in range(3):
        _, writer = await asyncio.open_connection("127.0.0.1", mirror.port)
        writer.write(f"GET {path}/blobs/{image.layer} HTTP/1.1\r\nHost: mirror\r\n\r\n".encode())
        await writer.drain()
        await asyncio.sleep(0.01)
        writer.transport.abort()


def _tasks() -> int:
    """Those that are not one idle connection each, at either end."""
    names = (getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks())
    return sum(1 for name in names if name != "RequestHandler.start")


def _files() -> int:
    """Descriptors that are no connections."""
    found = 0
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found += not os.readlink(entry).startswith("socket:")  # noqa: PTH115 - it leads to no path
    return found
