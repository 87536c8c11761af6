"""Room in the store: who goes first, who stays, and that a transfer gets it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Collection, Sequence
from pathlib import Path

import pytest

from mirror.errors import Unavailable
from mirror.oci.digest import Digest
from mirror.store.blobs import BlobStore
from mirror.store.eviction import EvictionPolicy
from mirror.store.evictor import Evictor, Needed

NOW = time.time()
SIZE = 100_000
POLICY = EvictionPolicy(max_bytes=4 * SIZE, low_share=0.5, floor_bytes=0, headroom_bytes=0)


class Known:
    """What a test says of blobs."""

    def __init__(self) -> None:
        self.busy: set[Digest] = set()
        self.live: set[Digest] = set()
        self.in_cvmfs: set[Digest] = set()
        self.is_away = False

    async def look(self) -> Needed:
        if self.is_away:
            raise Unavailable("away")
        return Needed(frozenset(self.busy), frozenset(self.live))

    async def held(self, digests: Sequence[Digest]) -> Collection[Digest]:
        return self.in_cvmfs & set(digests)


class Cache:
    """A store with blobs of given ages."""

    def __init__(self, root: Path) -> None:
        self.store = BlobStore(root, 0)
        self.known = Known()
        self.told: list[tuple[int, int]] = []

    def evictor(self, policy: EvictionPolicy = POLICY) -> Evictor:
        return Evictor(
            self.store, self.known, policy, clock=lambda: NOW, on_evicted=lambda files, size: self.told.append((files, size))
        )

    def add(self, name: str, age: float, size: int = SIZE) -> Digest:
        data = name.encode().ljust(size, b".")
        digest = Digest.of(data)
        self.store.put(digest, data)
        os.utime(self.store.path(digest), (NOW - age, NOW - age))
        return digest

    def has(self, *digests: Digest) -> list[bool]:
        return [self.store.size(digest) is not None for digest in digests]


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path)


async def test_nothing_goes_as_long_as_there_is_room(cache: Cache) -> None:
    blobs = [cache.add(f"blob {number}", 1e6) for number in range(4)]
    assert await cache.evictor().keep_room() == 0
    assert all(cache.has(*blobs))


async def test_the_longest_unused_go_until_the_low_mark(cache: Cache) -> None:
    blobs = [cache.add(f"blob {number}", 10_000.0 * (10 - number)) for number in range(5)]
    assert await cache.evictor().keep_room() == 3 * SIZE
    assert cache.has(*blobs) == [False, False, False, True, True]
    assert cache.told == [(3, 3 * SIZE)]


async def test_what_cvmfs_holds_goes_first_and_what_is_live_or_small_last(cache: Cache) -> None:
    live, loose, held = cache.add("live", 9e6), cache.add("loose", 5e6), cache.add("held", 2e4)
    small = cache.add("small", 9e7, 1000)
    cache.known.live, cache.known.in_cvmfs = {live}, {held}
    for marks, expected in (
        (2, [True, True, False, True]),
        (1, [True, False, False, True]),
        (0.5, [False, False, False, True]),
    ):
        await cache.evictor(EvictionPolicy(int(SIZE * marks) + 2000, 1.0, 0, 0)).keep_room()
        assert cache.has(live, loose, held, small) == expected


async def test_what_waits_to_be_unpacked_or_was_just_used_stays(cache: Cache) -> None:
    busy, fresh, read, old = cache.add("busy", 9e6), cache.add("fresh", 60), cache.add("read", 9e6), cache.add("old", 1e6)
    cache.known.busy = {busy}
    with cache.store.open(read):
        await cache.evictor(EvictionPolicy(0, 1.0, 0, 0)).keep_room()
    assert cache.has(busy, fresh, read, old) == [True, True, True, False]


async def test_who_has_it_open_reads_on(cache: Cache) -> None:
    digest = cache.add("read", 9e6)
    with cache.store.open(digest) as file:
        os.utime(cache.store.path(digest), (1e6, 1e6))
        await cache.evictor(EvictionPolicy(0, 1.0, 0, 0)).keep_room()
        assert cache.has(digest) == [False]
        assert file.read().startswith(b"read")


async def test_nothing_goes_blindly(cache: Cache) -> None:
    digest = cache.add("old", 9e6)
    cache.known.is_away = True
    with pytest.raises(Unavailable):
        await cache.evictor(EvictionPolicy(0, 1.0, 0, 0)).keep_room()
    assert cache.has(digest) == [True]


async def test_a_transfer_gets_the_room_that_it_needs_and_nothing_goes_in_vain(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, young = cache.add("old", 9e6), cache.add("young", 1e6)
    lacking = 3 * SIZE
    monkeypatch.setattr(cache.store, "shortage", lambda size: size - SIZE)
    await cache.evictor().make_room(SIZE + lacking)
    assert cache.has(old, young) == [True, True]
    await cache.evictor().make_room(2 * SIZE)
    assert cache.has(old, young) == [False, True]


async def test_one_process_evicts_at_a_time(cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = cache.add("old", 9e6)
    first, second = cache.evictor(), Cache(tmp_path).evictor(EvictionPolicy(0, patience_seconds=0.1))
    async with first._alone():  # what another process does
        monkeypatch.setattr(BlobStore, "shortage", lambda _self, size: size)
        await second.make_room(10)
        assert cache.has(old) == [True]
    await asyncio.wait_for(second.make_room(10), 5)
    assert cache.has(old) == [False]
