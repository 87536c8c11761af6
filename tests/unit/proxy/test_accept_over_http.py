"""Whatever a client takes, it gets from the mirror what it would get from the hub."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.manifest import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from tests.support.mirror_server import Image, MirrorServer, add_image, mirror_server

PATH = "/v2/team/app/manifests/1"
ALL = f"{DOCKER_MANIFEST}, {DOCKER_LIST}, {OCI_MANIFEST}, {OCI_INDEX}"


def add_list(mirror: MirrorServer, *, tag: str = "1") -> tuple[bytes, Image]:
    """A list with an image for another machine and one for linux/amd64."""
    arm, amd = (add_docker_image(mirror, text) for text in (b"arm", b"amd"))
    manifests = [
        {
            "mediaType": DOCKER_MANIFEST,
            "digest": str(image.digest),
            "size": len(image.raw),
            "platform": {"os": "linux", "architecture": architecture},
        }
        for architecture, image in (("arm64", arm), ("amd64", amd))
    ]
    raw = json.dumps({"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": manifests}, indent=3).encode()
    mirror.hub.add_manifest("team/app", tag, raw, DOCKER_LIST)
    return raw, amd


def add_docker_image(mirror: MirrorServer, layer: bytes) -> Image:
    made = add_image(mirror.hub, "team/other", "1", layer)
    raw = made.raw.replace(OCI_MANIFEST.encode(), DOCKER_MANIFEST.encode())
    digest = Digest.of(raw)
    mirror.hub.add_manifest("team/app", str(digest), raw, DOCKER_MANIFEST)
    return Image(raw, digest, made.config, made.layer)


@pytest.fixture
async def mirror(tmp_path: Path) -> AsyncIterator[MirrorServer]:
    async with mirror_server(tmp_path, settings={"tags": {"ttl": 60, "absent": 60}, "publish": {"enabled": True}}) as started:
        started.hub.faults.honours_accept = True
        yield started


@pytest.mark.parametrize("order", ["old client first", "old client last"])
async def test_each_client_gets_its_own_however_warm_the_mirror_is(mirror: MirrorServer, order: str) -> None:
    raw, amd = add_list(mirror)
    wanted = [(DOCKER_MANIFEST, amd.raw), (ALL, raw), ("*/*", raw), (DOCKER_LIST, raw)]
    for _ in range(4):
        for accept, body in wanted if order == "old client first" else reversed(wanted):
            answer = await mirror.get(PATH, Accept=accept)
            assert (answer.status, answer.body, answer.headers["Vary"]) == (200, body, "Accept")
            assert answer.headers["Docker-Content-Digest"] == answer.headers["ETag"].strip('"') == str(Digest.of(body))
            head = await mirror.head(PATH, Accept=accept)
            for name in ("Content-Type", "Content-Length", "Docker-Content-Digest", "ETag", "Vary"):
                assert head.headers[name] == answer.headers[name]
    assert mirror.hub.count("GET", "/manifests/") == 2
    assert mirror.hub.count("HEAD", "/manifests/") == 0


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_the_image_of_a_list_is_all_there_for_an_old_client(mirror: MirrorServer, method: str) -> None:
    _, amd = add_list(mirror)
    first = await mirror.ask(method, PATH, Accept=DOCKER_MANIFEST)
    assert first.headers["Content-Type"] == DOCKER_MANIFEST
    by_digest = await mirror.get(f"/v2/team/app/manifests/{first.headers['Docker-Content-Digest']}", Accept=DOCKER_MANIFEST)
    assert by_digest.body == amd.raw
    assert "Vary" not in by_digest.headers
    for blob in (amd.config, amd.layer):
        assert (await mirror.get(f"/v2/team/app/blobs/{blob}")).body == mirror.hub.blobs[str(blob)]


async def test_what_the_client_has_is_not_sent_again_and_what_another_one_has_is(mirror: MirrorServer) -> None:
    raw, amd = add_list(mirror)
    for accept, mine, other in ((DOCKER_MANIFEST, amd.raw, raw), (ALL, raw, amd.raw)):
        same = await mirror.get(PATH, Accept=accept, If_None_Match=f'"{Digest.of(mine)}"')
        assert (same.status, same.body, same.headers["ETag"], same.headers["Vary"]) == (
            304,
            b"",
            f'"{Digest.of(mine)}"',
            "Accept",
        )
        assert (await mirror.get(PATH, Accept=accept, If_None_Match=f'"{Digest.of(other)}"')).body == mine


async def test_several_lines_are_one_header(mirror: MirrorServer) -> None:
    raw, _ = add_list(mirror)
    reader, writer = await asyncio.open_connection("127.0.0.1", mirror.port)
    lines = "".join(f"Accept: {media_type}\r\n" for media_type in (OCI_MANIFEST, DOCKER_MANIFEST, DOCKER_LIST))
    for _ in range(3):
        writer.write(f"GET {PATH} HTTP/1.1\r\nHost: mirror\r\n{lines}\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert await reader.readexactly(len(raw)) == raw
    writer.close()
    await writer.wait_closed()


async def test_the_no_of_a_hub_is_passed_on_with_its_words(mirror: MirrorServer) -> None:
    add_image(mirror.hub, "team/app", "1", b"layer")
    for _ in range(2):
        answer = await mirror.get(PATH, Accept=DOCKER_MANIFEST)
        assert (answer.status, answer.code) == (404, "MANIFEST_UNKNOWN")
        assert "accept header does not support it" in answer.message
    assert (await mirror.get(PATH, Accept=ALL)).status == 200
    assert mirror.hub.count("GET", "/manifests/") == 2


async def test_the_publisher_is_told_what_two_requests_would_have_told_it(tmp_path: Path) -> None:
    settings = {"tags": {"ttl": 60}, "publish": {"platforms": ["linux/arm64"]}}
    async with mirror_server(tmp_path, settings=settings) as mirror:
        mirror.hub.faults.honours_accept = True
        raw, amd = add_list(mirror)
        assert (await mirror.get(PATH, Accept=DOCKER_MANIFEST)).body == amd.raw
        async with asyncio.timeout(10):
            while "X-CVMFS-State" not in (await mirror.get(PATH, Accept=DOCKER_MANIFEST)).headers:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.02)
        # The tag stands for what others get of it, and the image that was given has the tag's name for its platform.
        known = {}
        for platform in ("", "&platform=amd64"):
            document = json.loads((await mirror.get(f"/_debark/v1/images?ref=hub.test/team/app:1{platform}")).body)
            assert document["target"] == str(Digest.of(raw))
            known[document["platform"]] = document["manifest"]
        assert known["linux/amd64"] == str(amd.digest) != known[None]
