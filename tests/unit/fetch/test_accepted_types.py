"""Clients that do not take what a tag stands for: the upstream is asked with what they take, as rarely as is right."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mirror.errors import NotFound, Unavailable
from mirror.fetch.manifests import ManifestAnswer, ManifestFetcher, ManifestLimits
from mirror.fetch.result import CacheResult
from mirror.oci.accept import ANYTHING, EVERYTHING, parse_accept
from mirror.oci.digest import Digest
from mirror.oci.manifest import DOCKER_LIST, DOCKER_MANIFEST, DOCKER_SCHEMA1_SIGNED, OCI_INDEX, OCI_MANIFEST
from mirror.oci.reference import Reference, RepositoryName
from mirror.store.blobs import BlobStore
from mirror.upstream.client import UpstreamClient
from tests.support.faulty_registry import FaultyRegistry, until
from tests.support.memory_state import MemoryLinks, MemoryTags
from tests.support.upstreams import client_of

NAME = RepositoryName("hub.test", "team/app")
TAG = Reference(tag="1")
LIMITS = ManifestLimits(tag_seconds=60, hold_seconds=5, absent_seconds=10, patience_seconds=0.25)
OLD_CLIENT, OCI_CLIENT = parse_accept([DOCKER_MANIFEST]), parse_accept([OCI_MANIFEST, OCI_INDEX])


def image(text: str) -> bytes:
    config = {"mediaType": "application/vnd.docker.container.image.v1+json", "digest": str(Digest.of(text.encode())), "size": 5}
    return json.dumps({"schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": config, "layers": []}).encode()


def listing(*images: tuple[str, bytes]) -> bytes:
    manifests = [
        {
            "mediaType": DOCKER_MANIFEST,
            "digest": str(Digest.of(raw)),
            "size": len(raw),
            "platform": {"os": "linux", "architecture": architecture},
        }
        for architecture, raw in images
    ]
    return json.dumps({"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": manifests}).encode()


ARM, AMD, NEW_AMD = image("arm"), image("amd"), image("new amd")
LIST, NEW_LIST = listing(("arm64", ARM), ("amd64", AMD)), listing(("arm64", ARM), ("amd64", NEW_AMD))


@dataclass
class Mirror:
    hub: FaultyRegistry
    client: UpstreamClient
    root: Path
    tags: MemoryTags = field(default_factory=MemoryTags)
    links: MemoryLinks = field(default_factory=MemoryLinks)
    now: float = 1_000_000.0

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """A process that remembers nothing but what is stored."""
        self.fetcher = ManifestFetcher(BlobStore(self.root, 0), self.tags, self.links, LIMITS, clock=lambda: self.now)

    def push(self, index: bytes, *images: bytes) -> None:
        for raw in images:
            self.hub.add_manifest("team/app", str(Digest.of(raw)), raw, DOCKER_MANIFEST)
        self.hub.add_manifest("team/app", "1", index, DOCKER_LIST)

    async def answer(self, header: str = DOCKER_MANIFEST, *, revalidate: bool = False) -> ManifestAnswer:
        answer = await self.fetcher.get(self.client, NAME, TAG, revalidate=revalidate, accept=parse_accept([header]))
        assert answer.digest == Digest.of(answer.raw)
        return answer

    async def get(self, header: str = DOCKER_MANIFEST) -> tuple[bytes, CacheResult]:
        answer = await self.answer(header)
        return answer.raw, answer.result

    def asked(self) -> list[tuple[str, str]]:
        """What the hub was asked since the last time."""
        asked = [(request.method, request.accept) for request in self.hub.seen]
        self.hub.seen.clear()
        return asked


@pytest.fixture
async def mirror(tmp_path: Path) -> AsyncIterator[Mirror]:
    async with FaultyRegistry() as hub, client_of(hub.url) as client:
        hub.faults.honours_accept = True
        made = Mirror(hub, client, tmp_path)
        made.push(LIST, ARM, AMD)
        yield made
        await made.fetcher.close()


async def test_an_old_client_gets_what_the_hub_gives_it_and_the_next_one_the_same(mirror: Mirror) -> None:
    answer = await mirror.answer()
    assert (answer.raw, answer.media_type, answer.result) == (AMD, DOCKER_MANIFEST, CacheResult.MISS)
    assert answer.instead_of is not None
    assert answer.instead_of.raw == LIST
    assert mirror.asked() == [("GET", EVERYTHING), ("GET", DOCKER_MANIFEST)]
    for header in (DOCKER_MANIFEST, f"{DOCKER_MANIFEST};q=0.5, application/json"):
        assert await mirror.get(header) == (AMD, CacheResult.HIT)
    assert await mirror.get("*/*") == await mirror.get(DOCKER_LIST) == (LIST, CacheResult.HIT)
    assert mirror.asked() == []


async def test_clients_that_take_what_there_is_are_no_concern_of_this(mirror: Mirror) -> None:
    for header in (f"{DOCKER_LIST}, {DOCKER_MANIFEST}", DOCKER_LIST, "*/*", ""):
        answer = await mirror.answer(header)
        assert (answer.raw, answer.instead_of) == (LIST, None)
    assert mirror.asked() == [("GET", EVERYTHING)]


async def test_many_old_clients_are_one_request(mirror: Mirror) -> None:
    mirror.hub.faults.before_headers = 0.05
    answers = await asyncio.gather(*(mirror.get() for _ in range(8)))
    assert [raw for raw, _ in answers] == [AMD] * 8
    assert sorted(result for _, result in answers) == [CacheResult.JOINED] * 7 + [CacheResult.MISS]
    assert len(mirror.asked()) == 2


async def test_each_answer_is_looked_after_by_a_head_when_its_time_is_up(mirror: Mirror) -> None:
    await mirror.get()
    mirror.asked()
    mirror.now += 61
    assert await mirror.get() == (AMD, CacheResult.HIT)
    assert mirror.asked() == [("HEAD", EVERYTHING), ("HEAD", DOCKER_MANIFEST)]
    mirror.push(NEW_LIST, NEW_AMD)
    mirror.now += 61
    assert await mirror.get() == (NEW_AMD, CacheResult.MISS)
    assert await mirror.get("*/*") == (NEW_LIST, CacheResult.HIT)


async def test_an_old_client_that_wants_it_fresh_gets_it(mirror: Mirror) -> None:
    await mirror.get()
    mirror.push(NEW_LIST, NEW_AMD)
    mirror.now += 6
    assert (await mirror.get())[0] == AMD
    assert (await mirror.answer(revalidate=True)).raw == NEW_AMD


async def test_an_answer_in_use_is_refreshed_ahead(mirror: Mirror) -> None:
    await mirror.get()
    mirror.push(NEW_LIST, NEW_AMD)
    mirror.now += 50
    mirror.asked()
    assert await mirror.get() == (AMD, CacheResult.HIT)
    await until(lambda: len(mirror.hub.seen) == 4 and not mirror.fetcher.is_refreshing)
    mirror.asked()
    assert (await mirror.get(), mirror.asked()) == ((NEW_AMD, CacheResult.HIT), [])


async def test_in_an_outage_each_gets_its_own_last_answer_also_after_a_restart(mirror: Mirror) -> None:
    await mirror.get()
    await mirror.hub.kill()
    mirror.now += 61
    for _ in range(2):
        for header, raw in ((DOCKER_MANIFEST, AMD), ("*/*", LIST)):
            answer = await mirror.answer(header)
            assert (answer.raw, answer.result, answer.age) == (raw, CacheResult.STALE, 61.0)
        mirror.restart()
    with pytest.raises(Unavailable):
        await mirror.get(OCI_MANIFEST)


async def test_a_hub_that_was_just_found_away_is_not_waited_for_once_more(mirror: Mirror) -> None:
    await mirror.get()
    mirror.asked()
    mirror.now += 61
    mirror.hub.faults.status = 500
    assert await mirror.get() == (AMD, CacheResult.STALE)
    assert {accept for _, accept in mirror.asked()} == {EVERYTHING}


async def test_a_fresh_answer_survives_a_restart_without_a_question(mirror: Mirror) -> None:
    await mirror.get()
    mirror.asked()
    mirror.restart()
    assert (await mirror.get(), mirror.asked()) == ((AMD, CacheResult.HIT), [])


async def test_a_hub_that_gives_what_there_is_is_asked_once(mirror: Mirror) -> None:
    mirror.hub.faults.honours_accept = False
    for _ in range(3):
        answer = await mirror.answer()
        assert (answer.raw, answer.media_type, answer.instead_of) == (LIST, DOCKER_LIST, None)
    assert len(mirror.asked()) == 2


async def test_the_no_of_a_hub_is_for_this_kind_of_client_only_and_counts_for_a_while(mirror: Mirror) -> None:
    index = LIST.replace(DOCKER_LIST.encode(), OCI_INDEX.encode())
    mirror.hub.add_manifest("team/app", "1", index, OCI_INDEX)
    for _ in range(3):
        with pytest.raises(NotFound, match="accept header does not support"):
            await mirror.get()
    assert len(mirror.asked()) == 2
    assert await mirror.get("*/*") == await mirror.get(OCI_INDEX) == (index, CacheResult.HIT)
    mirror.push(LIST)
    mirror.now += 61
    assert (await mirror.get())[0] == AMD


@pytest.mark.parametrize("status", [400, 406])
async def test_other_ways_of_saying_that_are_understood(mirror: Mirror, status: int) -> None:
    await mirror.get("*/*")
    mirror.hub.faults.statuses = [status]
    with pytest.raises(NotFound, match=f"status {status}.* takes {DOCKER_MANIFEST.replace('+', '.')}"):
        await mirror.get()
    assert await mirror.get("*/*") == (LIST, CacheResult.HIT)


async def test_a_tag_that_is_gone_is_gone_for_all(mirror: Mirror) -> None:
    await mirror.get()
    del mirror.hub.manifests["team/app", "1"]
    mirror.now += 61
    for header in (DOCKER_MANIFEST, "*/*"):
        with pytest.raises(NotFound):
            await mirror.get(header)
    assert mirror.tags.records == {}


async def test_where_the_hub_would_make_schema_1_of_it_the_client_gets_what_there_is(mirror: Mirror) -> None:
    await mirror.get("*/*")
    mirror.asked()
    mirror.hub.faults.content_type = DOCKER_SCHEMA1_SIGNED
    for _ in range(2):
        assert await mirror.get(OCI_MANIFEST) == (LIST, CacheResult.HIT)
    assert mirror.asked() == [("GET", OCI_MANIFEST)]


async def test_by_digest_accept_changes_nothing(mirror: Mirror) -> None:
    for accept in (OLD_CLIENT, OCI_CLIENT, ANYTHING):
        answer = await mirror.fetcher.get(mirror.client, NAME, Reference(digest=Digest.of(LIST)), accept=accept)
        assert (answer.raw, answer.instead_of) == (LIST, None)
    assert mirror.asked() == [("GET", EVERYTHING)]


async def test_without_the_state_database_the_right_one_is_given_all_the_same(mirror: Mirror) -> None:
    mirror.tags.is_down = mirror.links.is_down = True
    assert [(await mirror.get())[0], (await mirror.get("*/*"))[0]] == [AMD, LIST]
