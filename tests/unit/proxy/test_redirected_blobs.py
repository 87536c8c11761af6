"""Blobs that a CVMFS repository holds: clients are sent to a server that was seen to serve them, and to no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from mirror.config.models import Config
from mirror.jobs.packed_layers import PackedCopy, PackedLayers, add_packed_layers
from mirror.jobs.removals import Removals
from mirror.jobs.repositories import Repositories, RepositoryFacts
from mirror.oci.digest import Digest
from mirror.state.engine import Database, DatabaseSettings, sqlite_url
from tests.support.faulty_registry import Faults, FaultyRegistry, until
from tests.support.mirror_server import HUB, Image, MirrorServer, add_image, mirror_server
from tests.support.place_server import FQRN, PlaceServer, place_server

LAYER = bytes(range(256)) * 8000
COPY = PackedCopy(Digest.of(LAYER), FQRN, f"data/ab/{'c' * 38}", len(LAYER), 5)
BLOB = f"/v2/team/app/blobs/{COPY.digest}"


@dataclass
class Site:
    mirror: MirrorServer
    place: PlaceServer
    database: Database
    image: Image

    @property
    def location(self) -> str:
        return f"{self.place.url}/{FQRN}/{COPY.object}"

    async def published(self, *copies: PackedCopy) -> None:
        """As the publisher writes it down."""
        async with self.database.write() as connection:
            await add_packed_layers(self.database, connection, copies)

    async def answered(self, status: int) -> None:
        """Return when the blob is; the mirror looks once a second at what changed."""
        found = 0
        async with asyncio.timeout(20):
            while found != status:
                found = (await self.mirror.get(BLOB)).status
                await asyncio.sleep(0.05)


@asynccontextmanager
async def site(root: Path, url: str = "", **redirect: object) -> AsyncIterator[Site]:
    """A mirror with one place; the image was pulled once."""
    async with place_server() as place:
        places = {"one": {"url": url or place.url}}
        settings: Mapping[str, Any] = {
            "redirect": {"places": places, "fresh": 1, **redirect},
            "tags": {"revalidate": 1},
        }
        async with mirror_server(root, settings=settings) as mirror:
            database = Database(DatabaseSettings(sqlite_url(mirror.data / "state.sqlite")))
            try:
                await Repositories(database).put(RepositoryFacts(FQRN, 5, "ab" * 20, "key", f"/cvmfs/{FQRN}", 0))
                place.publish(5)
                place.files[f"{FQRN}/{COPY.object}"] = LAYER
                image = add_image(mirror.hub, "team/app", "1", LAYER)
                await mirror.get("/v2/team/app/manifests/1")
                yield Site(mirror, place, database, image)
            finally:
                await database.close()


async def test_a_published_layer_is_fetched_from_the_place_and_never_by_the_mirror(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        await here.published(COPY)
        answer = await here.mirror.get(BLOB)
        assert (answer.status, answer.headers["Location"], answer.body) == (307, here.location, b"")
        assert answer.headers["Docker-Content-Digest"] == str(COPY.digest)
        assert answer.headers["X-Debark-Cache"] == "redirected"
        head = await here.mirror.head(BLOB)
        assert (head.status, head.headers["Content-Length"]) == (200, str(len(LAYER)))
        config = await here.mirror.get(f"/v2/team/app/blobs/{here.image.config}")
        assert config.status == 200
        async with here.mirror.session.get(f"{here.mirror.url}{BLOB}") as followed:
            assert Digest.of(await followed.read()) == COPY.digest
        assert here.mirror.hub.count("GET", str(COPY.digest)) == 0
        assert here.mirror.counted("debark_requests_total", kind="blob", status="307", cache="redirected") == 2
    line = next(line for line in here.mirror.access_lines() if line["status"] == 307)
    assert (line["cache"], line["bytes"], line["digest"], line["kind"]) == ("redirected", 0, str(COPY.digest), "blob")


async def test_who_cannot_follow_or_does_not_want_to_is_served(tmp_path: Path) -> None:
    async with site(tmp_path, direct=["old-client/*"]) as here:
        await here.published(COPY)
        for headers in ({"X_Debark_Redirect": "no"}, {"User_Agent": "old-client/1.0 (x)"}):
            answer = await here.mirror.get(BLOB, **headers)
            assert (answer.status, answer.body) == (200, LAYER)
        assert (await here.mirror.get(BLOB, User_Agent="new-client/1.0")).status == 307
        reader, writer = await asyncio.open_connection("127.0.0.1", here.mirror.port)
        writer.write(f"GET {BLOB} HTTP/1.0\r\nHost: mirror\r\n\r\n".encode())
        assert b" 200 " in await reader.readline()
        writer.close()


async def test_a_range_is_asked_for_again_at_the_place(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        await here.published(COPY)
        assert (await here.mirror.get(BLOB, Range="bytes=1000-")).status == 307


async def test_who_has_it_is_sent_nowhere(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        await here.published(COPY)
        await here.answered(307)
        answer = await here.mirror.get(BLOB, If_None_Match=f'"{COPY.digest}"')
        assert (answer.status, answer.body) == (304, b"")


async def test_a_blob_goes_only_to_who_may_read_it(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        await here.published(COPY)
        answer = await here.mirror.get(f"/v2/other/app/blobs/{Digest.of(b'no repository names this')}")
        assert answer.status == 404
        secret = b"private" * 300_000
        digest = Digest.of(secret)
        await here.published(replace(COPY, digest=digest, size=len(secret)))
        here.place.files[f"{FQRN}/{COPY.object}"] = secret
        assert (await here.mirror.get(f"/v2/team/app/blobs/{digest}")).status == 404
        assert "Location" not in answer.headers


@pytest.mark.parametrize("fault", ["lags", "missing", "size", "down"])
async def test_where_no_place_serves_it_the_mirror_does(tmp_path: Path, fault: str) -> None:
    async with site(tmp_path, "http://127.0.0.1:1/cvmfs" if fault == "down" else "") as here:
        if fault == "lags":
            here.place.publish(4)
        elif fault == "missing":
            del here.place.files[f"{FQRN}/{COPY.object}"]
        elif fault == "size":
            here.place.files[f"{FQRN}/{COPY.object}"] = LAYER + b"."
        await here.published(COPY)
        answer = await here.mirror.get(BLOB)
        assert (answer.status, answer.body) == (200, LAYER)
        if fault == "lags":
            here.place.publish(5)
            await asyncio.sleep(1.1)
            assert (await here.mirror.get(BLOB)).status == 307


async def test_nobody_is_sent_for_what_a_removal_took_back(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        assert (await here.mirror.get(BLOB)).status == 200
        await here.published(COPY)
        await here.answered(307)
        await Removals(here.database).done(FQRN, [here.image.digest], [COPY.digest])
        await here.answered(200)
        assert await PackedLayers(here.database).copies(COPY.digest) == ()


async def test_a_warm_redirect_asks_neither_database_nor_place(tmp_path: Path) -> None:
    async with site(tmp_path, fresh=600) as here:
        await here.published(COPY)
        await here.answered(307)
        await asyncio.sleep(1.2)  # So that the change was seen.
        await here.mirror.get(BLOB)
        asked = len(here.place.asked)
        await here.database.close()
        (here.mirror.data / "state.sqlite").rename(here.mirror.data / "away")
        for _ in range(20):
            assert (await here.mirror.get(BLOB)).status == 307
        assert len(here.place.asked) == asked


@pytest.mark.parametrize(("is_served_elsewhere", "status"), [(True, 200), (False, 503)])
async def test_a_known_tag_outlives_its_hub_if_a_place_has_the_layers(
    tmp_path: Path, is_served_elsewhere: bool, status: int
) -> None:
    async with site(tmp_path) as here:
        assert (await here.mirror.get(f"/v2/team/app/blobs/{here.image.config}")).status == 200
        if is_served_elsewhere:
            await here.published(COPY)
            await here.answered(307)
        here.mirror.hub.faults.status = 500
        await asyncio.sleep(1.1)
        answer = await here.mirror.get("/v2/team/app/manifests/1", Cache_Control="no-cache")
        assert (answer.status, answer.headers.get("X-Debark-Cache")) == (status, "stale" if is_served_elsewhere else None)


async def test_without_places_nothing_changes(tmp_path: Path) -> None:
    async with site(tmp_path, places={}) as here:
        await here.published(COPY)
        assert (await here.mirror.get(BLOB)).status == 200
        assert here.place.asked == []


def test_places_are_checked_when_they_are_read() -> None:
    config = {"upstreams": {HUB: {}}, "default_upstream": HUB}
    for wrong in ({"url": "ftp://x"}, {"url": "https://user@x"}, {"url": "https://x", "clients": ["nobody"]}, {}):
        with pytest.raises(ValueError, match="place"):
            Config.model_validate({**config, "redirect": {"places": {"one": wrong}}})


async def test_a_hub_may_be_left_to_serve_what_the_store_does_not_have(tmp_path: Path) -> None:
    async with FaultyRegistry() as objects, mirror_server(tmp_path, upstream={"redirect_blobs": "always"}) as mirror:
        image = add_image(mirror.hub, "team/app", "1", LAYER)
        objects.add_blob(LAYER)
        await mirror.get("/v2/team/app/manifests/1")
        mirror.hub.faults = Faults(redirect=objects.url)
        answer = await mirror.get(BLOB)
        assert answer.status == 307
        assert answer.headers["Location"] == f"{objects.url}{BLOB}?signature=a%2Fb%3D", "the signature is left as it is"
        assert (await mirror.head(BLOB)).status == 200
        assert (await mirror.get(f"/v2/team/app/blobs/{Digest.of(b'unknown')}")).status == 404
        # What it sends nobody elsewhere for, and what it fails for, is served here; and then it is in the store.
        mirror.hub.faults = Faults()
        assert (await mirror.get(BLOB)).body == LAYER
        digits = COPY.digest.hex
        await until((mirror.data / "blobs" / "sha256" / digits[:2] / digits).exists)
        mirror.hub.faults = Faults(redirect=objects.url)
        assert (await mirror.get(BLOB)).headers["X-Debark-Cache"] == "hit"
        assert (await mirror.get(f"/v2/team/app/blobs/{image.config}")).status == 404, "the object store does not have it"


async def test_a_hub_that_is_away_serves_no_blobs_either(tmp_path: Path) -> None:
    async with mirror_server(tmp_path, upstream={"redirect_blobs": "always"}) as mirror:
        add_image(mirror.hub, "team/app", "1", LAYER)
        await mirror.get("/v2/team/app/manifests/1")
        mirror.hub.faults.status = 500
        for path in ("/v2/team/app/manifests/1", BLOB):
            answer = await mirror.get(path)
            assert (answer.status, answer.code) == (503, "UNAVAILABLE")


@pytest.mark.parametrize(("min_free", "status"), [(0, 200), ("100 TiB", 307)])
async def test_a_hub_may_be_left_to_serve_what_there_is_no_room_for(tmp_path: Path, min_free: object, status: int) -> None:
    settings: Mapping[str, Any] = {"store": {"min_free": min_free}}
    async with (
        FaultyRegistry() as objects,
        mirror_server(tmp_path, upstream={"redirect_blobs": "full"}, settings=settings) as mirror,
    ):
        add_image(mirror.hub, "team/app", "1", LAYER)
        objects.add_blob(LAYER)
        await mirror.get("/v2/team/app/manifests/1")
        mirror.hub.faults = Faults(redirect=objects.url)
        assert (await mirror.get(BLOB)).status == status


@pytest.mark.parametrize("more", [{}, {"redirect_blobs": "always", "private": "serve", "username": "u", "password_file": "p"}])
async def test_a_signed_address_is_never_given_out_unasked_or_for_a_credential(
    tmp_path: Path, more: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p").write_text("secret")
    async with FaultyRegistry() as objects, mirror_server(tmp_path, upstream=more) as mirror:
        add_image(mirror.hub, "team/app", "1", LAYER)
        objects.add_blob(LAYER)
        await mirror.get("/v2/team/app/manifests/1")
        mirror.hub.faults = Faults(redirect=objects.url)
        assert (await mirror.get(BLOB)).status == 200
