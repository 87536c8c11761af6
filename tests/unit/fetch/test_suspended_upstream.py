"""Tags while their upstream is away: answered at once or not at all, and looked after in the background when it is back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mirror.errors import Unavailable
from mirror.fetch.manifests import ManifestFetcher, ManifestLimits
from mirror.fetch.result import CacheResult
from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_INDEX
from mirror.oci.reference import Reference, RepositoryName
from mirror.store.blobs import BlobStore
from mirror.upstream.client import UpstreamClient
from mirror.upstream.gate import Gate
from mirror.upstream.model import BreakerPolicy
from mirror.upstream.policy import RetryPolicy
from tests.support.faulty_registry import FaultyRegistry, until
from tests.support.memory_state import MemoryLinks, MemoryTags
from tests.support.state import Clock
from tests.support.upstreams import session_for, upstream

NAME = RepositoryName("hub.test", "team/app")
ONE, TWO = Reference(tag="1"), Reference(tag="2")
LIMITS = ManifestLimits(tag_seconds=60, hold_seconds=0, patience_seconds=0.3)
ONCE = RetryPolicy(attempts=1, first_delay=0.001, longest_delay=0.01)
FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"


def image(text: str) -> bytes:
    blobs = [
        {"mediaType": f"application/{kind}", "digest": str(Digest.of(f"{kind} {text}".encode())), "size": 5}
        for kind in ("config", "layer")
    ]
    foreign = {"mediaType": FOREIGN, "digest": str(Digest.of(b"f")), "size": 1, "urls": ["https://elsewhere.example.org/f"]}
    return json.dumps({"schemaVersion": 2, "config": blobs[0], "layers": [blobs[1], foreign]}).encode()


RAW, NEW = image("old"), image("new")
BLOBS = frozenset(Digest.of(f"{kind} old".encode()) for kind in ("config", "layer"))


@dataclass
class Mirror:
    hub: FaultyRegistry
    client: UpstreamClient
    fetcher: ManifestFetcher
    clock: Clock
    at_hand: set[Digest] = field(default_factory=set)

    async def get(self, reference: Reference = ONE) -> tuple[bytes, CacheResult, float | None]:
        answer = await self.fetcher.get(self.client, NAME, reference)
        return answer.raw, answer.result, answer.age

    async def suspend(self) -> None:
        """One failure is enough here."""
        with pytest.raises(Unavailable):
            await self.get(Reference(tag="never"))
        assert self.client.is_suspended


@pytest.fixture
async def mirror(tmp_path: Path) -> AsyncIterator[Mirror]:
    async with FaultyRegistry() as hub:
        hub.add_manifest("team/app", "1", RAW)
        clock = Clock()
        known = upstream(hub.url, breaker=BreakerPolicy(failures=1, pause=100, longest_pause=100))
        async with session_for(known) as session:
            client = UpstreamClient(session, known, retry=ONCE, gate=Gate(known, clock=clock))

            async def is_at_hand(digest: Digest) -> bool:
                return digest in made.at_hand

            store = BlobStore(tmp_path, 0)
            fetcher = ManifestFetcher(store, MemoryTags(), MemoryLinks(), LIMITS, clock=clock, is_at_hand=is_at_hand)
            made = Mirror(hub, client, fetcher, clock)
            made.at_hand |= BLOBS
            yield made
            await fetcher.close()


async def test_a_known_tag_is_answered_at_once_with_its_age(mirror: Mirror) -> None:
    await mirror.get()
    mirror.hub.faults.status = 500
    await mirror.suspend()
    mirror.hub.faults.before_headers = 5
    asked = len(mirror.hub.seen)
    mirror.clock.advance(61)
    async with asyncio.timeout(0.2):
        for _ in range(3):
            assert await mirror.get() == (RAW, CacheResult.STALE, 61)
    assert len(mirror.hub.seen) == asked


async def test_when_it_is_time_one_stale_answer_starts_a_look_in_the_background(mirror: Mirror) -> None:
    await mirror.get()
    mirror.hub.faults.status = 500
    await mirror.suspend()
    mirror.hub.faults.status, mirror.hub.faults.before_headers = None, 0.1
    mirror.hub.add_manifest("team/app", "1", NEW)
    mirror.clock.advance(101)
    asked = len(mirror.hub.seen)
    for _ in range(3):
        assert await mirror.get() == (RAW, CacheResult.STALE, 101)
    await until(lambda: not mirror.fetcher.is_refreshing and len(mirror.hub.seen) > asked)
    assert len(mirror.hub.seen) == asked + 2  # one HEAD, which tells that it moved, and the GET
    assert await mirror.get() == (NEW, CacheResult.HIT, None)


async def test_nothing_is_refreshed_ahead_before_it_is_time_for_a_look(mirror: Mirror) -> None:
    await mirror.get()
    mirror.hub.faults.status = 500
    await mirror.suspend()
    mirror.clock.advance(55)
    assert (await mirror.get())[1] is CacheResult.HIT
    assert not mirror.fetcher.is_refreshing


async def test_a_look_that_fails_harms_nobody(mirror: Mirror) -> None:
    await mirror.get()
    await mirror.hub.kill()
    await mirror.suspend()
    for _ in range(3):
        mirror.clock.advance(101)
        assert (await mirror.get())[:2] == (RAW, CacheResult.STALE)
        await until(lambda: not mirror.fetcher.is_refreshing)
    assert mirror.client.is_suspended


@pytest.mark.parametrize("suspended", [True, False])
async def test_a_tag_whose_image_could_not_be_delivered_is_not_given_out(mirror: Mirror, *, suspended: bool) -> None:
    await mirror.get()
    await mirror.hub.kill()
    if suspended:
        await mirror.suspend()
    mirror.at_hand.pop()
    mirror.clock.advance(61)
    with pytest.raises(Unavailable, match=r"not all of its blobs are here, .* upstream hub\.test"):
        await mirror.get()
    by_digest = await mirror.get(Reference(digest=Digest.of(RAW)))
    assert by_digest == (RAW, CacheResult.HIT, None)


async def test_a_hub_that_hangs_is_waited_for_where_the_stale_image_would_be_of_no_use(mirror: Mirror) -> None:
    await mirror.get()
    mirror.at_hand.clear()
    mirror.hub.faults.before_headers = 0.5  # longer than the patience
    mirror.clock.advance(61)
    assert await mirror.get() == (RAW, CacheResult.HIT, None)


@pytest.mark.parametrize("status", [429, 401])
async def test_a_hub_that_gives_blobs_on_is_no_reason_to_hold_a_manifest_back(mirror: Mirror, status: int) -> None:
    await mirror.get()
    mirror.at_hand.clear()
    mirror.clock.advance(61)
    mirror.hub.faults.status = status
    if status == 429:
        assert (await mirror.get())[:2] == (RAW, CacheResult.STALE)
        assert mirror.client.is_suspended
        asked = len(mirror.hub.seen)
        assert (await mirror.get())[:2] == (RAW, CacheResult.STALE)
        assert len(mirror.hub.seen) == asked
    else:
        with pytest.raises(Exception, match="denies access"):
            await mirror.get()


async def test_of_an_index_nobody_wants_everything(mirror: Mirror) -> None:
    child = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": str(Digest.of(RAW)), "size": len(RAW)}
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child]}).encode()
    mirror.hub.add_manifest("team/app", "2", index, OCI_INDEX)
    await mirror.get(TWO)
    mirror.at_hand.clear()
    await mirror.hub.kill()
    mirror.clock.advance(61)
    assert await mirror.get(TWO) == (index, CacheResult.STALE, 61)


async def test_nothing_is_refreshed_ahead_while_few_pulls_are_left(mirror: Mirror) -> None:
    mirror.hub.faults.manifest_headers = {"RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": "19;w=21600"}
    await mirror.get()
    mirror.clock.advance(55)
    assert (await mirror.get())[1] is CacheResult.HIT
    await asyncio.sleep(0.05)
    assert len(mirror.hub.seen) == 1
    mirror.clock.advance(6)  # its time is up: now somebody waits for it
    assert (await mirror.get())[1] is CacheResult.HIT
    assert [request.method for request in mirror.hub.seen] == ["GET", "HEAD"]
    mirror.hub.faults.manifest_headers = {"RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": "21;w=21600"}
    mirror.clock.advance(61)
    await mirror.get()
    mirror.clock.advance(55)
    await mirror.get()
    await until(lambda: len(mirror.hub.seen) == 4)
