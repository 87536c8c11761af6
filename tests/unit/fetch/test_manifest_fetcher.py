"""Manifests: asked of the upstream as rarely as is right, given out whatever happens to it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from mirror.errors import Denied, NotFound, Unavailable
from mirror.fetch.manifests import ManifestFetcher, ManifestLimits
from mirror.fetch.result import CacheResult
from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_INDEX, OCI_MANIFEST
from mirror.oci.reference import Reference, RepositoryName
from mirror.store.blobs import BlobStore
from mirror.upstream.client import UpstreamClient
from tests.support.faulty_registry import FaultyRegistry
from tests.support.memory_state import MemoryLinks, MemoryTags
from tests.support.upstreams import client_of

NAME = RepositoryName("hub.test", "team/app")
TAG = Reference(tag="1")
LAYER = Digest.of(b"layer")


def image(text: str) -> bytes:
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": str(Digest.of(text.encode())), "size": 5}
    layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": str(LAYER), "size": 7}
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer]}, indent=3).encode()


OLD, NEW = image("old"), image("new")


@dataclass
class Mirror:
    hub: FaultyRegistry
    client: UpstreamClient
    store: BlobStore
    tags: MemoryTags
    links: MemoryLinks
    fetcher: ManifestFetcher
    now: float = 1_000_000.0

    def counts(self) -> tuple[int, int]:
        """HEADs and GETs that the hub has seen for manifests."""
        return self.hub.count("HEAD", "/manifests/"), self.hub.count("GET", "/manifests/")

    def restart(self) -> None:
        """A process that remembers nothing but what is stored."""
        self.fetcher = ManifestFetcher(
            self.store, self.tags, self.links, ManifestLimits(tag_seconds=60, hold_seconds=5), clock=lambda: self.now
        )


@asynccontextmanager
async def running(root: Path) -> AsyncIterator[Mirror]:
    async with FaultyRegistry() as hub, client_of(hub.url) as client:
        hub.add_manifest("team/app", "1", OLD)
        store, tags, links = BlobStore(root, 0), MemoryTags(), MemoryLinks()
        mirror = Mirror(hub, client, store, tags, links, ManifestFetcher(store, tags, links))
        mirror.restart()
        yield mirror
        await mirror.fetcher.close()


@pytest.fixture
async def mirror(tmp_path: Path) -> AsyncIterator[Mirror]:
    async with running(tmp_path) as made:
        yield made


async def by_tag(mirror: Mirror) -> tuple[bytes, CacheResult]:
    answer = await mirror.fetcher.get(mirror.client, NAME, TAG)
    assert answer.digest == Digest.of(answer.raw)
    assert answer.media_type == OCI_MANIFEST
    return answer.raw, answer.result


async def test_a_cold_tag_is_one_get_for_all(mirror: Mirror) -> None:
    mirror.hub.faults.before_headers = 0.05

    answers = await asyncio.gather(*(by_tag(mirror) for _ in range(16)))

    assert [raw for raw, _ in answers] == [OLD] * 16
    assert sorted(result for _, result in answers) == [CacheResult.JOINED] * 15 + [CacheResult.MISS]
    assert mirror.counts() == (0, 1)


async def test_a_warm_answer_asks_nobody(mirror: Mirror) -> None:
    await by_tag(mirror)
    mirror.links.asked = 0
    mirror.store.delete(Digest.of(OLD))

    assert await by_tag(mirror) == (OLD, CacheResult.HIT)
    answer = await mirror.fetcher.get(mirror.client, NAME, Reference(digest=Digest.of(OLD)))

    assert (answer.raw, answer.result) == (OLD, CacheResult.HIT)
    assert mirror.links.asked == 0
    assert mirror.counts() == (0, 1)


async def test_a_stale_tag_that_did_not_move_is_one_head(mirror: Mirror) -> None:
    await by_tag(mirror)
    mirror.now += 61
    mirror.hub.faults.before_headers = 0.05

    assert await asyncio.gather(*(by_tag(mirror) for _ in range(8))) == [(OLD, CacheResult.HIT)] * 8
    assert await by_tag(mirror) == (OLD, CacheResult.HIT)
    assert mirror.counts() == (1, 1)


async def test_a_tag_that_moved_is_fetched(mirror: Mirror) -> None:
    await by_tag(mirror)
    mirror.hub.add_manifest("team/app", "1", NEW)
    mirror.now += 61

    assert await by_tag(mirror) == (NEW, CacheResult.MISS)
    assert await by_tag(mirror) == (NEW, CacheResult.HIT)
    assert mirror.counts() == (1, 2)


async def test_a_tag_that_moved_back_costs_no_get(mirror: Mirror) -> None:
    await by_tag(mirror)
    for raw in (NEW, OLD):
        mirror.hub.add_manifest("team/app", "1", raw)
        mirror.now += 61
        assert (await by_tag(mirror))[0] == raw

    assert mirror.counts() == (2, 2)


async def test_an_upstream_without_digests_is_asked_by_get(mirror: Mirror) -> None:
    mirror.hub.faults.no_head_digest = True
    await by_tag(mirror)
    mirror.now += 61

    assert (await by_tag(mirror))[0] == OLD
    assert mirror.counts() == (1, 2)


async def test_what_is_stored_outlives_the_process(mirror: Mirror) -> None:
    await by_tag(mirror)
    mirror.restart()

    assert await by_tag(mirror) == (OLD, CacheResult.HIT)
    assert mirror.store.read(Digest.of(OLD), 1 << 20) == OLD
    assert mirror.counts() == (0, 1)


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_an_outage_is_answered_with_the_last_known(mirror: Mirror, status: int) -> None:
    await by_tag(mirror)
    mirror.now += 61
    mirror.hub.faults.status = status

    answer = await mirror.fetcher.get(mirror.client, NAME, TAG)
    asked = len(mirror.hub.seen)
    again = await mirror.fetcher.get(mirror.client, NAME, TAG)

    assert (answer.raw, answer.result, again.result) == (OLD, CacheResult.STALE, CacheResult.STALE)
    assert len(mirror.hub.seen) == asked
    mirror.hub.faults.status = None
    mirror.now += 6
    assert await by_tag(mirror) == (OLD, CacheResult.HIT)


async def test_a_hub_that_is_gone_is_answered_for_after_a_restart(mirror: Mirror) -> None:
    await by_tag(mirror)
    await mirror.hub.kill()
    mirror.now += 10_000
    mirror.restart()

    assert await by_tag(mirror) == (OLD, CacheResult.STALE)
    with pytest.raises(Unavailable, match=r"hub\.test cannot be reached"):
        await mirror.fetcher.get(mirror.client, NAME, Reference(tag="never-seen"))


async def test_a_tag_that_is_gone_is_not_found_and_forgotten(mirror: Mirror) -> None:
    await by_tag(mirror)
    mirror.hub.manifests.clear()
    mirror.now += 61

    with pytest.raises(NotFound, match=r"hub\.test has no manifest team/app:1"):
        await by_tag(mirror)
    mirror.hub.faults.status = 503
    mirror.now += 11
    with pytest.raises(Unavailable):
        await by_tag(mirror)
    digest = Reference(digest=Digest.of(OLD))
    assert (await mirror.fetcher.get(mirror.client, NAME, digest)).raw == OLD


async def test_a_right_that_was_taken_away_is_gone_for_tags(mirror: Mirror) -> None:
    await by_tag(mirror)
    mirror.now += 61
    mirror.hub.faults.status = 403

    with pytest.raises(Denied):
        await by_tag(mirror)


async def test_a_manifest_of_another_repository_has_to_be_proven(mirror: Mirror) -> None:
    await by_tag(mirror)
    other = RepositoryName("hub.test", "team/other")
    digest = Reference(digest=Digest.of(OLD))

    with pytest.raises(NotFound):
        await mirror.fetcher.get(mirror.client, other, digest)
    mirror.hub.add_manifest("team/other", "2", OLD)
    mirror.now += 11
    answer = await mirror.fetcher.get(mirror.client, other, digest)
    again = await mirror.fetcher.get(mirror.client, other, digest)

    assert (answer.raw, again.raw) == (OLD, OLD)
    assert mirror.counts() == (2, 1)


async def test_what_a_manifest_names_is_linked(mirror: Mirror) -> None:
    child = mirror.hub.add_manifest("team/app", "child", NEW)
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [_descriptor(child, len(NEW))]}
    mirror.hub.add_manifest("team/app", "1", json.dumps(index).encode(), OCI_INDEX)

    answer = await mirror.fetcher.get(mirror.client, NAME, TAG)
    assert answer.media_type == OCI_INDEX
    assert await mirror.links.find(NAME, child) is not None
    assert await mirror.links.find(NAME, LAYER) is None
    assert (await mirror.fetcher.get(mirror.client, NAME, Reference(digest=child))).result is CacheResult.MISS
    layer = await mirror.links.find(NAME, LAYER)
    assert layer is not None
    assert layer.size == 7


def _descriptor(digest: Digest, size: int) -> dict[str, object]:
    return {"mediaType": OCI_MANIFEST, "digest": str(digest), "size": size}


async def test_a_manifest_that_nobody_understands_is_passed_on(mirror: Mirror) -> None:
    raw = b"\x00 no JSON"
    mirror.hub.add_manifest("team/app", "odd", raw)

    answer = await mirror.fetcher.get(mirror.client, NAME, Reference(tag="odd"))

    assert (answer.raw, answer.media_type) == (raw, OCI_MANIFEST)


async def test_a_state_database_that_is_down_fails_no_pull(mirror: Mirror) -> None:
    await by_tag(mirror)
    mirror.tags.is_down = mirror.links.is_down = True
    mirror.now += 61

    assert (await by_tag(mirror))[0] == OLD
    mirror.restart()
    assert await by_tag(mirror) == (OLD, CacheResult.MISS)
    by_digest = await mirror.fetcher.get(mirror.client, NAME, Reference(digest=Digest.of(OLD)))
    assert by_digest.result is CacheResult.HIT


async def test_a_full_disk_fails_no_pull(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    from mirror.errors import StorageFull

    def full(*_: object) -> None:
        raise StorageFull("the disk is full")

    monkeypatch.setattr(mirror.store, "put", full)

    assert await by_tag(mirror) == (OLD, CacheResult.MISS)
    mirror.restart()
    assert await by_tag(mirror) == (OLD, CacheResult.MISS)


async def test_a_damaged_file_is_fetched_again(mirror: Mirror) -> None:
    await by_tag(mirror)
    mirror.store.path(Digest.of(OLD)).write_bytes(b"{}")
    mirror.restart()

    assert await by_tag(mirror) == (OLD, CacheResult.MISS)
    assert mirror.store.read(Digest.of(OLD), 1 << 20) == OLD


async def test_who_asks_first_may_leave(mirror: Mirror) -> None:
    mirror.hub.faults.before_headers = 0.05
    first = asyncio.create_task(by_tag(mirror))
    second = asyncio.create_task(by_tag(mirror))
    await asyncio.sleep(0.02)
    first.cancel()

    assert (await second)[0] == OLD
    assert mirror.counts() == (0, 1)
