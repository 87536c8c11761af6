"""A publisher that is told to stop while it unpacks a layer that takes much longer than anybody waits."""

from __future__ import annotations

import asyncio
import gzip
import tarfile
import time
from pathlib import Path

import pytest

from mirror.jobs.model import State
from mirror.oci.reference import ImageReference
from tests.support.faulty_registry import FaultyRegistry
from tests.support.publishing import offer, publishing
from tests.support.small_images import Image, Layer

_PIECE = 64 << 20
_PIECES = 250


def endless_layer() -> Layer:
    """A file of 16 GB of zeros, as a gzip stream of many equal members; its diff_id is wrong, which would be found at the end."""
    header = tarfile.TarInfo("zeros")
    header.size = _PIECE * _PIECES
    packed = gzip.compress(header.tobuf(tarfile.GNU_FORMAT), 1) + gzip.compress(bytes(_PIECE), 1) * _PIECES
    return Layer(packed, "sha256:" + "0" * 64)


async def test_it_stops_within_a_moment_and_gives_the_job_back(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    async with FaultyRegistry() as hub, publishing(tmp_path, hub) as here:
        await here.request("hub.test/team/app:1", offer(hub, "team/app", "1", Image((endless_layer(),))))
        async with here.publisher():
            await here.reach("hub.test/team/app:1", {State.INGESTING})
            await asyncio.sleep(0.3)
            told = time.monotonic()
        seconds = time.monotonic() - told
        status = await here.statuses.status(ImageReference.parse("hub.test/team/app:1"))
    assert seconds < 3
    assert status is not None
    assert (status.state, status.reason) == (State.QUEUED, None)
    said = capfd.readouterr()
    assert "Traceback" not in said.out + said.err
    assert "never retrieved" not in said.out + said.err
