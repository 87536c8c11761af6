"""Nothing private is published: what an upstream says does not count, only what it gives to everybody."""

from __future__ import annotations

import json
import random
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from mirror.errors import Denied, IntegrityError, NotFound, Unavailable
from mirror.fetch.blobs import BlobFetcher
from mirror.fetch.filler import FetchLimits
from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_MANIFEST, ImageManifest, parse_manifest
from mirror.oci.reference import RepositoryName
from mirror.store.blobs import BlobStore
from mirror.upstream.model import Credential
from publisher.proof import Proof, ProofSettings
from publisher.public import PublicContent
from tests.support.faulty_registry import FaultyRegistry
from tests.support.fetching import QUICK_DOWNLOADS
from tests.support.registry_client import OCI_CONFIG, OCI_LAYER
from tests.support.upstreams import QUICK, client_of

NAME = RepositoryName("hub.test", "team/app")
PART = 1000
CONFIG = b'{"rootfs": {"type": "layers", "diff_ids": []}}'
LARGE, SMALL = random.Random(1).randbytes(200_000), b"small"


def manifest_of(*layers: bytes) -> bytes:
    def descriptor(media_type: str, data: bytes) -> dict[str, object]:
        return {"mediaType": media_type, "digest": str(Digest.of(data)), "size": len(data)}

    described = [descriptor(OCI_LAYER, layer) for layer in layers]
    return json.dumps({"schemaVersion": 2, "config": descriptor(OCI_CONFIG, CONFIG), "layers": described}).encode()


RAW = manifest_of(LARGE, SMALL)


def _parsed() -> ImageManifest:
    manifest = parse_manifest(RAW, OCI_MANIFEST)
    assert isinstance(manifest, ImageManifest)
    return manifest


MANIFEST = _parsed()
LAYER = MANIFEST.layers[0]


@dataclass
class Scene:
    hub: FaultyRegistry
    content: PublicContent
    store: BlobStore

    def held(self, data: bytes) -> None:
        """The mirror has this from wherever."""
        path = self.store.path(Digest.of(data))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def ranges(self) -> list[str | None]:
        return [seen.range for seen in self.hub.seen if str(LAYER.digest) in seen.path and seen.method == "GET"]


@asynccontextmanager
async def scene(root: Path, *, offset: int | None = None, vouched: bool = False) -> AsyncIterator[Scene]:
    """A hub that has the image. offset: where the proof looks."""
    async with (
        FaultyRegistry() as hub,
        client_of(hub.url, anonymous=True) as client,
        client_of(hub.url, credential=Credential("anna", "secret")) as trusted,
    ):
        for data in (CONFIG, LARGE, SMALL):
            hub.add_blob(data)
        hub.add_manifest("team/app", "1", RAW)
        store = BlobStore(root, 0)
        fetcher = BlobFetcher(store, FetchLimits(download=QUICK_DOWNLOADS))
        place = secrets.randbelow if offset is None else lambda _: offset
        content = PublicContent(
            store,
            fetcher,
            {"hub.test": client},
            1 << 20,
            proof=Proof(ProofSettings(part=PART), retry=QUICK, place=place),
            trusted={"hub.test": trusted},
            is_vouched_for=lambda name: vouched and name == NAME,
        )
        try:
            yield Scene(hub, content, store)
        finally:
            await fetcher.close()


async def test_a_public_image_is_shown_by_a_part_of_each_layer_and_the_whole_of_what_is_small(tmp_path: Path) -> None:
    async with scene(tmp_path, offset=150_000) as here:
        here.held(LARGE)
        public = await here.content.manifest(NAME, Digest.of(RAW))
        assert public.raw == RAW
        await here.content.prove(NAME, public.manifest)
        assert here.ranges() == [f"bytes=150000-{150_000 + PART - 1}"]
        assert all(seen.method == "GET" and seen.authorization is None for seen in here.hub.seen)
        assert sum(str(Digest.of(data)) in seen.path for seen in here.hub.seen for data in (CONFIG, SMALL)) == 2


async def test_places_differ_from_time_to_time(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        here.held(LARGE)
        for _ in range(5):
            await here.content.prove(NAME, MANIFEST)
        assert len(set(here.ranges())) > 1


@pytest.mark.parametrize("ignore_range", [False, True])
@pytest.mark.parametrize("claimed", [LARGE[:-1] + b"x", LARGE[: len(LARGE) // 2], LARGE + b"more", b""])
async def test_an_upstream_that_claims_what_it_has_not_is_found_out(tmp_path: Path, claimed: bytes, ignore_range: bool) -> None:
    async with scene(tmp_path, offset=len(LARGE) - PART) as here:
        here.held(LARGE)
        here.hub.blobs[str(LAYER.digest)] = claimed
        here.hub.faults.ignore_range = ignore_range
        with pytest.raises(IntegrityError, match="does not give everybody"):
            await here.content.prove(NAME, MANIFEST)


async def test_a_range_that_is_ignored_costs_more_and_shows_the_same(tmp_path: Path) -> None:
    async with scene(tmp_path, offset=len(LARGE) - PART) as here:
        here.held(LARGE)
        here.hub.faults.ignore_range = True
        await here.content.prove(NAME, MANIFEST)


@pytest.mark.parametrize("data", [CONFIG, SMALL])
async def test_small_things_are_compared_by_digest(tmp_path: Path, data: bytes) -> None:
    async with scene(tmp_path) as here:
        here.hub.blobs[str(Digest.of(data))] = b"!" * len(data)
        with pytest.raises(IntegrityError, match="does not give everybody"):
            await here.content.prove(NAME, MANIFEST)


async def test_what_the_store_has_not_yet_is_compared_when_it_has_come(tmp_path: Path) -> None:
    async with scene(tmp_path, offset=7) as here:
        await here.content.prove(NAME, MANIFEST)
        assert here.ranges() == []
        here.held(LARGE)  # by a pull with the mirror's credential, say
        here.hub.blobs[str(LAYER.digest)] = b"?" * len(LARGE)
        with pytest.raises(IntegrityError, match="does not give everybody"):
            await here.content.proven_blob(NAME, LAYER)
        here.hub.blobs[str(LAYER.digest)] = LARGE
        assert (await here.content.proven_blob(NAME, LAYER)).read_bytes() == LARGE
        assert here.ranges() == [f"bytes=7-{7 + PART - 1}"] * 2
        await here.content.proven_blob(NAME, LAYER)
        assert len(here.ranges()) == 2


async def test_what_only_a_credential_can_read_is_private(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        for data in (LARGE, SMALL, CONFIG, RAW):
            here.held(data)
        here.hub.faults.auth, here.hub.faults.user = "basic", ("anna", "secret")
        with pytest.raises(Denied, match=r"hub.test/team/app is not public.*operator"):
            await here.content.manifest(NAME, Digest.of(RAW))
        with pytest.raises(Denied, match=r"hub.test/team/app is not public.*operator"):
            await here.content.prove(NAME, MANIFEST)


async def test_a_namespace_that_is_vouched_for_is_read_with_the_credential_and_not_proven(tmp_path: Path) -> None:
    async with scene(tmp_path, vouched=True) as here:
        here.hub.faults.auth, here.hub.faults.user = "basic", ("anna", "secret")
        public = await here.content.manifest(NAME, Digest.of(RAW))
        await here.content.prove(NAME, public.manifest)
        assert here.hub.count("GET", "blobs") == 0
        assert (await here.content.proven_blob(NAME, LAYER)).read_bytes() == LARGE
        with pytest.raises(Denied):
            await here.content.manifest(RepositoryName("hub.test", "team/other"), Digest.of(RAW))


async def test_an_upstream_that_fails_is_asked_again_and_does_not_count_as_private(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        here.held(LARGE)
        here.hub.faults.statuses = [503]
        await here.content.prove(NAME, MANIFEST)
        here.hub.faults.status = 503
        with pytest.raises(Unavailable):
            await here.content.prove(NAME, MANIFEST)


async def test_a_layer_that_the_upstream_lacks_is_not_published(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        here.held(LARGE)
        del here.hub.blobs[str(LAYER.digest)]
        with pytest.raises(NotFound):
            await here.content.prove(NAME, MANIFEST)
