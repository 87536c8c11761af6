"""Several processes with one store: one fetch, whoever dies."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from mirror.errors import IntegrityError, NotFound
from mirror.oci.digest import Digest
from mirror.store.blobs import BlobStore
from tests.support import fetching_process
from tests.support.faulty_registry import FaultyRegistry, until
from tests.support.fetching import bench, read_all, read_what_comes

BLOB = random.Random(3).randbytes(2_000_000)
SIZE = len(BLOB)
DIGEST = Digest.of(BLOB)
HELD = 900_000


def part_size(store: BlobStore) -> int:
    path = store.layout.part(DIGEST)
    return path.stat().st_size if path.exists() else 0


async def test_two_processes_fetch_once(tmp_path: Path) -> None:
    async with FaultyRegistry() as hub:
        hub.add_blob(BLOB)
        hub.faults.hold_at = HELD
        processes = [await fetching_process.start(hub.url, tmp_path, DIGEST) for _ in range(2)]
        for process in processes:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"started\n"
        hub.release.set()
        outputs = [(await process.communicate())[0].decode().split() for process in processes]

    # In a process of its own, each is the first to ask.
    assert outputs == [["miss", DIGEST.hex]] * 2
    assert hub.count("GET", "/blobs/") == 1
    assert BlobStore(tmp_path, 0).size(DIGEST) == SIZE


async def test_a_filler_that_is_killed_is_followed_by_another(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        at.hub.add_blob(BLOB)
        at.hub.faults.hold_at = HELD
        filler = await fetching_process.start(at.hub.url, tmp_path, DIGEST)
        await until(lambda: part_size(at.store) == HELD)
        reading = [asyncio.create_task(read_all(at.fetch(DIGEST))) for _ in range(2)]
        await until(lambda: at.hub.count("HEAD") == 1)
        filler.kill()
        await filler.communicate()
        at.hub.faults.hold_at = None

        assert await asyncio.gather(*reading) == [BLOB] * 2
        assert [request.range for request in at.hub.seen if request.method == "GET"] == [None, f"bytes={HELD}-"]
        await until(lambda: at.store.size(DIGEST) == SIZE)


async def test_a_part_left_by_a_killed_process_is_gone_on_with_later(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        at.hub.add_blob(BLOB)
        at.hub.faults.hold_at = HELD
        filler = await fetching_process.start(at.hub.url, tmp_path, DIGEST)
        await until(lambda: part_size(at.store) == HELD)
        filler.kill()
        await filler.communicate()
        at.hub.faults.hold_at = None

        assert await read_all(at.fetch(DIGEST)) == BLOB
        assert at.hub.seen[-1].range == f"bytes={HELD}-"


async def test_a_follower_reads_what_the_filler_has(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        at.hub.add_blob(BLOB)
        part = at.store.part(DIGEST)
        assert part.try_lock()
        part.append(BLOB[:1000])
        with at.fetch(DIGEST, SIZE) as reader:
            assert await reader.started() == SIZE
            spans = reader.spans(0, 500_000)
            first = await anext(spans)
            assert not isinstance(first, bytes)
            assert first.read() == BLOB[:1000]
            part.append(BLOB[1000:])
            second = await anext(spans)
            assert not isinstance(second, bytes)
            assert second.read() == BLOB[1000:500_000]
            await spans.aclose()
            at.store.commit(part)
            part.close()
            assert (await reader.stored()).read_bytes() == BLOB
    assert at.hub.seen == []


@pytest.mark.parametrize("wrong", [False, True])
async def test_a_follower_of_one_who_gives_up_goes_on_alone(tmp_path: Path, *, wrong: bool) -> None:
    async with bench(tmp_path) as at:
        at.hub.add_blob(BLOB)
        part = at.store.part(DIGEST)
        assert part.try_lock()
        part.append(bytes(1000) if wrong else BLOB[:1000])
        reading = asyncio.create_task(read_what_comes(at.fetch(DIGEST)))
        await until(lambda: at.hub.count("HEAD") == 1)
        await asyncio.sleep(0.05)
        part.discard()
        part.close()

        body, error = await reading

        if wrong:
            assert isinstance(error, IntegrityError)
            assert len(body) < SIZE
        else:
            assert (body, error) == (BLOB, None)
            assert [request.range for request in at.hub.seen if request.method == "GET"] == ["bytes=1000-"]


async def test_a_follower_of_one_who_found_it_wrong_ends_too(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        part = at.store.part(DIGEST)
        assert part.try_lock()
        part.append(bytes(SIZE))
        reading = asyncio.create_task(read_what_comes(at.fetch(DIGEST, SIZE)))
        await asyncio.sleep(0.05)
        part.discard()
        part.close()

        body, error = await reading

        assert isinstance(error, IntegrityError)
        assert len(body) < SIZE


async def test_a_follower_that_promised_another_size_ends_before_it(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        part = at.store.part(DIGEST)
        assert part.try_lock()
        part.append(BLOB[:1000])
        reading = asyncio.create_task(read_what_comes(at.fetch(DIGEST, SIZE - 1000)))
        await asyncio.sleep(0.05)
        part.append(BLOB[1000:])
        at.store.commit(part)
        part.close()

        body, error = await reading

        assert isinstance(error, IntegrityError)
        assert len(body) < SIZE - 1000


async def test_a_follower_promises_nothing_before_the_other_one_has_anything(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        part = at.store.part(DIGEST)
        assert part.try_lock()
        with at.fetch(DIGEST, SIZE) as reader:
            starting = asyncio.create_task(reader.started())
            await asyncio.sleep(0.05)
            assert not starting.done()
            part.discard()
            part.close()

            with pytest.raises(NotFound):
                await starting

    assert at.hub.count("GET", "/blobs/") == 1
