"""An upstream with mirrors: they are asked first, the upstream has the last word, and a transfer goes on wherever it can."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from mirror.errors import Denied, IntegrityError, NotFound, Unavailable
from mirror.fetch.blobs import BlobFetcher
from mirror.fetch.filler import FetchLimits
from mirror.oci.digest import Digest
from mirror.oci.reference import Reference
from mirror.store.blobs import BlobStore
from mirror.upstream.client import UpstreamClient
from mirror.upstream.gate import Gate
from mirror.upstream.mirrored import MirroredClient, UpstreamMirror
from mirror.upstream.model import BreakerPolicy, Credential
from mirror.upstream.policy import RetryPolicy
from mirror.upstream.token_cache import TokenCache
from tests.support.faulty_registry import FaultyRegistry, until
from tests.support.fetching import QUICK_DOWNLOADS, read_all, read_what_comes
from tests.support.upstreams import QUICK, session_for, upstream

ONCE = RetryPolicy(attempts=1, first_delay=0.001, longest_delay=0.01)
TAG = Reference(tag="1")
MANIFEST = b'{"schemaVersion": 2, "config": {}, "layers": []}\n'
NEWER = b'{"schemaVersion": 2, "config": {}, "layers": [], "x": 1}\n'
BLOB = bytes(range(256)) * 4000
DIGEST = Digest.of(BLOB)
PREFIX = "proxies/hub"


@dataclass
class Places:
    """Two mirrors, the second of which has another naming, and the hub."""

    first: FaultyRegistry
    second: FaultyRegistry
    hub: FaultyRegistry
    client: MirroredClient
    fetcher: BlobFetcher

    def asked(self, kind: str = "") -> list[int]:
        """Requests that each has seen."""
        return [sum(kind in request.path for request in place.seen) for place in (self.first, self.second, self.hub)]

    async def blob(self, size: int | None = None) -> bytes:
        return await read_all(self.fetcher.fetch(self.client, "team/app", DIGEST, size))


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[Places]:
    async with AsyncExitStack() as stack:
        first, second, hub = [await stack.enter_async_context(FaultyRegistry()) for _ in range(3)]
        for place, name in ((first, "team/app"), (second, f"{PREFIX}/team/app"), (hub, "team/app")):
            place.add_manifest(name, "1", MANIFEST)
            place.add_blob(BLOB)
        breaker = BreakerPolicy(failures=2, pause=60)
        known = upstream(hub.url, credential=Credential("site", "secret"), breaker=BreakerPolicy(pause=0.2))
        places = [upstream(place.url, name=f"hub.test@{place.port}", breaker=breaker) for place in (first, second)]
        session = await stack.enter_async_context(session_for(known, *places))
        mirrors = [
            UpstreamMirror(UpstreamClient(session, place, anonymous=True, retry=ONCE), prefix)
            for place, prefix in zip(places, ("", PREFIX), strict=True)
        ]
        client = MirroredClient(session, known, mirrors, tokens=TokenCache(), retry=QUICK, gate=Gate(known))
        fetcher = BlobFetcher(BlobStore(tmp_path, 0), FetchLimits(download=QUICK_DOWNLOADS))
        stack.push_async_callback(fetcher.close)
        yield Places(first, second, hub, client, fetcher)


async def test_the_first_mirror_that_has_it_gives_it(at: Places) -> None:
    for reference in (TAG, Reference(digest=Digest.of(MANIFEST))):
        assert (await at.client.get_manifest("team/app", reference)).raw == MANIFEST
    assert (await at.client.head_manifest("team/app", TAG)).digest == Digest.of(MANIFEST)
    assert await at.blob(len(BLOB)) == BLOB
    assert at.asked() == [4, 0, 0]


async def test_a_mirror_has_names_of_its_own(at: Places) -> None:
    await at.first.kill()
    assert (await at.client.get_manifest("team/app", TAG)).raw == MANIFEST
    assert await at.blob() == BLOB
    assert at.asked() == [0, 2, 0]
    assert {request.path.split("/manifests")[0].split("/blobs")[0] for request in at.second.seen} == {f"/v2/{PREFIX}/team/app"}


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
async def test_what_a_mirror_refuses_comes_from_the_next_one_and_then_from_the_hub(at: Places, status: int) -> None:
    at.first.faults.status = at.second.faults.status = status
    assert (await at.client.get_manifest("team/app", TAG)).raw == MANIFEST
    assert await at.blob() == BLOB
    assert at.asked("/manifests/") == [1, 1, 1]
    assert at.asked("/blobs/") == [1, 1, 1]


async def test_only_the_hub_says_that_something_is_not_there(at: Places) -> None:
    at.first.faults.status = at.second.faults.status = 404
    await at.hub.kill()
    with pytest.raises(Unavailable, match=r"hub\.test cannot be reached"):
        await at.client.get_manifest("team/app", TAG)
    body, error = await read_what_comes(at.fetcher.fetch(at.client, "team/app", DIGEST))
    assert (body, type(error).__name__) == (b"", "UpstreamUnavailable")
    assert not isinstance(error, NotFound)
    await at.hub.start()
    at.hub.faults.status = 404
    with pytest.raises(NotFound, match=r"upstream hub\.test has no"):
        await at.client.get_manifest("team/app", TAG)
    at.hub.faults.status = 403
    with pytest.raises(Denied, match=r"upstream hub\.test denies"):
        await at.client.get_manifest("team/app", TAG)


async def test_what_is_a_proof_and_what_lists_is_asked_of_the_hub_itself(at: Places) -> None:
    await at.client.head_manifest("team/app", Reference(digest=Digest.of(MANIFEST)))
    await at.client.head_blob("team/app", DIGEST)
    await at.client.tags("team/app")
    await at.client.referrers("team/app", DIGEST)
    assert at.asked() == [0, 0, 4]


@pytest.mark.parametrize("cut_at", [0, 1, 300_000, len(BLOB) - 1])
async def test_a_transfer_that_breaks_goes_on_at_the_next_place(at: Places, cut_at: int) -> None:
    at.first.faults.cut_at, at.first.faults.cuts = cut_at, 100
    at.second.faults.cut_at, at.second.faults.cuts = min(cut_at + 100_000, len(BLOB) - 1), 100
    assert await at.blob(len(BLOB)) == BLOB
    ranges = [request.range for place in (at.first, at.second, at.hub) for request in place.seen]
    assert ranges[0] is None
    assert f"bytes={cut_at}-" in ranges if cut_at else True
    assert at.hub.seen


async def test_a_mirror_that_dies_in_the_middle_is_not_the_end(at: Places) -> None:
    at.first.faults.hold_at = 300_000
    with at.fetcher.fetch(at.client, "team/app", DIGEST, len(BLOB)) as reader:
        await reader.started()
        spans = reader.spans()
        body = bytearray()
        async for span in spans:
            body += span if isinstance(span, bytes) else span.read()
            if at.first.port and len(body) >= 200_000 and not at.first.release.is_set():
                await at.first.kill()
        assert bytes(body) == BLOB
    assert at.asked()[2] == 0


async def test_a_mirror_that_lies_is_found_out_and_the_next_fill_asks_the_hub(at: Places) -> None:
    at.first.faults.wrong_content = True
    body, error = await read_what_comes(at.fetcher.fetch(at.client, "team/app", DIGEST, len(BLOB)))
    assert isinstance(error, IntegrityError)
    assert len(body) < len(BLOB)
    assert await at.blob(len(BLOB)) == BLOB
    assert at.asked() == [1, 0, 1]
    assert (await at.client.get_manifest("team/app", TAG)).raw == MANIFEST  # where the digest tells at once


async def test_a_mirror_that_lies_is_found_out_also_where_the_disk_is_full(at: Places, tmp_path: Path) -> None:
    at.first.faults.wrong_content = True
    at.fetcher = BlobFetcher(BlobStore(tmp_path, 1 << 62), FetchLimits(download=QUICK_DOWNLOADS))
    body, error = await read_what_comes(at.fetcher.fetch(at.client, "team/app", DIGEST, len(BLOB)))
    assert isinstance(error, IntegrityError)
    assert len(body) < len(BLOB)
    assert await at.blob(len(BLOB)) == BLOB
    await at.fetcher.close()


async def test_a_mirror_with_another_size_is_passed_over(at: Places) -> None:
    at.first.faults.extra_bytes = 7
    assert await at.blob(len(BLOB)) == BLOB
    assert at.asked() == [1, 1, 0]


async def test_another_size_in_the_middle_is_passed_over_too(at: Places) -> None:
    at.first.faults.cut_at = 300_000
    at.second.faults.extra_bytes = 7
    assert await at.blob(len(BLOB)) == BLOB
    assert at.asked() == [1, 1, 1]


async def test_a_mirror_that_is_down_is_soon_not_asked_any_more(at: Places) -> None:
    at.first.faults.status = 500
    for number in range(5):
        at.hub.add_manifest("team/app", str(number), NEWER)
        at.second.faults.status = 404
        assert (await at.client.get_manifest("team/app", Reference(tag=str(number)))).raw == NEWER
    assert at.asked() == [2, 5, 5]
    assert not at.client.is_suspended


async def test_it_is_looked_again_as_soon_as_one_of_them_may_be_back(at: Places) -> None:
    for place in (at.first, at.second, at.hub):
        place.faults.status = 500
    for repository in ("team/app", "team/other"):
        for _ in range(3):
            with pytest.raises(Unavailable):
                await at.client.get_manifest(repository, TAG)
    assert at.client.is_suspended
    await until(lambda: at.client.is_probe_due)
    at.hub.faults.status = None
    asked = at.asked()
    assert (await at.client.get_manifest("team/app", TAG)).raw == MANIFEST
    assert at.asked() == [asked[0], asked[1], asked[2] + 1], "the mirrors are left alone for longer"
    assert not at.client.is_suspended


async def test_no_mirror_sees_a_credential(at: Places) -> None:
    at.first.faults.auth = at.second.faults.auth = at.hub.faults.auth = "basic"
    at.hub.faults.user = ("site", "secret")
    assert (await at.client.get_manifest("team/app", TAG)).raw == MANIFEST
    assert await at.blob() == BLOB
    assert [request.authorization for place in (at.first, at.second) for request in place.seen] == [None] * 4
    assert any(request.authorization for request in at.hub.seen)
