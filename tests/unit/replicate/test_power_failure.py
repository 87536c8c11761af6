"""What a power failure tore is found, and gone through again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.objects.local import LocalObjectStore
from publisher.replicate.recovery import FlushJournal
from tests.support.replicas import publish, pull, replica_problems
from tests.support.repositories import FQRN, new_repository
from tests.support.repository_server import RepositoryServer

LONG_AGO = 1_000_000_000.0


def put(store: LocalObjectStore, data: bytes, kind: ObjectKind = ObjectKind.DATA) -> ContentHash:
    content = ContentHash.of(data)
    store.put(content, kind, data)
    return content


def age(root: Path, content: ContentHash, kind: ObjectKind, modified: float) -> None:
    os.utime(root / content.object_path(kind), (modified, modified))


def journal(tmp_path: Path, store: LocalObjectStore, boot: str, now: float = LONG_AGO + 7200) -> FlushJournal:
    (tmp_path / "spool").mkdir(exist_ok=True)
    return FlushJournal(tmp_path / "spool", store, clock=lambda: now, boot=boot)


def test_only_what_came_after_the_last_flush_is_doubted(tmp_path: Path) -> None:
    store = LocalObjectStore(tmp_path / "storage")
    assert journal(tmp_path, store, "monday").begin() == frozenset()
    old, new = put(store, b"old catalog", ObjectKind.CATALOG), put(store, b"new catalog", ObjectKind.CATALOG)
    torn, torn_long_ago = put(store, b"torn"), put(store, b"torn long ago")
    for content, kind in ((old, ObjectKind.CATALOG), (torn_long_ago, ObjectKind.DATA)):
        age(tmp_path / "storage", content, kind, LONG_AGO)
    for content in (torn, torn_long_ago):
        path = tmp_path / "storage" / content.object_path(ObjectKind.DATA)
        status = path.stat()
        path.write_bytes(b"")
        os.utime(path, (status.st_atime, status.st_mtime))
    assert journal(tmp_path, store, "tuesday").begin() == {new}
    assert not store.contains(torn, ObjectKind.DATA)
    assert store.contains(torn_long_ago, ObjectKind.DATA)
    assert store.contains(new, ObjectKind.CATALOG)
    assert journal(tmp_path, store, "tuesday").begin() == frozenset()


def test_a_death_without_power_failure_loses_nothing(tmp_path: Path) -> None:
    store = LocalObjectStore(tmp_path / "storage")
    journal(tmp_path, store, "monday").begin()
    put(store, b"catalog", ObjectKind.CATALOG)
    assert journal(tmp_path, store, "monday").begin() == frozenset()


def test_an_end_leaves_nothing_to_doubt(tmp_path: Path) -> None:
    store = LocalObjectStore(tmp_path / "storage")
    first = journal(tmp_path, store, "monday")
    first.begin()
    put(store, b"catalog", ObjectKind.CATALOG)
    first.end()
    second = journal(tmp_path, store, "tuesday")
    assert not second.is_left
    assert second.begin() == frozenset()


@pytest.mark.parametrize("note", ["", "{}", "[1]", '{"boot": "monday", "flushed": "x"}'])
def test_a_torn_note_doubts_everything(tmp_path: Path, note: str) -> None:
    store = LocalObjectStore(tmp_path / "storage")
    catalog = put(store, b"catalog", ObjectKind.CATALOG)
    age(tmp_path / "storage", catalog, ObjectKind.CATALOG, LONG_AGO)
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "replicating.json").write_text(note)
    assert journal(tmp_path, store, "tuesday").begin() == {catalog}


async def test_a_torn_replica_heals(tmp_path: Path) -> None:
    """A catalog stayed, the object below it did not: its presence must not be believed."""
    repository, source = new_repository(tmp_path / "stratum0")
    publish(repository, b"one")
    storage, spool = tmp_path / "storage", tmp_path / "spool"
    store = LocalObjectStore(storage)
    async with RepositoryServer(source, FQRN).running() as server:
        await pull(server.url, store, spool)
        publish(repository, b"two")
        await pull(server.url, store, spool)
        (spool / "replicating.json").write_text(json.dumps({"boot": "another", "flushed": 0.0}))
        entry = repository.reader().lookup(b"two/own")
        assert entry is not None
        assert entry.content is not None
        (storage / entry.content.object_path(ObjectKind.DATA)).write_bytes(b"")
        result = await pull(server.url, store, spool)
    assert replica_problems(store, spool) == []
    assert result.progress.objects == 1
    assert not (spool / "replicating.json").exists()
