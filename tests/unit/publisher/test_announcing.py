"""New revisions are told to those who want to hear, in the words of CernVM-FS's tools, and nobody waits for that."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

import pytest
import structlog
from aiohttp import web

from mirror.background import running
from publisher.announce import Announcer
from publisher.replicate.announcements import listening
from tests.support.replicas import publish
from tests.support.repositories import FQRN, new_repository


async def test_a_replica_hears_of_a_revision(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    publish(repository, b"one")
    announced = asyncio.Event()
    async with listening("127.0.0.1", 0, FQRN, announced) as url:
        announcer = Announcer([url], {FQRN: store})
        async with running("announcements", announcer.run):
            announcer.announce(FQRN)
            await asyncio.wait_for(announced.wait(), 10)


async def test_what_is_sent_and_how_failures_are_told(tmp_path: Path) -> None:
    """One that is not there, and one that answers nonsense, keep no other from hearing."""
    _, store = new_repository(tmp_path)
    heard: asyncio.Queue[dict[str, object]] = asyncio.Queue()

    async def take(request: web.Request) -> web.Response:
        await heard.put(await request.json())
        return web.Response(status=500 if request.path.startswith("/broken") else 200)

    application = web.Application()
    application.router.add_post("/{name}/notifications/publish", take)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        base = f"http://127.0.0.1:{runner.addresses[0][1]}"
        announcer = Announcer(["http://127.0.0.1:1/api/v1", f"{base}/broken", f"{base}/gateway"], {FQRN: store})
        with structlog.testing.capture_logs() as logs:
            async with running("announcements", announcer.run):
                announcer.announce(FQRN)
                messages = [await asyncio.wait_for(heard.get(), 10) for _ in range(2)]
                announcer.announce(FQRN)
                await asyncio.wait_for(heard.get(), 10)
    finally:
        await runner.cleanup()
    assert messages[0] == messages[1]
    assert {name: messages[0][name] for name in ("version", "type", "repository")} == {
        "version": 1,
        "type": "activity",
        "repository": FQRN,
    }
    assert base64.b64decode(str(messages[0]["manifest"])) == store.files[".cvmfspublished"]
    assert {"http://127.0.0.1:1/api/v1/notifications/publish", f"{base}/broken/notifications/publish"} == {
        entry["url"] for entry in logs if entry["event"] == "announcement_failed"
    }


async def test_nobody_to_tell(tmp_path: Path) -> None:
    _, store = new_repository(tmp_path)
    announcer = Announcer([], {FQRN: store})
    announcer.announce(FQRN)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(announcer.run(), 0.05)
