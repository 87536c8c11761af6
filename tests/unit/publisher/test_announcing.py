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
from publisher.cvmfs.manifest import MANIFEST_NAME
from publisher.keys import load_public_key
from publisher.objects.local import LocalObjectStore
from publisher.replicate.announcements import listening
from publisher.replicate.follow import follow
from publisher.replicate.model import Replication
from tests.support import publishing as publishing_support
from tests.support.faulty_registry import FaultyRegistry, until
from tests.support.memory_store import MemoryStore
from tests.support.replicas import publish
from tests.support.repositories import FQRN, new_repository
from tests.support.repository_server import RepositoryServer
from tests.support.small_images import tiny


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


async def test_an_image_is_in_a_replica_that_looks_once_an_hour(tmp_path: Path) -> None:
    """From a request in the queue through the running publisher to another machine's storage."""
    fqrn, announced, seen = publishing_support.FQRN, asyncio.Event(), asyncio.Queue[int]()
    image, replica = tiny("hello"), MemoryStore()
    async with (
        listening("127.0.0.1", 0, fqrn, announced) as url,
        FaultyRegistry() as hub,
        publishing_support.publishing(tmp_path, hub, f'announce = ["{url}"]\n') as here,
        here.publisher(),
    ):
        data = here.config.data
        key, manifest = data / "keys" / f"{fqrn}.pub", data / "cvmfs" / fqrn / MANIFEST_NAME
        await until(manifest.exists)
        async with RepositoryServer(LocalObjectStore(data / "cvmfs" / fqrn), fqrn).running() as server:
            following = follow(
                Replication(server.url, fqrn, load_public_key(key.read_bytes()), replica, tmp_path / "replica-spool"),
                poll_seconds=3600.0,
                announced=announced,
                on_replicated=lambda done: seen.put_nowait(done.manifest.revision),
            )
            task = asyncio.create_task(following)
            try:
                assert await asyncio.wait_for(seen.get(), 10) == 1
                digest = publishing_support.offer(hub, "team/app", "1", image)
                await here.request("hub.test/team/app:1", digest)
                assert await asyncio.wait_for(seen.get(), 20) == 2
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
