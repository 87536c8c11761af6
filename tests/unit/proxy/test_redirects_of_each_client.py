"""Blobs that are elsewhere, for each well-known client: it follows as it does, and nobody gets what is for the mirror only."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import bcrypt
import pytest

from tests.support.faulty_registry import FaultyRegistry
from tests.support.mirror_server import Image, MirrorServer, add_image, mirror_server
from tests.support.wire_clients import CLIENTS, Pulled, Puller, WireClient

LAYER = bytes(range(256)) * 1000
PASSWORD = "open-sesame"
CREDENTIALS = f"Basic {b64encode(f'ada:{PASSWORD}'.encode()).decode()}"


@pytest.fixture(params=CLIENTS, ids=lambda client: client.name)
def client(request: pytest.FixtureRequest) -> WireClient:
    found: WireClient = request.param
    return found


@dataclass
class Elsewhere:
    """A mirror that knows its users, and the object store to which its hub sends everybody for blobs."""

    mirror: MirrorServer
    objects: FaultyRegistry
    image: Image

    @property
    def blobs(self) -> dict[str, bytes]:
        return dict(self.objects.blobs)

    def puller(self, client: WireClient) -> Puller:
        return Puller(client, f"127.0.0.1:{self.mirror.port}", CREDENTIALS)

    async def pull(self, client: WireClient) -> Pulled:
        return await asyncio.to_thread(self.puller(client).pull, "team/app", "1")


@asynccontextmanager
async def elsewhere(root: Path, host: str = "127.0.0.1", direct: tuple[str, ...] = ()) -> AsyncIterator[Elsewhere]:
    """host: under which name the object store is known."""
    users = root / "users"
    users.write_text(f"ada:{bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()}\n")
    upstream = {"redirect_blobs": "always", "trusted_hosts": [host], "allow_private_addresses": True}
    settings = {"access": {"users_file": str(users)}, "redirect": {"direct": list(direct)}}
    async with FaultyRegistry() as objects, mirror_server(root, upstream=upstream, settings=settings) as mirror:
        image = add_image(mirror.hub, "team/app", "1", LAYER)
        objects.blobs.update(mirror.hub.blobs)
        mirror.hub.faults.redirect = f"http://{host}:{objects.port}"
        yield Elsewhere(mirror, objects, image)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"], ids=["another port", "another host"])
async def test_it_follows_and_what_it_has_for_the_mirror_goes_nowhere_by_the_mirrors_doing(
    tmp_path: Path, client: WireClient, host: str
) -> None:
    async with elsewhere(tmp_path, host) as here:
        pulled = await here.pull(client)
        assert pulled.manifests == (here.image.raw,)
        assert pulled.blobs == here.blobs
        redirects = [reply for _, reply in pulled.replies if reply.status == 307]
        assert len(redirects) == len(here.blobs)
        for reply in redirects:
            location = urlsplit(reply.headers["Location"])
            assert (location.netloc, location.query) == (f"{host}:{here.objects.port}", "signature=a%2Fb%3D")
            assert reply.headers["Docker-Content-Digest"] in location.path
            assert CREDENTIALS not in str(reply.headers)
            assert reply.body == b""
        # The mirror has looked at the first byte of each, before.
        seen_by_mirror = [seen.authorization for seen in here.objects.seen if seen.range == "bytes=0-0"]
        fetched = [seen for seen in here.objects.seen if seen.range is None]
        assert (seen_by_mirror, len(fetched)) == ([None] * len(here.blobs), len(here.blobs))
        # Two of them repeat it to another port of the same host; a mirror cannot keep them from it, and does not tell any other.
        kept = CREDENTIALS if client.keeps_credentials and host == "127.0.0.1" else None
        assert {seen.authorization for seen in fetched} == {kept}
        assert {seen.authorization for seen in here.mirror.hub.seen} == {None}
    records = here.mirror.access_lines()
    assert [record["status"] for record in records if record["kind"] == "blob"] == [307] * len(here.blobs)
    assert {record["user"] for record in records} == {"ada"}
    assert CREDENTIALS.split()[1] not in here.mirror.access_file.read_text()


@pytest.mark.parametrize("client", [client for client in CLIENTS if client.resumes], ids=lambda client: client.name)
async def test_who_goes_on_after_a_cut_is_sent_there_again(tmp_path: Path, client: WireClient) -> None:
    async with elsewhere(tmp_path) as here:
        puller = here.puller(client)
        await asyncio.to_thread(puller.manifest, "GET", "team/app", "1")
        descriptor = {"digest": str(here.image.layer), "mediaType": "application/octet-stream"}
        reply = await asyncio.to_thread(puller.blob, "team/app", descriptor, 1000)
        puller.close()
        assert (reply.status, reply.body) == (206, LAYER[1000:])
        assert here.objects.seen[-1].range == "bytes=1000-"
        assert here.mirror.counted("debark_requests_total", kind="blob", status="307", cache="redirected") == 1


async def test_who_cannot_follow_is_served_here(tmp_path: Path, client: WireClient) -> None:
    product = client.agent.partition("/")[0]
    async with elsewhere(tmp_path, direct=(f"{product}*",)) as here:
        # What the hub sends the mirror to, it fetches itself.
        pulled = await here.pull(client)
        assert pulled.blobs == here.blobs
        assert {reply.status for _, reply in pulled.replies} == {200}
        assert {seen.authorization for seen in here.objects.seen} == {None}
        assert here.mirror.counted("debark_requests_total", kind="blob", status="307", cache="redirected") == 0


@pytest.mark.parametrize("client", [client for client in CLIENTS if client.namespace], ids=lambda client: client.name)
async def test_a_header_of_its_hosts_toml_keeps_a_client_here(tmp_path: Path, client: WireClient) -> None:
    async with elsewhere(tmp_path) as here:
        puller = here.puller(client)
        await asyncio.to_thread(puller.manifest, "GET", "team/app", "1")
        path = f"{client.way.format(name='team/app')}/blobs/{here.image.layer}"
        reply = await asyncio.to_thread(puller.ask, "GET", path, [("X-Debark-Redirect", "no")])
        puller.close()
        assert (reply.status, reply.body) == (200, LAYER)


async def test_the_mirrors_own_files_are_for_everybody_and_a_credential_that_came_along_is_not_noted(tmp_path: Path) -> None:
    async with elsewhere(tmp_path) as here:
        place = here.mirror.data / "cvmfs" / "layers.example.org" / "data" / "ab"
        place.mkdir(parents=True)
        (place / ("c" * 38)).write_bytes(LAYER)
        path = f"/cvmfs/layers.example.org/data/ab/{'c' * 38}"
        for credentials in ({}, {"Authorization": CREDENTIALS}, {"Authorization": "Bearer of-someone-else"}):
            answer = await here.mirror.get(path, **credentials)
            assert (answer.status, answer.body) == (200, LAYER)
    written = here.mirror.access_file.read_text()
    assert path in written
    assert CREDENTIALS.split()[1] not in written
    assert "of-someone-else" not in written
