"""The store of what clients' own accounts read, as its operator sees it: in the metrics and in the health, and without a name."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mirror.state.engine import Database
from tests.support.faulty_registry import until
from tests.support.mirror_server import HUB, Answer, Image, MirrorServer, add_image, mirror_server

ADA = ("ada", "ada's word")
NAME, LAYER = "team/closed", bytes(range(256)) * 4000
STORE = f"private/{HUB}"


@asynccontextmanager
async def passing(root: Path) -> AsyncIterator[tuple[MirrorServer, Image]]:
    """A mirror that passes credentials on, with a hub that has one repository, which is ada's."""
    async with mirror_server(root, upstream={"private": "client"}) as mirror:
        mirror.hub.faults.auth, mirror.hub.faults.readers = "bearer", {NAME: dict([ADA])}
        yield mirror, add_image(mirror.hub, NAME, "1", LAYER)


async def get(mirror: MirrorServer, path: str) -> Answer:
    return await mirror.get(f"/v2/{NAME}/{path}", Authorization=f"Basic {b64encode(':'.join(ADA).encode()).decode()}")


async def test_what_is_fetched_and_stored_is_counted_apart_from_what_is_public(tmp_path: Path) -> None:
    async with passing(tmp_path) as (mirror, image):
        mirror.hub.faults.hold_at = 100_000
        pull = asyncio.create_task(get(mirror, f"blobs/{image.layer}"))
        await until(lambda: mirror.counted("debark_fills_under_way") == 1)
        mirror.hub.release.set()
        assert (await pull).body == LAYER
        await until(lambda: mirror.counted("debark_fills_total", result="stored") == 1)
        assert mirror.counted("debark_fills_under_way") == 0
    async with passing(tmp_path) as (mirror, _):  # Stores are counted when a mirror starts, and again and again.
        await until(lambda: mirror.counted("debark_stored_blobs", store=STORE) == 1)
        assert mirror.counted("debark_stored_bytes", store=STORE) == len(LAYER)
        assert mirror.counted("debark_stored_blobs", store="public") == 0
        text = mirror.metrics.render()[0].decode()
        assert NAME not in text
        assert "team" not in text


async def test_a_full_disk_shows_in_the_health_without_the_names_of_blobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int, _data: memoryview, _offset: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async with passing(tmp_path) as (mirror, image):
        assert '"private_store": "ok"' in (await mirror.get("/healthz")).body.decode()
        with monkeypatch.context() as patched:
            patched.setattr(os, "pwrite", full)
            assert (await get(mirror, f"blobs/{image.layer}")).body == LAYER
        health = (await mirror.get("/healthz")).body.decode()
        assert '"status": "degraded"' in health
        assert "a blob found no room" in health
        assert '"store": "ok"' in health
        assert image.layer.hex not in health
        assert (await mirror.get("/readyz")).status == 200
        assert (await get(mirror, f"blobs/{image.layer}")).body == LAYER
        await until(lambda: mirror.counted("debark_fills_total", result="stored") == 1)
        assert '"status": "ok"' in (await mirror.get("/healthz")).body.decode()


async def test_a_server_that_cannot_read_it_gets_no_traffic(tmp_path: Path) -> None:
    async with passing(tmp_path) as (mirror, _):
        assert (await mirror.get("/readyz")).status == 200
        shutil.rmtree(mirror.data / "private")
        answer = await mirror.get("/readyz")
        assert answer.status == 503
        assert "cannot read" in answer.body.decode()


async def test_what_is_evicted_from_it_is_counted_there(tmp_path: Path) -> None:
    async with passing(tmp_path) as (mirror, image):
        await get(mirror, f"blobs/{image.layer}")
        await until(lambda: mirror.counted("debark_fills_total", result="stored") == 1)
        (stored,) = (path for path in (mirror.data / "private").rglob(image.layer.hex) if path.is_file())
    os.truncate(stored, 1 << 31)  # Sparse, and more than fits.
    os.utime(stored, (1_000_000, 1_000_000))
    async with mirror_server(
        tmp_path, upstream={"private": "client"}, settings={"store": {"min_free": 0, "private_size": "1 GiB"}}
    ) as mirror:
        await until(lambda: mirror.counted("debark_blobs_evicted_total", store=STORE) == 1)
        assert mirror.counted("debark_evicted_bytes_total", store=STORE) == 1 << 31
        assert not stored.exists()


async def test_who_has_shown_a_right_does_not_wait_for_sql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def hang(_: Database) -> AsyncIterator[None]:
        await asyncio.Event().wait()
        yield

    async with passing(tmp_path) as (mirror, image):
        paths = f"manifests/{image.digest}", f"blobs/{image.layer}", f"referrers/{image.digest}"
        assert [(await get(mirror, path)).status for path in paths] == [200] * 3
        with monkeypatch.context() as patched:
            patched.setattr(Database, "read", hang)
            async with asyncio.timeout(5):
                assert [(await get(mirror, path)).status for path in paths] == [200] * 3
