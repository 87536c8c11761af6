"""Upstreams that are left to serve their blobs: when the store has no room for one, and cannot make any."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.reference import RepositoryName
from mirror.redirect.hubs import Hub, Hubs
from mirror.store.blobs import BlobStore
from tests.support.faulty_registry import Faults, FaultyRegistry
from tests.support.upstreams import client_of

BLOB = b"blob" * 1000
DIGEST = Digest.of(BLOB)
NAME = RepositoryName.of("hub.test", "team/app")


class _NearlyFull(BlobStore):
    """Has room for half of the blob."""

    room = len(BLOB) // 2

    def free_bytes(self) -> int:
        return self.room


@pytest.mark.parametrize("is_made", [True, False])
async def test_clients_go_to_the_hub_only_if_no_room_can_be_made(tmp_path: Path, *, is_made: bool) -> None:
    store = _NearlyFull(tmp_path, 0)
    asked = []

    async def make_room(size: int) -> None:
        asked.append(size)
        if is_made:
            store.room = len(BLOB)

    async with FaultyRegistry() as objects, FaultyRegistry(Faults(redirect=objects.url)) as hub, client_of(hub.url) as client:
        objects.add_blob(BLOB)
        hubs = Hubs({"hub.test": Hub(client, always=False)}, store, make_room)
        location = await hubs.find(NAME, DIGEST, len(BLOB))
        assert (location is None) is is_made
        assert asked == [len(BLOB)]
        assert location is None or location.startswith(objects.url)
        assert await hubs.find(NAME, Digest.of(b"small"), 5) is None
        assert await hubs.find(RepositoryName.of("other.test", "team/app"), DIGEST, len(BLOB)) is None


async def test_a_hub_that_is_away_is_no_failure_of_the_redirect(tmp_path: Path) -> None:
    async def no_room(_: int) -> None:
        """None can be made."""

    async with FaultyRegistry(Faults(status=503)) as hub, client_of(hub.url) as client:
        hubs = Hubs({"hub.test": Hub(client, always=True)}, BlobStore(tmp_path, 0), no_room)
        assert await hubs.find(NAME, DIGEST, len(BLOB)) is None
