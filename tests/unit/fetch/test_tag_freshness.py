"""How old an answer for a tag may be: refreshed ahead, on demand, not waited for without end, and remembered when it is a no."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mirror.errors import NotFound
from mirror.fetch.manifests import ManifestFetcher, ManifestLimits
from mirror.fetch.result import CacheResult
from mirror.oci.digest import Digest
from mirror.oci.reference import Reference, RepositoryName
from mirror.store.blobs import BlobStore
from mirror.upstream.client import UpstreamClient
from tests.support.faulty_registry import FaultyRegistry, until
from tests.support.memory_state import MemoryLinks, MemoryTags
from tests.support.upstreams import client_of

NAME = RepositoryName("hub.test", "team/app")
TAG = Reference(tag="1")
LIMITS = ManifestLimits(tag_seconds=60, hold_seconds=5, absent_seconds=10, patience_seconds=0.25, revalidate_seconds=5)
OLD, NEW = b'{"layers": [], "config": {}, "x": "old"}', b'{"layers": [], "config": {}, "x": "new"}'


@dataclass
class Mirror:
    hub: FaultyRegistry
    client: UpstreamClient
    fetcher: ManifestFetcher
    now: float = 1_000_000.0

    async def get(self, reference: Reference = TAG, *, revalidate: bool = False) -> tuple[bytes, CacheResult]:
        answer = await self.fetcher.get(self.client, NAME, reference, revalidate=revalidate)
        return answer.raw, answer.result

    def asked(self) -> int:
        return len(self.hub.seen)


@pytest.fixture
async def mirror(tmp_path: Path) -> AsyncIterator[Mirror]:
    async with FaultyRegistry() as hub, client_of(hub.url) as client:
        hub.add_manifest("team/app", "1", OLD)
        fetcher = ManifestFetcher(BlobStore(tmp_path, 0), MemoryTags(), MemoryLinks(), LIMITS, clock=lambda: made.now)
        made = Mirror(hub, client, fetcher)
        yield made
        await fetcher.close()


async def test_a_tag_in_use_is_refreshed_before_its_time_is_up(mirror: Mirror) -> None:
    await mirror.get()
    mirror.hub.add_manifest("team/app", "1", NEW)
    mirror.now += 47
    assert (await mirror.get(), mirror.asked()) == ((OLD, CacheResult.HIT), 1)
    mirror.now += 2
    assert await mirror.get() == (OLD, CacheResult.HIT)
    await mirror.get()
    await until(lambda: mirror.asked() == 3)  # one HEAD, which tells that it moved, and the GET
    await until(lambda: not mirror.fetcher.is_refreshing)
    mirror.now += 15
    assert (await mirror.get(), mirror.asked()) == ((NEW, CacheResult.HIT), 3)


async def test_a_refresh_ahead_that_fails_harms_nobody(mirror: Mirror) -> None:
    await mirror.get()
    mirror.hub.faults.status = 500
    mirror.now += 50
    assert await mirror.get() == (OLD, CacheResult.HIT)
    await until(lambda: mirror.asked() > 1 and not mirror.fetcher.is_refreshing)
    asked = mirror.asked()
    assert (await mirror.get(), mirror.asked()) == ((OLD, CacheResult.HIT), asked)


async def test_a_client_that_wants_it_fresh_gets_it_but_not_all_the_time(mirror: Mirror) -> None:
    await mirror.get()
    mirror.hub.add_manifest("team/app", "1", NEW)
    mirror.now += 4
    assert await mirror.get(revalidate=True) == (OLD, CacheResult.HIT)
    mirror.now += 2
    assert await mirror.get(revalidate=True) == (NEW, CacheResult.MISS)


async def test_a_hub_that_hangs_costs_a_moment_and_the_next_ones_nothing(mirror: Mirror) -> None:
    await mirror.get()
    mirror.hub.faults.before_headers = 0.5
    mirror.now += 61
    assert await mirror.get() == (OLD, CacheResult.STALE)
    asked = mirror.asked()
    assert (await mirror.get(), mirror.asked()) == ((OLD, CacheResult.STALE), asked)
    mirror.hub.faults.before_headers = 0.0
    await until(lambda: not mirror.fetcher.is_refreshing)
    assert await mirror.get() == (OLD, CacheResult.HIT)  # the slow answer was not in vain


@pytest.mark.parametrize("reference", [Reference(tag="2"), Reference(digest=Digest.of(NEW))], ids=["tag", "digest"])
async def test_a_no_counts_for_a_while(mirror: Mirror, reference: Reference) -> None:
    for _ in range(3):
        with pytest.raises(NotFound, match="no manifest"):
            await mirror.get(reference)
    assert mirror.asked() == 1
    mirror.hub.add_manifest("team/app", "2", NEW)
    mirror.now += 11
    assert (await mirror.get(reference))[0] == NEW


async def test_a_no_is_asked_again_for_who_wants_it_fresh(mirror: Mirror) -> None:
    with pytest.raises(NotFound):
        await mirror.get(Reference(tag="2"))
    mirror.hub.add_manifest("team/app", "2", NEW)
    assert (await mirror.get(Reference(tag="2"), revalidate=True))[0] == NEW


async def test_nothing_is_left_running(mirror: Mirror) -> None:
    await mirror.get()
    mirror.hub.faults.before_headers = 5
    mirror.now += 50
    await mirror.get()
    await asyncio.sleep(0)
    await mirror.fetcher.close()
    assert not mirror.fetcher.is_refreshing
