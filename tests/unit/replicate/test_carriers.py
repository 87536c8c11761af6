"""Processes that fetch the small objects: the replica is the same, and whatever goes wrong with them is told or made good."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from mirror.errors import Unavailable
from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.errors import RepositoryDamaged
from publisher.objects.local import LocalObjectStore
from publisher.replicate.carrier import LARGEST
from publisher.repository import Repository
from publisher.transaction import Transaction
from tests.support.memory_store import MemoryStore
from tests.support.processes import children
from tests.support.replicas import LIMITS, pull, replica_problems
from tests.support.repositories import FQRN, new_repository
from tests.support.repository_server import Fault, RepositoryServer, ThreadedServer, endless, other_bytes, status
from tests.support.sample_tree import directory, regular

CARRIED = replace(LIMITS, processes=2, carried_above=0)
FILES = 300


class CountingStore(LocalObjectStore):
    """Counts what this process itself puts."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.put_here: list[ContentHash] = []

    def put(self, content: ContentHash, kind: ObjectKind, stored: bytes | memoryview) -> bool:
        if kind is ObjectKind.DATA:
            self.put_here.append(content)
        return super().put(content, kind, stored)


@pytest.fixture
def source(tmp_path: Path) -> tuple[Repository, MemoryStore]:
    """Some hundred small files, and one that is too large for a carrier."""
    repository, store = new_repository(tmp_path / "stratum0")
    tree = directory()
    for number in range(FILES):
        tree.children[b"small%d" % number] = regular(store, b"content %d" % number)
    tree.children[b"large"] = regular(store, os.urandom(LARGEST + 1))
    with Transaction(repository) as transaction:
        transaction.graft(b"files", tree)
        transaction.commit()
    return repository, store


def content_of(repository: Repository, path: bytes) -> ContentHash:
    entry = repository.reader().lookup(path)
    assert entry is not None
    assert entry.content is not None
    return entry.content


@asynccontextmanager
async def serving(store: MemoryStore) -> AsyncIterator[RepositoryServer]:
    """In a thread, so that carriers are served while the test's own loop is busy."""
    with ThreadedServer(RepositoryServer(store, FQRN)) as server:
        yield server


async def test_small_objects_are_stored_by_other_processes(source: tuple[Repository, MemoryStore], tmp_path: Path) -> None:
    repository, store = source
    replica = CountingStore(tmp_path / "replica")
    before = children()
    async with serving(store) as server:
        result = await pull(server.url, replica, tmp_path / "spool", limits=CARRIED)
        assert max(server.requests.values()) == 1
    assert replica_problems(replica, tmp_path / "spool") == []
    assert result.progress.objects == result.progress.found > FILES
    assert replica.put_here == [content_of(repository, b"files/large")]
    assert children() == before


@pytest.mark.parametrize("connections", [1, 2, 3])
async def test_more_processes_than_connections(source: tuple[Repository, MemoryStore], tmp_path: Path, connections: int) -> None:
    """Some are left for what no process can fetch, however few there are."""
    replica = CountingStore(tmp_path / "replica")
    limits = replace(CARRIED, processes=4, http=replace(CARRIED.http, connections=connections))
    async with serving(source[1]) as server:
        await asyncio.wait_for(pull(server.url, replica, tmp_path / "spool", limits=limits), 60)
    assert replica_problems(replica, tmp_path / "spool") == []


async def test_few_objects_start_no_process(source: tuple[Repository, MemoryStore], tmp_path: Path) -> None:
    replica = CountingStore(tmp_path / "replica")
    async with serving(source[1]) as server:
        await pull(server.url, replica, tmp_path / "spool", limits=replace(CARRIED, carried_above=FILES + 10))
    assert len(replica.put_here) > FILES


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (status(404), "missing at the source"),
        (other_bytes(b"evil"), "other bytes than those of the object"),
        (endless([]), "more than the"),
    ],
    ids=["missing", "wrong", "endless"],
)
async def test_what_is_wrong_is_named(source: tuple[Repository, MemoryStore], tmp_path: Path, fault: Fault, message: str) -> None:
    repository, store = source
    replica = CountingStore(tmp_path / "replica")
    before = children()
    async with serving(store) as server:
        content = content_of(repository, b"files/small7")
        server.faults[content.object_path(ObjectKind.DATA)] = fault
        with pytest.raises(RepositoryDamaged, match=message) as failed:
            await pull(server.url, replica, tmp_path / "spool", limits=CARRIED)
        assert content.object_path(ObjectKind.DATA) in str(failed.value)
        assert not replica.contains(content, ObjectKind.DATA)
        assert not (tmp_path / "replica/.cvmfspublished").exists()
        assert children() == before
        server.faults.clear()
        await pull(server.url, replica, tmp_path / "spool", limits=CARRIED)
    assert replica_problems(replica, tmp_path / "spool") == []


async def test_what_passes_is_tried_again(source: tuple[Repository, MemoryStore], tmp_path: Path) -> None:
    repository, store = source
    replica = CountingStore(tmp_path / "replica")
    failures = iter([status(503), status(429)])
    async with serving(store) as server:
        path = content_of(repository, b"files/small7").object_path(ObjectKind.DATA)

        async def failing(request: web.Request) -> web.StreamResponse:
            fault = next(failures, None)
            if fault is None:
                return web.Response(body=store.get(content_of(repository, b"files/small7"), ObjectKind.DATA))
            return await fault(request)

        server.faults[path] = failing
        await pull(server.url, replica, tmp_path / "spool", limits=CARRIED)
        assert server.requests[path] == 3
    assert replica_problems(replica, tmp_path / "spool") == []


@pytest.mark.parametrize("killed", ["one", "all"])
async def test_carriers_that_die_are_done_without(source: tuple[Repository, MemoryStore], tmp_path: Path, killed: str) -> None:
    replica = CountingStore(tmp_path / "replica")
    before = children()
    victims: set[int] = set()
    first = threading.Lock()

    def kill(path: str) -> None:
        """While the first small object is asked for, which only a carrier does."""
        if path.startswith("data/") and (started := children() - before) and first.acquire(blocking=False):
            victims.update(started if killed == "all" else [min(started)])
            for pid in victims:
                os.kill(pid, signal.SIGKILL)

    async with serving(source[1]) as server:
        server.on_request = kill
        await asyncio.wait_for(pull(server.url, replica, tmp_path / "spool", limits=CARRIED), 60)
    assert victims
    assert replica_problems(replica, tmp_path / "spool") == []
    assert children() == before


async def test_a_storage_that_fails_is_named(source: tuple[Repository, MemoryStore], tmp_path: Path) -> None:
    replica = CountingStore(tmp_path / "replica")
    content = content_of(source[0], b"files/small7")
    place = (tmp_path / "replica" / content.object_path(ObjectKind.DATA)).parent
    place.rmdir()
    place.write_bytes(b"no directory")
    async with serving(source[1]) as server:
        with pytest.raises(Unavailable, match="cannot be stored"):
            await pull(server.url, replica, tmp_path / "spool", limits=CARRIED)
