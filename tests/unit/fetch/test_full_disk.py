"""A store that can take no more: blobs pass by unkept, and wrong ones still never complete."""

from __future__ import annotations

import asyncio
import errno
import os
import random
from pathlib import Path

import pytest

from mirror.errors import IntegrityError, NotFound, StorageFull
from mirror.fetch.blobs import BlobFetcher
from mirror.fetch.filler import FetchLimits
from mirror.oci.digest import Digest
from mirror.store.blobs import BlobStore
from tests.support.faulty_registry import until
from tests.support.fetching import QUICK_DOWNLOADS, bench, read_all, read_span, read_what_comes

pytestmark = pytest.mark.usefixtures("every_way_of_reading")

BLOB = random.Random(2).randbytes(1_500_000)
SIZE = len(BLOB)
DIGEST = Digest.of(BLOB)
FULL = 500_000


@pytest.fixture
def full_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A file system on which no file can grow beyond the number in this list."""
    limit = [FULL]
    real = os.pwrite

    def write(descriptor: int, data: memoryview, offset: int) -> int:
        if offset + len(data) > limit[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", write)
    return limit


async def test_readers_go_on_when_the_disk_is_full_in_the_middle(tmp_path: Path, full_at: list[int]) -> None:
    async with bench(tmp_path) as at:
        at.hub.add_blob(BLOB)
        at.hub.faults.between_pieces = 0.001

        bodies = await asyncio.gather(*(read_all(at.fetch(DIGEST)) for _ in range(3)))

        assert bodies == [BLOB] * 3
        assert at.store.size(DIGEST) is None
        assert not at.store.layout.part(DIGEST).exists()
        small = at.hub.add_blob(b"small")
        with at.fetch(small) as reader:
            await reader.stored()
        assert at.fetcher.storage_problem is not None, "that a small one finds room says nothing of a large one"
        full_at[0] = 2 * SIZE
        assert await read_all(at.fetch(DIGEST)) == BLOB
        await until(lambda: at.fetcher.storage_problem is None)
        assert at.store.size(DIGEST) == SIZE


async def test_nothing_is_begun_when_too_little_is_free(tmp_path: Path) -> None:
    async with bench(tmp_path, min_free_bytes=1 << 62) as at:
        at.hub.add_blob(BLOB)

        with at.fetch(DIGEST) as reader:
            assert await reader.started() == SIZE
            assert await read_span(reader) == BLOB
            assert await read_span(reader, 1000, 2000) == BLOB[1000:2000]
            assert await read_span(reader, SIZE - 5000) == BLOB[-5000:]
            assert await read_span(reader, 1_000_000, SIZE) == BLOB[1_000_000:]
            with pytest.raises(StorageFull):
                await reader.stored()
        assert not any(tmp_path.rglob(DIGEST.hex))


class _NearlyFull(BlobStore):
    """Has room for half of the blob."""

    room = SIZE // 2

    def free_bytes(self) -> int:
        return self.room


@pytest.mark.parametrize("is_made", [True, False])
async def test_room_is_made_for_what_a_blob_needs(tmp_path: Path, *, is_made: bool) -> None:
    store = _NearlyFull(tmp_path, 0)
    asked = []

    async def make_room(size: int) -> None:
        asked.append(size)
        if is_made:
            store.room = SIZE

    async with bench(tmp_path, store=store) as at:
        at.hub.add_blob(BLOB)
        fetcher = BlobFetcher(store, FetchLimits(download=QUICK_DOWNLOADS), make_room=make_room)
        assert await read_all(fetcher.fetch(at.client, "team/app", DIGEST, SIZE)) == BLOB
        await until(lambda: fetcher.active_fills == 0)
        assert (store.size(DIGEST) == SIZE) is is_made
        await fetcher.close()
    assert asked == [SIZE]


async def test_the_upstreams_refusal_is_still_known_before_the_body(tmp_path: Path) -> None:
    async with bench(tmp_path, min_free_bytes=1 << 62) as at:
        with at.fetch(DIGEST) as reader, pytest.raises(NotFound):
            await reader.started()


@pytest.mark.parametrize("min_free_bytes", [0, 1 << 62])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_wrong_body_never_completes(tmp_path: Path, full_at: list[int], min_free_bytes: int, *, chunked: bool) -> None:
    async with bench(tmp_path, min_free_bytes=min_free_bytes) as at:
        at.hub.add_blob(BLOB)
        at.hub.faults.wrong_content, at.hub.faults.chunked = True, chunked

        for body, error in await asyncio.gather(*(read_what_comes(at.fetch(DIGEST)) for _ in range(3))):
            assert len(body) < SIZE
            assert isinstance(error, IntegrityError)
        with at.fetch(DIGEST) as reader:
            await reader.started()
            with pytest.raises(IntegrityError):
                await read_span(reader, SIZE - 100)


async def test_a_cut_is_gone_on_with(tmp_path: Path, full_at: list[int]) -> None:
    async with bench(tmp_path) as at:
        at.hub.add_blob(BLOB)
        at.hub.faults.cut_at, at.hub.faults.cuts = 1_000_000, 2

        assert await read_all(at.fetch(DIGEST)) == BLOB


async def test_a_blob_that_cannot_be_committed_is_still_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(os, "fsync", full)
    async with bench(tmp_path) as at:
        at.hub.add_blob(BLOB)
        with at.fetch(DIGEST) as reader:
            await reader.started()
            assert await read_span(reader) == BLOB
            with pytest.raises(StorageFull):
                await reader.stored()
        assert at.store.size(DIGEST) is None
        assert not at.store.layout.part(DIGEST).exists()
