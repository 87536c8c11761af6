"""Content addressed storage, as those who put and read see it."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from mirror.errors import IntegrityError, InvalidInput, NotFound, StorageFull, Unavailable
from mirror.oci.digest import Digest
from mirror.store.blobs import BlobStore

DATA = b"some content of a layer" * 1000
DIGEST = Digest.of(DATA)


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path, min_free_bytes=0)


def test_what_was_put_is_there_for_everybody(store: BlobStore, tmp_path: Path) -> None:
    assert store.size(DIGEST) is None

    store.put(DIGEST, DATA)

    other = BlobStore(tmp_path, 0)
    assert other.size(DIGEST) == len(DATA)
    assert other.read(DIGEST, 1 << 20) == DATA
    with other.open(DIGEST) as file:
        assert file.read() == DATA
    assert other.path(DIGEST) == tmp_path / "blobs" / "sha256" / DIGEST.hex[:2] / DIGEST.hex


def test_sha512_has_a_place_of_its_own(store: BlobStore) -> None:
    digest = Digest.of(DATA, "sha512")

    store.put(digest, DATA)

    assert store.read(digest, 1 << 20) == DATA
    assert store.size(DIGEST) is None


def test_wrong_content_is_not_stored(store: BlobStore) -> None:
    with pytest.raises(IntegrityError):
        store.put(DIGEST, DATA[:-1])
    assert store.size(DIGEST) is None


def test_reading_is_limited(store: BlobStore) -> None:
    store.put(DIGEST, DATA)

    with pytest.raises(IntegrityError, match="more than the 100"):
        store.read(DIGEST, 100)


def test_what_is_gone_is_not_found(store: BlobStore) -> None:
    store.put(DIGEST, DATA)
    store.delete(DIGEST)
    store.delete(DIGEST)

    assert store.size(DIGEST) is None
    with pytest.raises(NotFound):
        store.read(DIGEST, 100)


def test_a_full_disk_leaves_nothing_half_written(store: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(StorageFull, match="free space"):
        store.put(DIGEST, DATA)
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_space_that_must_remain_is_not_taken(tmp_path: Path) -> None:
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize

    BlobStore(tmp_path, 0).check_space(1)
    with pytest.raises(StorageFull, match=r"B free, less than the 98\.5 TiB that must remain \(store\.min_free\)"):
        BlobStore(tmp_path, 197 << 39).check_space(0)
    with pytest.raises(StorageFull, match=r"too little for 10 KiB more and the 99 TiB that"):
        BlobStore(tmp_path, 99 << 40).check_space(10 << 10)
    with pytest.raises(StorageFull):
        BlobStore(tmp_path, 0).check_space(2 * free)
    with pytest.raises(StorageFull):
        BlobStore(tmp_path, 2 * free).check_space(0)


def test_a_part_becomes_a_blob_only_if_it_is_right(store: BlobStore) -> None:
    part = store.part(DIGEST)
    assert part.try_lock()
    part.append(DATA[:5000])
    with pytest.raises(IntegrityError):
        store.commit(part)
    assert store.size(DIGEST) is None

    part.append(DATA[5000:])
    assert store.commit(part) == store.path(DIGEST)

    assert store.read(DIGEST, 1 << 20) == DATA
    assert not part.is_current()
    assert os.pread(part.fileno(), 20, 10) == DATA[10:30]
    part.close()


def test_a_part_goes_on_where_an_earlier_process_left_it(store: BlobStore) -> None:
    first = store.part(DIGEST)
    assert first.try_lock()
    first.append(DATA[:7000])
    first.close()

    second = store.part(DIGEST)
    assert second.try_lock()
    assert second.size == 7000
    assert not second.is_hashed
    assert not second.catch_up(5000)
    assert second.catch_up(5000)
    second.append(DATA[7000:])
    store.commit(second)
    second.close()

    assert store.read(DIGEST, 1 << 20) == DATA


def test_only_one_fills_a_part(store: BlobStore) -> None:
    filler, follower = store.part(DIGEST), store.part(DIGEST)
    assert filler.try_lock()
    assert not follower.try_lock()

    filler.append(DATA[:100])
    assert follower.refresh() == 100

    filler.close()
    assert follower.try_lock()
    assert follower.is_current()
    follower.close()


def test_a_discarded_part_is_gone_for_others_and_readable_for_who_has_it(store: BlobStore) -> None:
    filler, follower = store.part(DIGEST), store.part(DIGEST)
    assert filler.try_lock()
    filler.append(DATA[:100])
    filler.discard()

    assert not follower.is_current()
    assert os.pread(follower.fileno(), 100, 0) == DATA[:100]
    fresh = store.part(DIGEST)
    assert fresh.size == 0
    for part in (filler, follower, fresh):
        part.close()


def test_a_write_that_fails_half_way_is_not_counted(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    part = store.part(DIGEST)
    assert part.try_lock()
    part.append(DATA[:1000])
    real = os.pwritev

    def half(descriptor: int, pieces: list[bytes], offset: int) -> int:
        return real(descriptor, [b"".join(pieces)[:10]], offset)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", half)
        patch.setattr(os, "pwrite", full)
        with pytest.raises(StorageFull):
            part.append(DATA[1000:2000])
    assert part.size == 1000
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", half)
        part.append(DATA[1000:])
    assert part.is_right()
    part.close()


def test_what_nobody_goes_on_with_is_swept(store: BlobStore, tmp_path: Path) -> None:
    other = Digest.of(b"other")
    abandoned, filling = store.part(DIGEST), store.part(other)
    assert abandoned.try_lock()
    abandoned.append(DATA)
    abandoned.close()
    assert filling.try_lock()
    unfinished = store.layout.put(DIGEST, 1, 1)
    unfinished.write_bytes(b"123")

    foreign = [store.layout.parts / "lost+found" / "x", store.layout.parts / "note", abandoned.path.parent / "note"]
    foreign[0].parent.mkdir()
    for path in foreign:
        path.write_text("somebody else's")

    now = abandoned.path.stat().st_mtime
    assert store.sweep(3600, now=now).files == 0
    swept = store.sweep(3600, now=now + 4000)

    assert (swept.files, swept.size) == (2, len(DATA) + 3)
    assert all(path.exists() for path in foreign)
    assert filling.is_current()
    assert not abandoned.path.exists()
    filling.close()


def test_a_file_system_without_locks_is_no_lock_of_somebody_else(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    part = store.part(DIGEST)
    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(Unavailable, match=r"lock .*: No locks available"):
        part.try_lock()
    part.close()


def test_a_store_that_cannot_be_made_says_where(tmp_path: Path) -> None:
    (tmp_path / "blobs").write_text("in the way")

    with pytest.raises(Unavailable, match=str(tmp_path)):
        BlobStore(tmp_path, 0)


def test_digests_are_checked_before_they_are_paths() -> None:
    with pytest.raises(InvalidInput):
        Digest.parse("sha256:../../../../etc/passwd")
