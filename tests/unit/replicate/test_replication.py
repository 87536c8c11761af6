"""Replicas of sound repositories, over a real web server: complete, incremental, no more fetched than needed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mirror.errors import Unavailable
from publisher.check import check
from publisher.cvmfs.entry import Compression
from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.cvmfs.reader import RepositoryReader
from publisher.cvmfs.reflog import ReferenceType, Reflog
from publisher.errors import Conflict, RepositoryDamaged
from publisher.keys import load_public_key
from publisher.objects.local import LocalObjectStore
from publisher.replicate.model import Extent, Progress, Replication
from publisher.replicate.replica import replicate
from publisher.repository import Repository
from publisher.spool import Spool
from publisher.transaction import Transaction
from tests.support.memory_store import MemoryStore, load_directory
from tests.support.replicas import LIMITS, publish, pull, replica_problems
from tests.support.repositories import FQRN, Clock, keys_of, new_repository
from tests.support.repository_server import RepositoryServer, cut_after, first, status, without_length
from tests.support.sample_tree import directory, facts, regular

GOLDEN = Path(__file__).parents[2] / "data" / "cvmfs-golden"


@pytest.fixture
def stratum0(tmp_path: Path) -> tuple[Repository, MemoryStore]:
    repository, store = new_repository(tmp_path)
    publish(repository, b"one", tag="first")
    return repository, store


@pytest.fixture
async def server(stratum0: tuple[Repository, MemoryStore]) -> AsyncIterator[RepositoryServer]:
    async with RepositoryServer(stratum0[1], FQRN).running() as server:
        yield server


async def test_the_golden_repository(tmp_path: Path) -> None:
    """Made by CernVM-FS's own tools. What their replication leaves out (old histories, an unnamed revision) is left out here."""
    source = load_directory(GOLDEN / "repo")
    fqrn, key = "golden.example.org", load_public_key((GOLDEN / "golden.example.org.pub").read_bytes())
    store = LocalObjectStore(tmp_path / "replica")
    async with RepositoryServer(source, fqrn).running() as server:
        result = await replicate(Replication(server.url, fqrn, key, store, tmp_path / "spool", LIMITS))
    reader = RepositoryReader(store, fqrn, key)
    checksum = Spool(tmp_path / "spool").reflog_checksum(store.read_file(".cvmfsreflog"))
    assert check(reader, contains=store.contains, data=True, reflog_checksum=checksum) == []
    left_out = source.contents.keys() - {(stored.content, stored.kind) for stored in store.objects()}
    unnamed = ContentHash.parse("65d817f55617106493f8df7eb0ac1926bdd5e7da")
    assert {item for item in left_out if item[1] is not ObjectKind.HISTORY} == {(unnamed, ObjectKind.CATALOG)}
    assert {stored.content for stored in store.objects() if stored.kind is ObjectKind.HISTORY} == {reader.manifest.history}
    references = Reflog(store.read_file(".cvmfsreflog"), fqrn).references().values()
    history = reader.history()
    assert history is not None
    roots = {tag.root for tag in history.tags().values()} | {reader.manifest.root}
    assert {item.content for item in references if item.type is ReferenceType.CATALOG} == roots
    assert {item.type for item in references} == set(ReferenceType)
    assert (result.manifest.revision, result.changed, result.progress.objects) == (4, True, 59)
    assert result.progress.objects == result.progress.found


async def test_a_first_replication_and_the_ones_after(
    tmp_path: Path, stratum0: tuple[Repository, MemoryStore], server: RepositoryServer
) -> None:
    repository, source = stratum0
    store, spool = LocalObjectStore(tmp_path / "replica"), tmp_path / "replica-spool"
    first_result = await pull(server.url, store, spool)
    assert first_result.changed
    assert replica_problems(store, spool) == []
    assert not store.contains(before_first(repository), ObjectKind.CATALOG)

    publish(repository, b"two")
    between = repository.manifest().root
    publish(repository, b"three")
    server.requests.clear()
    had = {(stored.content, stored.kind) for stored in store.objects()}
    second = await pull(server.url, store, spool)
    assert second.changed
    assert replica_problems(store, spool) == []
    assert store.contains(between, ObjectKind.CATALOG)
    new = {(stored.content, stored.kind) for stored in store.objects()} - had
    fetched = {path for path in server.requests if path.startswith("data/")}
    certificate = repository.manifest().certificate.object_path(ObjectKind.CERTIFICATE)
    history = repository.manifest().history
    assert history is not None
    assert fetched == {content.object_path(kind) for content, kind in new} | {
        certificate,
        history.object_path(ObjectKind.HISTORY),
    }
    assert max(server.requests.values()) == 1
    reader = RepositoryReader(store, FQRN, keys_of(FQRN).master_public, clock=Clock())
    assert facts(reader.tree(b"one")) == facts(repository.reader().tree(b"one"))
    assert len(source.contents) >= len(list(store.objects()))


def before_first(repository: Repository) -> ContentHash:
    """The empty revision that every repository begins with."""
    root = repository.reader().snapshot.root
    assert root.previous is not None
    return root.previous


async def test_nothing_new_is_nothing_written(
    tmp_path: Path, stratum0: tuple[Repository, MemoryStore], server: RepositoryServer
) -> None:
    store = LocalObjectStore(tmp_path / "replica")
    await pull(server.url, store, tmp_path / "replica-spool")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "replica").rglob("*") if path.is_file()}
    server.requests.clear()
    result = await pull(server.url, store, tmp_path / "replica-spool", clock=Clock(1_800_000_100.0))
    assert not result.changed
    assert result.progress == Progress()
    assert server.objects_served == 2
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "replica").rglob("*") if path.is_file()}
    assert {path.name for path in after if after[path] != before.get(path)} == {".cvmfs_last_snapshot", ".cvmfs_status.json"}
    assert (tmp_path / "replica" / ".cvmfs_last_snapshot").read_text() == "Fri Jan 15 08:01:40 UTC 2027\n"


@pytest.mark.parametrize("before", [None, b"{", b"[]", b'{"last_gc": "Thu Jan  1 00:00:00 UTC 1970", "last_snapshot": "x"}'])
async def test_monitors_are_told_when_the_replica_was_brought_up_to_date(
    tmp_path: Path, stratum0: tuple[Repository, MemoryStore], server: RepositoryServer, before: bytes | None
) -> None:
    """As CernVM-FS's own monitor reads it; what others wrote into the file stays."""
    store = MemoryStore()
    if before is not None:
        store.files[".cvmfs_status.json"] = before
    await pull(server.url, store, tmp_path / "replica-spool")
    status = json.loads(store.files[".cvmfs_status.json"])
    assert datetime.strptime(status["last_snapshot"], "%a %b %d %H:%M:%S UTC %Y").replace(tzinfo=UTC).timestamp() == Clock()()
    assert store.files[".cvmfs_last_snapshot"].decode().strip() == status["last_snapshot"]
    assert status.keys() == {"last_snapshot"} | ({"last_gc"} if before and b"last_gc" in before else set())


async def test_a_whitelist_signed_again_is_taken_without_a_new_revision(
    tmp_path: Path, stratum0: tuple[Repository, MemoryStore], server: RepositoryServer
) -> None:
    repository, source = stratum0
    store = MemoryStore()
    await pull(server.url, store, tmp_path / "replica-spool")
    repository.clock = Clock(1_800_900_000.0)
    repository.renew_whitelist()
    result = await pull(server.url, store, tmp_path / "replica-spool")
    assert not result.changed
    assert store.files[".cvmfswhitelist"] == source.files[".cvmfswhitelist"]


async def test_an_older_whitelist_does_not_come_back(
    tmp_path: Path, stratum0: tuple[Repository, MemoryStore], server: RepositoryServer
) -> None:
    repository, source = stratum0
    old = source.files[".cvmfswhitelist"]
    repository.clock = Clock(1_800_900_000.0)
    repository.renew_whitelist()
    store = MemoryStore()
    await pull(server.url, store, tmp_path / "replica-spool")
    new, source.files[".cvmfswhitelist"] = source.files[".cvmfswhitelist"], old
    publish(repository, b"two")
    assert (await pull(server.url, store, tmp_path / "replica-spool")).changed
    assert store.files[".cvmfswhitelist"] == new


@pytest.mark.parametrize(
    ("extent", "named", "between"), [(Extent.CURRENT, False, False), (Extent.NAMED, True, False), (Extent.SINCE, True, True)]
)
async def test_how_much_of_the_past_is_taken(
    tmp_path: Path, stratum0: tuple[Repository, MemoryStore], server: RepositoryServer, extent: Extent, named: bool, between: bool
) -> None:
    repository, _ = stratum0
    store = MemoryStore()
    await pull(server.url, store, tmp_path / "replica-spool", extent=Extent.CURRENT)
    publish(repository, b"two", tag="second")
    named_root = repository.manifest().root
    publish(repository, b"three")
    nameless_root = repository.manifest().root
    publish(repository, b"four")
    with Transaction(repository) as transaction:
        transaction.remove(b"one")
        transaction.commit()
    await pull(server.url, store, tmp_path / "replica-spool", extent=extent)
    assert store.contains(named_root, ObjectKind.CATALOG) is named
    assert store.contains(nameless_root, ObjectKind.CATALOG) is between
    if extent is not Extent.CURRENT:
        assert replica_problems(store, tmp_path / "replica-spool") == []
    references = Reflog(store.files[".cvmfsreflog"], FQRN).references()
    assert (nameless_root in references, named_root in references) == (between, named)


async def test_more_of_the_past_can_be_asked_for_later(
    tmp_path: Path, stratum0: tuple[Repository, MemoryStore], server: RepositoryServer
) -> None:
    repository, _ = stratum0
    named_root = repository.manifest().root
    publish(repository, b"two")
    store = MemoryStore()
    await pull(server.url, store, tmp_path / "replica-spool", extent=Extent.CURRENT)
    assert not store.contains(named_root, ObjectKind.CATALOG)
    result = await pull(server.url, store, tmp_path / "replica-spool", extent=Extent.NAMED)
    assert not result.changed
    assert store.contains(named_root, ObjectKind.CATALOG)
    assert replica_problems(store, tmp_path / "replica-spool") == []


async def test_revisions_that_the_source_collected_are_passed_over(
    tmp_path: Path, stratum0: tuple[Repository, MemoryStore], server: RepositoryServer
) -> None:
    repository, source = stratum0
    store = MemoryStore()
    await pull(server.url, store, tmp_path / "replica-spool")
    publish(repository, b"two")
    collected = repository.manifest().root
    publish(repository, b"three")
    del source.contents[collected, ObjectKind.CATALOG]
    result = await pull(server.url, store, tmp_path / "replica-spool")
    assert result.skipped == (collected,)
    assert replica_problems(store, tmp_path / "replica-spool") == []
    assert collected not in Reflog(store.files[".cvmfsreflog"], FQRN).references()


async def test_the_current_revision_is_never_passed_over(
    tmp_path: Path, stratum0: tuple[Repository, MemoryStore], server: RepositoryServer
) -> None:
    repository, source = stratum0
    del source.contents[repository.manifest().root, ObjectKind.CATALOG]
    with pytest.raises(RepositoryDamaged, match="missing at the source"):
        await pull(server.url, MemoryStore(), tmp_path / "replica-spool")


async def test_every_size_takes_its_way(
    tmp_path: Path, stratum0: tuple[Repository, MemoryStore], server: RepositoryServer
) -> None:
    """In a batch, by a thread, through a file; with and without a length told before."""
    repository, source = stratum0
    tree = directory()
    for size in (0, 1, 65_535, 65_536, 65_537, 300_000, 2_000_000):
        data = bytes(range(256)) * (size // 256) + bytes(size % 256)
        content = ContentHash.of(data)
        source.put(content, ObjectKind.DATA, data)
        entry = replace(regular(source, b"x"), size=size, content=content, compression=Compression.NONE)
        tree.children[b"%d" % size] = entry
        if size % 2:
            server.spoil(content, ObjectKind.DATA, without_length(data))
    with Transaction(repository) as transaction:
        transaction.graft(b"sizes", tree)
        transaction.commit()
    store = LocalObjectStore(tmp_path / "replica")
    limits = replace(LIMITS, spooled_above=200_000, held_bytes=250_000)
    await pull(server.url, store, tmp_path / "replica-spool", limits=limits)
    assert replica_problems(store, tmp_path / "replica-spool") == []
    assert list((tmp_path / "replica-spool" / "incoming").iterdir()) == []


async def test_failures_that_pass_are_not_noticed(
    tmp_path: Path, stratum0: tuple[Repository, MemoryStore], server: RepositoryServer
) -> None:
    _, source = stratum0
    for number, ((content, kind), data) in enumerate(sorted(source.contents.items(), key=lambda item: item[0][0].value)):
        fault = (status(503, **{"Retry-After": "0"}), cut_after(data, len(data) // 2), status(429))[number % 3]
        server.spoil(content, kind, first(2, fault, without_length(data)))
    store = MemoryStore()
    await pull(server.url, store, tmp_path / "replica-spool")
    assert replica_problems(store, tmp_path / "replica-spool") == []


async def test_what_was_stored_before_a_failure_is_not_fetched_again(
    tmp_path: Path, stratum0: tuple[Repository, MemoryStore], server: RepositoryServer
) -> None:
    repository, _ = stratum0
    store, spool = MemoryStore(), tmp_path / "replica-spool"
    entry = repository.reader().lookup(b"one/own")
    assert entry is not None
    assert entry.content is not None
    server.spoil(entry.content, ObjectKind.DATA, status(500))
    with pytest.raises(Unavailable, match="status 500"):
        await pull(server.url, store, spool)
    assert ".cvmfspublished" not in store.files
    assert ".cvmfs_is_snapshotting" not in store.files
    kept = set(store.contents)
    assert kept
    server.faults.clear()
    server.requests.clear()
    await pull(server.url, store, spool)
    again = {content.object_path(kind) for content, kind in kept if kind is not ObjectKind.HISTORY} & server.requests.keys()
    assert again == set()
    assert replica_problems(store, spool) == []


async def test_the_replica_says_that_it_is_in_work_and_keeps_others_out(
    tmp_path: Path, stratum0: tuple[Repository, MemoryStore], server: RepositoryServer
) -> None:
    store, spool = MemoryStore(), tmp_path / "replica-spool"
    seen: set[bool] = set()
    server.on_request = lambda path: seen.add(".cvmfs_is_snapshotting" in store.files) if path.endswith("C") else None
    reached = asyncio.Event()
    task = asyncio.create_task(pull(server.url, store, spool, on_progress=lambda _: reached.set()))
    await reached.wait()
    with pytest.raises(Conflict):
        await pull(server.url, MemoryStore(), spool)
    await task
    assert seen == {True}
    assert ".cvmfs_is_snapshotting" not in store.files


async def test_progress_never_goes_back_and_ends_complete(
    tmp_path: Path, stratum0: tuple[Repository, MemoryStore], server: RepositoryServer
) -> None:
    seen: list[tuple[int, int, int]] = []
    store = MemoryStore()

    def note(progress: Progress) -> None:
        seen.append((progress.objects, progress.bytes, progress.catalogs))

    result = await pull(server.url, store, tmp_path / "replica-spool", on_progress=note)
    assert seen == sorted(seen)
    walked = [
        data for (_, kind), data in store.contents.items() if kind in {ObjectKind.DATA, ObjectKind.CHUNK, ObjectKind.CATALOG}
    ]
    assert result.progress.bytes == sum(map(len, walked))
    assert result.progress.objects + result.progress.catalogs == len(walked)
    assert seen[-1] == (result.progress.objects, result.progress.bytes, result.progress.catalogs)


async def test_a_cancelled_replication_leaves_nothing_behind_that_hinders(
    tmp_path: Path, stratum0: tuple[Repository, MemoryStore], server: RepositoryServer
) -> None:
    store, spool = LocalObjectStore(tmp_path / "replica"), tmp_path / "replica-spool"
    reached = asyncio.Event()
    task = asyncio.create_task(pull(server.url, store, spool, on_progress=lambda _: reached.set()))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await pull(server.url, store, spool)
    assert replica_problems(store, spool) == []
