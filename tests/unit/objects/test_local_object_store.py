"""The storage directory: what web servers and power failures see of it."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from mirror.errors import InvalidInput, StorageFull, Unavailable
from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.objects.local import LocalObjectStore

DATA = b"the stored bytes"
CONTENT = ContentHash.of(DATA)


def files_below(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_objects_lie_where_clients_ask_for_them(tmp_path: Path) -> None:
    store = LocalObjectStore(tmp_path)
    store.put(CONTENT, ObjectKind.CATALOG, DATA)
    text = str(CONTENT)
    assert files_below(tmp_path) == [f"data/{text[:2]}/{text[2:]}C"]
    assert sum(1 for entry in (tmp_path / "data").iterdir() if len(entry.name) == 2) == 256


def test_a_web_server_may_read_them_whatever_the_umask(tmp_path: Path) -> None:
    previous = os.umask(0o077)
    try:
        store = LocalObjectStore(tmp_path / "repository")
        store.put(CONTENT, ObjectKind.DATA, DATA)
        store.write_file(".cvmfspublished", b"x")
    finally:
        os.umask(previous)
    for path in (tmp_path / "repository").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o644), path


def test_an_object_that_is_there_is_not_touched(tmp_path: Path) -> None:
    store = LocalObjectStore(tmp_path)
    store.put(CONTENT, ObjectKind.DATA, DATA)
    path = tmp_path / CONTENT.object_path(ObjectKind.DATA)
    before = path.stat()
    assert not store.put(CONTENT, ObjectKind.DATA, DATA)
    after = path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("torn", [b"", DATA[:5], DATA + b"\0"])
def test_an_object_torn_by_a_power_failure_is_replaced(tmp_path: Path, torn: bytes) -> None:
    store = LocalObjectStore(tmp_path)
    (tmp_path / CONTENT.object_path(ObjectKind.DATA)).write_bytes(torn)
    assert store.put(CONTENT, ObjectKind.DATA, DATA)
    assert store.get(CONTENT, ObjectKind.DATA) == DATA


@pytest.mark.parametrize(
    ("number", "expected"), [(errno.ENOSPC, StorageFull), (errno.EDQUOT, StorageFull), (errno.EIO, Unavailable)]
)
def test_a_failed_write_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, expected: type[Exception]
) -> None:
    store = LocalObjectStore(tmp_path)
    store.write_file(".cvmfspublished", b"old")
    written: list[int] = []
    real_write = os.write

    def failing(descriptor: int, data: memoryview) -> int:
        if written:
            raise OSError(number, os.strerror(number))
        written.append(real_write(descriptor, data[:3]))
        return 3

    monkeypatch.setattr(os, "write", failing)
    with pytest.raises(expected) as caught:
        store.put(CONTENT, ObjectKind.DATA, DATA)
    assert type(caught.value) is expected
    assert str(CONTENT) in str(caught.value)
    with pytest.raises(expected):
        store.write_file(".cvmfspublished", b"new one")
    assert files_below(tmp_path) == [".cvmfspublished"]
    assert store.read_file(".cvmfspublished") == b"old"


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalObjectStore(tmp_path)
    real_write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real_write(descriptor, data[:4]))
    store.put(CONTENT, ObjectKind.DATA, DATA)
    assert store.get(CONTENT, ObjectKind.DATA) == DATA


def test_what_is_no_object_is_not_listed(tmp_path: Path) -> None:
    store = LocalObjectStore(tmp_path)
    for name in ("readme", "ab" * 18, "0" * 38 + "Z", "0" * 38 + "C.bak"):
        (tmp_path / "data/00" / name).write_bytes(b"x")
    assert list(store.objects()) == []


def test_only_files_of_the_root_have_names(tmp_path: Path) -> None:
    store = LocalObjectStore(tmp_path / "repository")
    for name in ("../escaped", "data/00/x", "", "..", "a\0b"):
        with pytest.raises(InvalidInput):
            store.write_file(name, b"x")
        with pytest.raises(InvalidInput):
            store.read_file(name)
    assert not (tmp_path / "escaped").exists()


def test_leftovers_of_killed_writers_are_removed_once_old(tmp_path: Path) -> None:
    store = LocalObjectStore(tmp_path)
    old, new = tmp_path / "data/txn/1.1", tmp_path / "data/txn/1.2"
    old.write_bytes(b"x")
    new.write_bytes(b"x")
    os.utime(old, (1, 1))
    assert store.remove_leftovers(older_than=3600) == 1
    assert (old.exists(), new.exists()) == (False, True)


def test_storage_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Unavailable, match="cannot be set up"):
        LocalObjectStore(tmp_path / "file")


@pytest.mark.parametrize("other", [False, True], ids=["same file system", "another file system"])
def test_a_file_becomes_an_object_that_a_web_server_may_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: bool
) -> None:
    rename, staging = Path.rename, tmp_path / "repository/data/txn"

    def across(self: Path, target: Path | str) -> Path:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(Path, "rename", across if other else rename)
    store = LocalObjectStore(tmp_path / "repository")
    incoming = tmp_path / "incoming"
    incoming.write_bytes(DATA)
    incoming.chmod(0o600)
    inode = incoming.stat().st_ino
    assert store.put_file(CONTENT, ObjectKind.DATA, incoming)
    placed = tmp_path / "repository" / CONTENT.object_path(ObjectKind.DATA)
    assert placed.read_bytes() == DATA
    assert stat.S_IMODE(placed.stat().st_mode) == 0o644
    assert (placed.stat().st_ino == inode) is not other
    assert not incoming.exists()
    assert list(staging.iterdir()) == []


def test_a_file_that_does_not_fit_is_left_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path | str) -> Path:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "rename", refuse)
    monkeypatch.setattr(os, "sendfile", full)
    store = LocalObjectStore(tmp_path / "repository")
    incoming = tmp_path / "incoming"
    incoming.write_bytes(DATA)
    with pytest.raises(StorageFull):
        store.put_file(CONTENT, ObjectKind.DATA, incoming)
    assert incoming.read_bytes() == DATA
    assert files_below(tmp_path / "repository") == []
