"""Layers that are unpacked while they arrive."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from threading import Event

import pytest

from mirror.errors import Unavailable
from mirror.fetch.reader import FileSpan
from mirror.jobs.model import State
from publisher.arriving import ArrivingBlob
from tests.support.faulty_registry import FaultyRegistry, until
from tests.support.publishing import FQRN, offer, publishing
from tests.support.small_images import Image, Layer, file


def _all(blob: ArrivingBlob, size: int) -> list[bytes]:
    return list(iter(lambda: blob.read(size), b""))


async def test_pieces_come_in_order_from_the_file_and_from_the_upstream() -> None:
    with tempfile.TemporaryFile() as stored:
        stored.write(b"0123456789")
        stored.flush()

        async def spans() -> AsyncGenerator[FileSpan | bytes, None]:
            yield FileSpan(stored, 0, 4)
            await asyncio.sleep(0.01)
            yield FileSpan(stored, 4, 5)
            yield b"abcdefg"

        async with aclosing(spans()) as arriving:
            pieces = await asyncio.to_thread(_all, ArrivingBlob(arriving, Event()), 3)
    assert pieces == [b"012", b"3", b"456", b"78", b"abc", b"def", b"g"]


async def test_what_stands_in_the_way_reaches_the_thread() -> None:
    async def spans() -> AsyncGenerator[FileSpan | bytes, None]:
        yield b"abc"
        raise Unavailable("the hub went away")

    async with aclosing(spans()) as arriving:
        with pytest.raises(Unavailable, match="went away"):
            await asyncio.to_thread(_all, ArrivingBlob(arriving, Event()), 10)


async def test_a_thread_that_waits_for_bytes_can_be_stopped() -> None:
    async def spans() -> AsyncGenerator[FileSpan | bytes, None]:
        yield b"abc"
        await asyncio.Event().wait()

    stopping = Event()
    async with aclosing(spans()) as arriving, asyncio.timeout(5):
        reading = asyncio.create_task(asyncio.to_thread(_all, ArrivingBlob(arriving, stopping), 10))
        await asyncio.sleep(0.05)
        stopping.set()
        with pytest.raises(Unavailable, match="stopping"):
            await reading


async def test_files_are_stored_before_the_layer_has_arrived(tmp_path: Path) -> None:
    image = Image((Layer.of(*(file(f"file-{number}", bytes([number]) * 300_000) for number in range(20)), compressed=False),))
    async with FaultyRegistry() as hub, publishing(tmp_path, hub) as here:
        await here.request("hub.test/team/app:1", offer(hub, "team/app", "1", image))
        hub.faults.hold_at = 3_000_000
        async with here.publisher():
            data = here.config.data / "cvmfs" / FQRN / "data"
            await until(lambda: len(list(data.glob("[0-9a-f][0-9a-f]/*"))) >= 8)
            status = await here.reach("hub.test/team/app:1", set(State))
            assert status.state is State.FETCHING
            hub.release.set()
            await here.published("hub.test/team/app:1")
        assert here.problems() == []
