"""Fetching blobs: once for all, whatever the upstream does."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.errors import Denied, IntegrityError, NotFound, Unavailable
from mirror.fetch.filler import FetchLimits
from mirror.fetch.result import CacheResult
from mirror.oci.digest import Digest
from mirror.upstream.model import BreakerPolicy
from tests.support.faulty_registry import until
from tests.support.fetching import QUICK_DOWNLOADS, REPOSITORY, Bench, bench, read_all, read_span, read_what_comes
from tests.support.upstreams import client_of

pytestmark = pytest.mark.usefixtures("every_way_of_reading")

BLOB = random.Random(1).randbytes(1_500_000)
SIZE = len(BLOB)
DIGEST = Digest.of(BLOB)


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(tmp_path) as made:
        made.hub.add_blob(BLOB)
        yield made


def blob_gets(at: Bench) -> int:
    return at.hub.count("GET", "/blobs/")


async def test_many_readers_are_one_fetch(at: Bench) -> None:
    at.hub.faults.between_pieces = 0.002
    readers = [at.fetch(DIGEST) for _ in range(20)]

    bodies = await asyncio.gather(*(read_all(reader) for reader in readers))

    assert all(body == BLOB for body in bodies)
    assert blob_gets(at) == 1
    assert [reader.result for reader in readers] == [CacheResult.MISS] + [CacheResult.JOINED] * 19
    await until(lambda: at.store.size(DIGEST) == SIZE)
    await until(lambda: at.fetcher.active_fills == 0)
    warm = at.fetch(DIGEST)
    assert warm.result is CacheResult.HIT
    assert await read_all(warm) == BLOB
    assert blob_gets(at) == 1
    assert list(at.store.layout.part(DIGEST).parent.iterdir()) == []


async def test_the_size_is_known_before_the_body(at: Bench) -> None:
    at.hub.faults.hold_at = 1000
    with at.fetch(DIGEST) as reader:
        assert await reader.started() == SIZE
        assert await read_span(reader, 100, 200) == BLOB[100:200]
        assert at.store.size(DIGEST) is None
        at.hub.release.set()
        assert (await reader.stored()).read_bytes() == BLOB


async def test_bytes_arrive_while_the_fill_goes_on(at: Bench) -> None:
    at.hub.faults.hold_at = 100_000
    early = at.fetch(DIGEST)
    await early.started()
    spans = early.spans()
    got = 0
    while got < 100_000:
        span = await anext(spans)
        got += len(span) if isinstance(span, bytes) else span.length
    late = at.fetch(DIGEST)
    middle = await read_span(late, 50_000, 90_000)
    at.hub.release.set()

    assert middle == BLOB[50_000:90_000]
    assert await read_all(late) == BLOB
    await spans.aclose()
    early.close()
    assert blob_gets(at) == 1


async def test_a_reader_at_an_offset_waits_for_it(at: Bench) -> None:
    at.hub.faults.between_pieces = 0.002
    with at.fetch(DIGEST) as first, at.fetch(DIGEST) as second:
        await second.started()
        assert await read_span(second, SIZE - 10) == BLOB[-10:]
        assert await read_span(second, SIZE) == b""
        assert await read_span(first, 5, 6) == BLOB[5:6]
    assert blob_gets(at) == 1


async def test_readers_that_leave_do_not_stop_the_fill(at: Bench) -> None:
    at.hub.faults.hold_at = 100_000
    reader = at.fetch(DIGEST)
    task = asyncio.create_task(read_all(reader))
    await until(lambda: blob_gets(at) == 1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    at.hub.release.set()

    await until(lambda: at.store.size(DIGEST) == SIZE)
    assert blob_gets(at) == 1


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("cut_at", [0, 1, 65_536, 700_000, SIZE - 1])
async def test_a_cut_is_gone_on_with(at: Bench, cut_at: int, *, reset: bool) -> None:
    at.hub.faults.cut_at, at.hub.faults.reset = cut_at, reset

    assert await read_all(at.fetch(DIGEST)) == BLOB

    ranges = [request.range for request in at.hub.seen if "/blobs/" in request.path]
    assert ranges[0] is None
    assert len(ranges) >= 2
    if not reset and cut_at:
        assert ranges[-1] == f"bytes={cut_at}-"
    await until(lambda: at.store.size(DIGEST) == SIZE)


@pytest.mark.parametrize(
    ("etag", "sent"),
    [('"sha256:abc"', '"sha256:abc"'), ('W/"abc"', None), ("abc", None), ('"a"b"', None), (None, None)],
)
async def test_a_cut_is_gone_on_with_only_in_the_same_representation(at: Bench, etag: str | None, sent: str | None) -> None:
    at.hub.faults.cut_at, at.hub.faults.etag = 300_000, etag
    assert await read_all(at.fetch(DIGEST, SIZE)) == BLOB
    assert [(request.range, request.if_range) for request in at.hub.seen] == [(None, None), ("bytes=300000-", sent)]


async def test_a_representation_that_changed_is_read_from_its_start_and_goes_on_for_readers(at: Bench) -> None:
    at.hub.faults.cut_at, at.hub.faults.etag = 300_000, '"one"'
    reading = asyncio.create_task(read_all(at.fetch(DIGEST, SIZE)))
    await until(lambda: at.hub.faults.cuts == 0)
    at.hub.faults.etag = '"two"'
    assert await reading == BLOB
    assert at.hub.seen[1].if_range == '"one"'


async def test_a_cut_at_a_server_without_ranges(at: Bench) -> None:
    at.hub.faults.cut_at, at.hub.faults.ignore_range = 700_000, True

    assert await read_all(at.fetch(DIGEST)) == BLOB


@pytest.mark.parametrize("fault", ["chunked", "until_close"])
async def test_a_body_without_a_length(at: Bench, fault: str) -> None:
    setattr(at.hub.faults, fault, True)
    with at.fetch(DIGEST) as reader:
        assert await reader.started() is None
        assert await read_span(reader) == BLOB
        await reader.stored()


async def test_a_cut_body_without_a_length_is_found_by_the_manifests_size(at: Bench) -> None:
    at.hub.faults.until_close, at.hub.faults.cut_at = True, 700_000

    assert await read_all(at.fetch(DIGEST, SIZE)) == BLOB
    assert blob_gets(at) == 2


@pytest.mark.parametrize("fault", ["plain", "chunked"])
async def test_a_wrong_body_never_completes_for_anybody(at: Bench, fault: str) -> None:
    at.hub.faults.wrong_content = True
    at.hub.faults.chunked = fault == "chunked"
    at.hub.faults.between_pieces = 0.001

    results = await asyncio.gather(*(read_what_comes(at.fetch(DIGEST)) for _ in range(5)))

    for body, error in results:
        assert len(body) < SIZE
        assert isinstance(error, IntegrityError)
    assert at.store.size(DIGEST) is None
    assert not at.store.layout.part(DIGEST).exists()
    at.hub.faults.wrong_content = False
    assert await read_all(at.fetch(DIGEST)) == BLOB


@pytest.mark.parametrize("size", [SIZE - 1, SIZE + 1])
async def test_another_size_than_the_manifests_is_refused_before_the_body(at: Bench, size: int) -> None:
    with at.fetch(DIGEST, size) as reader, pytest.raises(IntegrityError, match="promised"):
        await reader.started()


async def test_more_bytes_than_the_manifest_says_are_refused(at: Bench) -> None:
    at.hub.faults.extra_bytes, at.hub.faults.chunked = 5, True

    body, error = await read_what_comes(at.fetch(DIGEST, SIZE))

    assert len(body) < SIZE
    assert isinstance(error, IntegrityError)


async def test_an_empty_body_that_is_wrong_is_known_before_it_completes(at: Bench) -> None:
    at.hub.blobs[str(DIGEST)] = b""
    with at.fetch(DIGEST) as reader, pytest.raises(IntegrityError):
        await reader.started()


async def test_an_empty_blob(at: Bench) -> None:
    empty = at.hub.add_blob(b"")
    assert await read_all(at.fetch(empty)) == b""
    await until(lambda: at.store.size(empty) == 0)


async def test_larger_blobs_than_allowed_are_refused(tmp_path: Path) -> None:
    async with bench(tmp_path, limits=FetchLimits(max_blob_bytes=1000, download=QUICK_DOWNLOADS)) as at:
        at.hub.add_blob(BLOB)
        for chunked in (False, True):
            at.hub.faults.chunked = chunked
            body, error = await read_what_comes(at.fetch(DIGEST))
            assert len(body) < 100_000
            assert isinstance(error, IntegrityError)


@pytest.mark.parametrize(("status", "error"), [(404, NotFound), (403, Denied), (429, Unavailable), (503, Unavailable)])
async def test_what_the_upstream_refuses_is_known_before_the_body(at: Bench, status: int, error: type[Exception]) -> None:
    at.hub.faults.status = status
    with at.fetch(DIGEST) as reader:
        with pytest.raises(error, match=r"hub\.test"):
            await reader.started()
        with pytest.raises(error):
            await reader.stored()
    await until(lambda: at.fetcher.active_fills == 0)
    assert not at.store.layout.part(DIGEST).exists()


async def test_trouble_in_the_middle_is_waited_out(at: Bench) -> None:
    at.hub.faults.hold_at, at.hub.faults.cut_at = 300_000, 300_001
    reader = at.fetch(DIGEST)
    await reader.started()
    at.hub.faults.statuses = [503, 429, 404, 401]
    at.hub.release.set()

    assert await read_all(reader) == BLOB


async def test_a_token_that_expires_in_the_middle(at: Bench) -> None:
    at.hub.faults.auth, at.hub.faults.token_uses = "bearer", 1
    at.hub.faults.cut_at, at.hub.faults.cuts = 300_000, 1

    assert await read_all(at.fetch(DIGEST)) == BLOB
    assert at.hub.count("GET", "/token") == 2


async def test_a_hub_that_dies_in_the_middle_and_comes_back(at: Bench) -> None:
    at.hub.faults.hold_at = 300_000
    reading = [asyncio.create_task(read_all(at.fetch(DIGEST))) for _ in range(3)]
    await until(lambda: at.store.layout.part(DIGEST).exists() and at.store.layout.part(DIGEST).stat().st_size >= 300_000)
    await at.hub.kill()
    await asyncio.sleep(0.1)
    at.hub.faults.hold_at = None
    await at.hub.start()

    assert await asyncio.gather(*reading) == [BLOB] * 3
    last = [request.range for request in at.hub.seen if "/blobs/" in request.path][-1]
    assert last == "bytes=300000-"


async def test_a_hub_that_stays_away_ends_the_readers_and_keeps_the_part(at: Bench) -> None:
    at.hub.faults.cut_at, at.hub.faults.cuts = 700_000, 100

    body, error = await read_what_comes(at.fetch(DIGEST))

    assert body == BLOB[: len(body)]
    assert len(body) < SIZE
    assert isinstance(error, Unavailable)
    assert at.store.layout.part(DIGEST).stat().st_size == 700_000
    at.hub.faults.cut_at = None
    assert await read_all(at.fetch(DIGEST)) == BLOB
    assert [request.range for request in at.hub.seen][-1] == "bytes=700000-"


async def test_stalls_end_and_are_gone_on_with(tmp_path: Path) -> None:
    async with bench(tmp_path, read_timeout=0.1) as at:
        at.hub.add_blob(BLOB)
        at.hub.faults.hold_at = 200_000
        reading = asyncio.create_task(read_all(at.fetch(DIGEST)))
        await until(lambda: blob_gets(at) == 2)
        at.hub.faults.hold_at = None
        assert await reading == BLOB


async def test_encoded_bodies_are_refused(at: Bench) -> None:
    at.hub.faults.content_encoding = "gzip"
    with at.fetch(DIGEST) as reader, pytest.raises(IntegrityError, match="gzip"):
        await reader.started()


async def test_what_an_earlier_process_left_is_gone_on_with(at: Bench) -> None:
    part = at.store.part(DIGEST)
    assert part.try_lock()
    part.append(BLOB[:400_000])
    part.close()

    assert await read_all(at.fetch(DIGEST)) == BLOB
    assert [request.range for request in at.hub.seen] == ["bytes=400000-"]


@pytest.mark.parametrize("size", [None, SIZE])
async def test_a_complete_part_is_only_verified(at: Bench, size: int | None) -> None:
    part = at.store.part(DIGEST)
    assert part.try_lock()
    part.append(BLOB)
    part.close()

    assert await read_all(at.fetch(DIGEST, size)) == BLOB
    await until(lambda: at.store.size(DIGEST) == SIZE)
    assert blob_gets(at) == (1 if size is None else 0)


@pytest.mark.parametrize("size", [None, SIZE])
async def test_a_part_that_is_too_long_is_begun_anew(at: Bench, size: int | None) -> None:
    part = at.store.part(DIGEST)
    assert part.try_lock()
    part.append(BLOB + b"more")
    part.close()

    assert await read_all(at.fetch(DIGEST, size)) == BLOB


async def test_a_part_with_other_bytes_is_found_out(at: Bench) -> None:
    part = at.store.part(DIGEST)
    assert part.try_lock()
    part.append(bytes(1000))
    part.close()

    body, error = await read_what_comes(at.fetch(DIGEST))

    assert len(body) < SIZE
    assert isinstance(error, IntegrityError)
    assert await read_all(at.fetch(DIGEST)) == BLOB


async def test_who_may_read_it_elsewhere_gets_it_and_hears_nothing_of_others(at: Bench) -> None:
    async with client_of(at.hub.url) as other:
        at.hub.faults.before_headers = 0.05
        at.hub.faults.statuses = [403]
        with at.fetch(DIGEST) as refused, at.fetcher.fetch(other, "public/app", DIGEST) as allowed:
            assert allowed.result is CacheResult.JOINED
            assert await allowed.started() == SIZE
            assert await read_span(allowed) == BLOB
            assert await read_span(refused) == BLOB
    async with client_of(at.hub.url) as other:
        missing = Digest.of(b"nowhere")
        with at.fetch(missing) as mine, at.fetcher.fetch(other, "public/app", missing) as theirs:
            with pytest.raises(NotFound, match=REPOSITORY):
                await mine.started()
            with pytest.raises(NotFound, match="public/app"):
                await theirs.started()


async def test_transfers_from_one_upstream_are_bounded_and_in_order(tmp_path: Path) -> None:
    async with bench(tmp_path, max_transfers=2) as at:
        blobs = [bytes([number]) * 100_000 for number in range(6)]
        digests = [at.hub.add_blob(blob) for blob in blobs]
        at.hub.faults.hold_at = 50_000
        readers = [asyncio.create_task(read_all(at.fetch(digest))) for digest in digests]
        await until(lambda: blob_gets(at) == 2)
        await asyncio.sleep(0.05)
        assert blob_gets(at) == 2
        at.hub.release.set()
        assert await asyncio.gather(*readers) == blobs
        assert [request.path.rpartition("/")[2] for request in at.hub.seen] == [str(digest) for digest in digests]


async def test_the_number_of_fills_is_bounded(tmp_path: Path) -> None:
    async with bench(tmp_path, limits=FetchLimits(max_fills=1, download=QUICK_DOWNLOADS)) as at:
        at.hub.add_blob(BLOB)
        at.hub.faults.hold_at = 1000
        with at.fetch(DIGEST):
            with pytest.raises(Unavailable, match="takes no more"):
                at.fetch(Digest.of(b"other"))
            at.fetch(DIGEST).close()


async def test_stopping_ends_readers_and_keeps_what_came(at: Bench) -> None:
    at.hub.faults.hold_at = 300_000
    reading = asyncio.create_task(read_what_comes(at.fetch(DIGEST)))
    part = at.store.layout.part(DIGEST)
    await until(lambda: part.exists() and part.stat().st_size >= 300_000)

    await at.fetcher.close()

    body, error = await reading
    assert len(body) < SIZE
    assert isinstance(error, Unavailable)
    assert part.stat().st_size >= 300_000
    with pytest.raises(Unavailable, match="stopping"):
        at.fetch(DIGEST)


async def test_a_transfer_is_gone_on_with_while_its_upstream_is_left_alone(tmp_path: Path) -> None:
    async with bench(tmp_path, breaker=BreakerPolicy(failures=1, pause=60)) as at:
        at.hub.add_blob(BLOB)
        at.hub.faults.cut_at, at.hub.faults.statuses = 300_000, [0, 503, 503]
        assert await read_all(at.fetch(DIGEST, SIZE)) == BLOB
        assert [request.range for request in at.hub.seen] == [None, *["bytes=300000-"] * 3]
        assert not at.client.is_suspended


async def test_a_transfer_that_broke_comes_before_those_that_have_not_begun(tmp_path: Path) -> None:
    async with bench(tmp_path, max_transfers=1) as at:
        digests = [at.hub.add_blob(bytes([number]) * SIZE) for number in range(3)]
        at.hub.faults.cut_at, at.hub.faults.between_pieces = 300_000, 0.01
        await asyncio.gather(*(read_all(at.fetch(digest, SIZE)) for digest in digests))
        order = [digests.index(Digest.parse(request.path.rpartition("/")[2])) for request in at.hub.seen]
        assert order == [0, 1, 0, 2]  # while the first one paused, the second had its place


async def test_what_is_at_hand_is_here_or_on_its_way(at: Bench) -> None:
    found = [await at.fetcher.is_at_hand(DIGEST)]
    at.hub.faults.before_headers, at.hub.faults.hold_at = 0.1, 300_000
    reader = at.fetch(DIGEST)
    reading = asyncio.create_task(read_all(reader))
    await until(lambda: bool(at.hub.seen))
    found.append(await at.fetcher.is_at_hand(DIGEST))  # nobody has said yet that it can be had
    await reader.started()
    found.append(await at.fetcher.is_at_hand(DIGEST))
    at.hub.release.set()
    await reading
    assert [*found, await at.fetcher.is_at_hand(DIGEST)] == [False, False, True, True]
