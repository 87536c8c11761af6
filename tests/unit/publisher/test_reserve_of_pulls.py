"""The publisher leaves the last pulls that a hub grants to clients."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from mirror.config import Config
from mirror.errors import Unavailable
from mirror.oci.reference import Reference
from publisher.content import open_clients
from tests.support.faulty_registry import FaultyRegistry

TAG = Reference(tag="1")


async def test_an_image_waits_while_few_pulls_are_left(tmp_path: Path) -> None:
    async with FaultyRegistry() as hub, AsyncExitStack() as stack:
        hub.add_manifest("team/app", "1", b'{"layers": [], "config": {}}')
        mirrors = ["http://127.0.0.1:9"]  # not asked: what is public only the hub shows
        table = {"url": hub.url, "reserve": 0.5, "mirrors": mirrors}
        config = Config.model_validate({"server": {"data": tmp_path}, "upstreams": {"hub.test": table}})
        client = open_clients(config, stack).anonymous["hub.test"]
        hub.faults.manifest_headers = {"RateLimit-Limit": "10;w=60", "RateLimit-Remaining": "4;w=60"}
        assert (await client.get_manifest("team/app", TAG)).raw
        with pytest.raises(Unavailable, match=r"upstream hub\.test grants 4 of 10 pulls"):
            await client.get_manifest("team/app", TAG)
        assert hub.count("GET", "/manifests/") == 1
