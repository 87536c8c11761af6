"""What every object store must do, whatever it keeps its objects in."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path
from uuid import uuid4

import pytest

from mirror.errors import InvalidInput, NotFound, Unavailable
from publisher.cvmfs.hash import ContentHash, HashAlgorithm, ObjectKind
from publisher.objects.local import LocalObjectStore
from publisher.objects.s3 import S3Limits, S3ObjectStore
from publisher.objects.store import REFRESH_SECONDS, ObjectStore
from tests.support.memory_store import MemoryStore
from tests.support.s3_server import CREDENTIALS, S3Server


@pytest.fixture(params=["memory", "local", "s3", "s3 that replaces"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "memory":
        return MemoryStore()
    if request.param == "local":
        return LocalObjectStore(tmp_path / "storage")
    server: S3Server = request.getfixturevalue("s3_server")
    limits = S3Limits(create_only=request.param == "s3")
    return S3ObjectStore(server.place(f"cvmfs/{uuid4()}"), CREDENTIALS, tmp_path / "locks", limits)


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


@pytest.mark.parametrize("size", [0, 1, 70_000, (8 << 20) + 1, 20 << 20])
def test_an_object_can_be_put_from_a_file(store: ObjectStore, tmp_path: Path, size: int) -> None:
    """Whatever its size: in an S3 storage it may have to go in parts."""
    data = hashlib.shake_128(b"%d" % size).digest(size)
    content, file = ContentHash.of(data), tmp_path / "incoming"
    for is_new in (True, False):
        file.write_bytes(data)
        file.chmod(0o600)
        os.utime(file, (1, 1))
        assert store.put_file(content, ObjectKind.CHUNK, file) is is_new
        assert not file.exists()
    assert store.get(content, ObjectKind.CHUNK) == data
    pieces = list(store.pieces(content, ObjectKind.CHUNK))
    assert b"".join(pieces) == data
    assert max(map(len, pieces), default=0) < 4 << 20
    (found,) = store.objects()
    assert (found.content, found.kind, found.size) == (content, ObjectKind.CHUNK, size)
    assert found.modified > time.time() - 60
    assert store.renew(content, ObjectKind.CHUNK, size)
    assert store.expire(content, ObjectKind.CHUNK, time.time() + 60)
    assert list(store.objects()) == []


def test_a_file_that_cannot_be_read_is_no_object(store: ObjectStore, tmp_path: Path) -> None:
    content = ContentHash.of(b"gone")
    with pytest.raises(Unavailable):
        store.put_file(content, ObjectKind.DATA, tmp_path / "gone")
    assert not store.contains(content, ObjectKind.DATA)


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
        list(store.pieces(content, ObjectKind.DATA))
    with pytest.raises(NotFound):
        store.read_file(".cvmfspublished")


def test_delete_removes_and_may_be_repeated(store: ObjectStore) -> None:
    content = ContentHash.of(b"short-lived")
    store.put(content, ObjectKind.DATA, b"short-lived")
    store.delete(content, ObjectKind.DATA)
    store.delete(content, ObjectKind.DATA)
    assert not store.contains(content, ObjectKind.DATA)
    assert list(store.objects()) == []


def test_only_what_is_there_with_its_size_is_renewed(store: ObjectStore) -> None:
    content = ContentHash.of(b"known")
    assert not store.renew(content, ObjectKind.DATA, 5)
    store.put(content, ObjectKind.DATA, b"known")
    assert store.renew(content, ObjectKind.DATA, 5)
    assert not store.renew(content, ObjectKind.DATA, 4)
    assert not store.renew(content, ObjectKind.CHUNK, 5)
    assert store.get(content, ObjectKind.DATA) == b"known"


def test_only_what_was_put_before_a_time_expires(store: ObjectStore) -> None:
    content = ContentHash.of(b"perhaps garbage")
    store.put(content, ObjectKind.DATA, b"perhaps garbage")
    assert not store.expire(content, ObjectKind.DATA, time.time() - REFRESH_SECONDS)
    assert store.contains(content, ObjectKind.DATA)
    assert store.expire(content, ObjectKind.DATA, time.time() + 60)
    assert not store.contains(content, ObjectKind.DATA)
    assert not store.expire(content, ObjectKind.DATA, time.time() + 60)
    assert store.put(content, ObjectKind.DATA, b"perhaps garbage")


def test_a_named_file_is_replaced_and_is_no_object(store: ObjectStore) -> None:
    store.write_file(".cvmfspublished", b"first and long")
    store.write_file(".cvmfspublished", b"second")
    assert store.read_file(".cvmfspublished") == b"second"
    assert list(store.objects()) == []


def test_a_named_file_can_be_removed_again(store: ObjectStore) -> None:
    store.write_file(".cvmfs_is_snapshotting", b"now")
    store.delete_file(".cvmfs_is_snapshotting")
    store.delete_file(".cvmfs_is_snapshotting")
    with pytest.raises(NotFound):
        store.read_file(".cvmfs_is_snapshotting")


@pytest.mark.parametrize("name", ["", "..", "data/00/x", "/etc/passwd"])
def test_a_named_file_is_in_the_root_and_nowhere_else(store: ObjectStore, name: str) -> None:
    with pytest.raises(InvalidInput):
        store.write_file(name, b"x")
    with pytest.raises(InvalidInput):
        store.read_file(name)


def test_flush_can_be_called_at_any_time(store: ObjectStore) -> None:
    store.flush()
    store.put(ContentHash.of(b"x"), ObjectKind.DATA, b"x")
    store.flush()


def test_many_threads_may_put_the_same_objects(store: ObjectStore) -> None:
    objects = [bytes([number]) * 100 for number in range(24)]
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
