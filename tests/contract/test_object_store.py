"""What every object store must do, whatever it keeps its objects in."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mirror.errors import NotFound
from publisher.cvmfs.hash import ContentHash, HashAlgorithm, ObjectKind
from publisher.objects.local import LocalObjectStore
from publisher.objects.store import ObjectStore
from tests.support.memory_store import MemoryStore

STORES: dict[str, Callable[[Path], ObjectStore]] = {
    "memory": lambda _: MemoryStore(),
    "local": LocalObjectStore,
}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    return STORES[request.param](tmp_path / "storage")


def test_an_object_comes_back_as_it_was_put(store: ObjectStore) -> None:
    for data in (b"", b"stored", bytes(range(256)) * 5000):
        content = ContentHash.of(data)
        assert not store.contains(content, ObjectKind.DATA)
        assert store.put(content, ObjectKind.DATA, memoryview(data))
        assert store.contains(content, ObjectKind.DATA)
        assert store.get(content, ObjectKind.DATA) == data


def test_a_second_put_changes_nothing_and_says_so(store: ObjectStore) -> None:
    content = ContentHash.of(b"once")
    assert store.put(content, ObjectKind.DATA, b"once")
    assert not store.put(content, ObjectKind.DATA, b"once")
    assert [found.content for found in store.objects()] == [content]


def test_kinds_and_algorithms_do_not_mix(store: ObjectStore) -> None:
    sha1, shake = ContentHash.of(b"x"), ContentHash.of(b"x", HashAlgorithm.SHAKE128)
    wanted = {(sha1, ObjectKind.DATA), (sha1, ObjectKind.CATALOG), (shake, ObjectKind.CHUNK)}
    for content, kind in wanted:
        store.put(content, kind, b"x")
    assert {(found.content, found.kind) for found in store.objects()} == wanted
    assert not store.contains(shake, ObjectKind.DATA)


def test_a_listing_has_size_and_time(store: ObjectStore) -> None:
    before = time.time() - 60
    store.put(ContentHash.of(b"12345"), ObjectKind.CHUNK, b"12345")
    (found,) = store.objects()
    assert found.size == 5
    assert before < found.modified < time.time() + 60


def test_what_is_not_there_is_not_found(store: ObjectStore) -> None:
    content = ContentHash.of(b"absent")
    with pytest.raises(NotFound):
        store.get(content, ObjectKind.DATA)
    with pytest.raises(NotFound):
        store.read_file(".cvmfspublished")


def test_delete_removes_and_may_be_repeated(store: ObjectStore) -> None:
    content = ContentHash.of(b"short-lived")
    store.put(content, ObjectKind.DATA, b"short-lived")
    store.delete(content, ObjectKind.DATA)
    store.delete(content, ObjectKind.DATA)
    assert not store.contains(content, ObjectKind.DATA)
    assert list(store.objects()) == []


def test_a_named_file_is_replaced_and_is_no_object(store: ObjectStore) -> None:
    store.write_file(".cvmfspublished", b"first and long")
    store.write_file(".cvmfspublished", b"second")
    assert store.read_file(".cvmfspublished") == b"second"
    assert list(store.objects()) == []


def test_flush_can_be_called_at_any_time(store: ObjectStore) -> None:
    store.flush()
    store.put(ContentHash.of(b"x"), ObjectKind.DATA, b"x")
    store.flush()


def test_many_threads_may_put_the_same_objects(store: ObjectStore) -> None:
    objects = [bytes([number]) * 100 for number in range(50)]
    failures: list[BaseException] = []

    def put_all() -> None:
        try:
            for data in objects:
                store.put(ContentHash.of(data), ObjectKind.DATA, data)
                assert store.get(ContentHash.of(data), ObjectKind.DATA) == data
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=put_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(list(store.objects())) == len(objects)
