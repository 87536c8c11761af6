"""A replica that is kept current."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from mirror.errors import InvalidInput, MirrorError, Unavailable
from publisher.errors import Untrusted
from publisher.replicate.announcements import listening
from publisher.replicate.follow import follow
from publisher.replicate.model import Replicated
from publisher.repository import Repository
from tests.support.memory_store import MemoryStore
from tests.support.replicas import publish, replica_problems, replication
from tests.support.repositories import FQRN, Clock, new_repository
from tests.support.repository_server import RepositoryServer, other_bytes, status


async def looked(server: RepositoryServer, times: int) -> None:
    """Wait for so many looks at the manifest."""
    enough = asyncio.Event()
    server.on_request = lambda _: enough.set() if server.requests[".cvmfspublished"] >= times else None
    await asyncio.wait_for(enough.wait(), 10)


class Follower:
    """What a follower told."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.announced = asyncio.Event()
        self._told: asyncio.Queue[Replicated | MirrorError] = asyncio.Queue()

    @asynccontextmanager
    async def following(self, url: str, spool: Path, **options: Any) -> AsyncIterator[None]:
        told = {"on_replicated": self._told.put_nowait, "on_failure": self._told.put_nowait}
        poll_seconds = options.pop("poll_seconds", 0.01)
        work = replication(url, self.store, spool, **options)
        task = asyncio.create_task(follow(work, poll_seconds=poll_seconds, announced=self.announced, **told))
        try:
            yield
            assert not task.done()
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def next(self) -> Replicated | MirrorError:
        return await asyncio.wait_for(self._told.get(), 10)

    async def next_revision(self) -> int:
        """Past failures, and what brought nothing."""
        while True:
            told = await self.next()
            if isinstance(told, Replicated) and told.changed:
                return told.manifest.revision


@pytest.fixture
def stratum0(tmp_path: Path) -> tuple[Repository, MemoryStore]:
    repository, store = new_repository(tmp_path)
    publish(repository, b"one")
    return repository, store


@pytest.fixture
async def server(stratum0: tuple[Repository, MemoryStore]) -> AsyncIterator[RepositoryServer]:
    async with RepositoryServer(stratum0[1], FQRN).running() as server:
        yield server


async def test_each_revision_is_taken_soon(
    tmp_path: Path, stratum0: tuple[Repository, MemoryStore], server: RepositoryServer
) -> None:
    repository, _ = stratum0
    follower = Follower()
    async with follower.following(server.url, tmp_path / "replica"):
        assert await follower.next_revision() == 2
        for revision in (3, 4):
            publish(repository, b"more-%d" % revision)
            assert await follower.next_revision() == revision
            assert replica_problems(follower.store, tmp_path / "replica") == []


async def test_looking_costs_one_small_request(
    tmp_path: Path, stratum0: tuple[Repository, MemoryStore], server: RepositoryServer
) -> None:
    follower = Follower()
    async with follower.following(server.url, tmp_path / "replica"):
        await follower.next_revision()
        server.requests.clear()
        await looked(server, 5)
        assert server.requests.keys() == {".cvmfspublished"}


async def test_an_announcement_is_heard_at_once(
    tmp_path: Path, stratum0: tuple[Repository, MemoryStore], server: RepositoryServer
) -> None:
    repository, _ = stratum0
    follower = Follower()
    async with follower.following(server.url, tmp_path / "replica", poll_seconds=3600.0):
        await follower.next_revision()
        publish(repository, b"two")
        await asyncio.sleep(0.1)
        assert server.requests[".cvmfspublished"] == 1
        follower.announced.set()
        assert await follower.next_revision() == 3
        assert not follower.announced.is_set()


async def test_an_announced_revision_is_looked_for_past_all_caches(
    tmp_path: Path, stratum0: tuple[Repository, MemoryStore], server: RepositoryServer
) -> None:
    repository, source = stratum0
    cached = source.files[".cvmfspublished"]

    async def cache(request: web.Request) -> web.Response:
        nonlocal cached
        if request.headers.get("Cache-Control") == "no-cache":
            cached = source.files[".cvmfspublished"]
        return web.Response(body=cached)

    server.faults[".cvmfspublished"] = cache
    follower = Follower()
    async with (
        listening("127.0.0.1", 0, FQRN, follower.announced) as url,
        follower.following(server.url, tmp_path / "replica", poll_seconds=3600.0),
        aiohttp.ClientSession() as session,
    ):
        await follower.next_revision()
        publish(repository, b"two")
        for message, answer in {
            b"": 400,
            b"[" * 20_000: 400,
            b'"activity"': 400,
            b'{"type": "activity"}': 404,
            b"0" * 100_000: 413,
            b'{"type": "activity", "repository": "%s"}' % FQRN.encode(): 200,
        }.items():
            async with session.post(f"{url}/notifications/publish", data=message) as response:
                assert response.status == answer
            assert follower.announced.is_set() is (answer == 200)
        assert await follower.next_revision() == 3


async def test_an_address_that_is_taken(server: RepositoryServer) -> None:
    port = int(server.url.split(":")[2].split("/")[0])
    with pytest.raises(Unavailable, match="cannot be listened on"):
        async with listening("127.0.0.1", port, FQRN, asyncio.Event()):
            pass


async def test_a_source_that_was_away(tmp_path: Path, stratum0: tuple[Repository, MemoryStore], server: RepositoryServer) -> None:
    repository, _ = stratum0
    follower = Follower()
    server.faults[".cvmfspublished"] = status(503)
    async with follower.following(server.url, tmp_path / "replica"):
        assert isinstance(await follower.next(), Unavailable)
        server.faults.clear()
        assert await follower.next_revision() == 2
        server.faults[".cvmfspublished"] = status(503)
        publish(repository, b"two")
        await asyncio.sleep(0.05)
        server.faults.clear()
        assert await follower.next_revision() == 3


async def test_an_attack_is_told_and_outlived(
    tmp_path: Path, stratum0: tuple[Repository, MemoryStore], server: RepositoryServer
) -> None:
    repository, source = stratum0
    old = source.files[".cvmfspublished"]
    publish(repository, b"two")
    follower = Follower()
    async with follower.following(server.url, tmp_path / "replica"):
        assert await follower.next_revision() == 3
        server.faults[".cvmfspublished"] = other_bytes(old)
        assert isinstance(await follower.next(), Untrusted)
        publish(repository, b"three")
        server.faults.clear()
        assert await follower.next_revision() == 4


async def test_everything_else_is_looked_at_once_in_each_ttl(tmp_path: Path) -> None:
    repository, source = new_repository(tmp_path)
    repository.settings = type(repository.settings)(compressor="zlib-6", ttl=1)
    publish(repository, b"one")
    follower = Follower()
    async with RepositoryServer(source, FQRN).running() as server, follower.following(server.url, tmp_path / "replica"):
        assert await follower.next_revision() == 2
        repository.clock = Clock(1_800_900_000.0)
        repository.renew_whitelist()
        told = await follower.next()
        assert isinstance(told, Replicated)
        assert not told.changed
        assert follower.store.files[".cvmfswhitelist"] == source.files[".cvmfswhitelist"]


async def test_two_revisions_in_one_second(
    tmp_path: Path, stratum0: tuple[Repository, MemoryStore], server: RepositoryServer
) -> None:
    """Web servers that derive ETags from time and size give both the same; it is not asked by such a one until it is sure."""
    repository, source = stratum0
    publish(repository, b"two")
    headers = {"ETag": '"same"', "Date": "Mon, 23 Nov 2026 07:00:00 GMT", "Last-Modified": "Mon, 23 Nov 2026 07:00:00 GMT"}

    async def weak(request: Any) -> Any:
        if request.headers.get("If-None-Match") == '"same"':
            return web.Response(status=304)
        return web.Response(body=source.files[".cvmfspublished"], headers=headers)

    server.faults[".cvmfspublished"] = weak
    follower = Follower()
    async with follower.following(server.url, tmp_path / "replica"):
        assert await follower.next_revision() == 3
        server.requests.clear()
        await looked(server, 3)
        publish(repository, b"three")
        assert await follower.next_revision() == 4


async def test_an_impossible_interval_or_address(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="interval"):
        await follow(replication("http://x/y", MemoryStore(), tmp_path), poll_seconds=0)
    with pytest.raises(InvalidInput, match="web address"):
        await follow(replication("nowhere", MemoryStore(), tmp_path))
