"""Answers that are given again as they went over the wire: no client can tell, and each request is told apart in the logs."""

from __future__ import annotations

import asyncio
import errno
import json
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from mirror.fetch.manifests import ManifestAnswer, ManifestFetcher
from mirror.oci.digest import Digest
from mirror.store.blobs import BlobStore
from tests.support.faulty_registry import until
from tests.support.mirror_server import Image, MirrorServer, add_image, mirror_server

PATH = "/v2/team/app/manifests/1"
LASTING = {"tags": {"ttl": 3600}}
"""Nothing is kept that is not fresh for a moment."""


@pytest.fixture
async def mirror(tmp_path: Path) -> AsyncIterator[MirrorServer]:
    async with mirror_server(tmp_path, settings=LASTING) as started:
        yield started


@pytest.fixture
def composed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by each answer that is put together, and not given again."""
    get, found = ManifestFetcher.get, []

    async def noted(*given: Any, **options: Any) -> ManifestAnswer:
        found.append("answer")
        return await get(*given, **options)

    monkeypatch.setattr(ManifestFetcher, "get", noted)
    return found


def basic(user: str, password: str) -> str:
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


async def test_a_crowd_costs_little_more_than_one(mirror: MirrorServer, composed: list[str]) -> None:
    add_image(mirror.hub, "team/app", "1", b"layer")
    for _ in range(100):
        assert (await mirror.get(PATH)).status == 200
    assert len(composed) < 20  # One to fetch, one to keep, and one for each moment that has passed.


async def test_users_of_the_mirror_get_it_again_and_nobody_else_does(tmp_path: Path, composed: list[str]) -> None:
    users = tmp_path / "users"
    users.write_text(f"ada:{bcrypt.hashpw(b'sesame', bcrypt.gensalt(4)).decode()}\n")
    async with mirror_server(tmp_path, settings={**LASTING, "access": {"users_file": str(users)}}) as mirror:
        add_image(mirror.hub, "team/app", "1", b"layer")
        for _ in range(50):
            assert (await mirror.get(PATH, Authorization=basic("ada", "sesame"))).status == 200
            assert (await mirror.get(PATH, Authorization=basic("ada", "open"))).status == 401
            assert (await mirror.get(PATH)).status == 401
    assert len(composed) < 20
    assert {(line["user"], line["status"]) for line in mirror.access_lines()} == {("ada", 200), ("", 401)}


async def test_what_is_for_one_client_is_not_kept_for_the_next(tmp_path: Path, composed: list[str]) -> None:
    async with mirror_server(tmp_path, upstream={"private": "client"}, settings=LASTING) as mirror:
        mirror.hub.faults.auth = "bearer"
        mirror.hub.faults.readers = {"team/app": {"ada": "word"}}
        image = add_image(mirror.hub, "team/app", "1", b"layer")
        for _ in range(3):
            answer = await mirror.get(PATH, Authorization=basic("ada", "word"))
            assert (answer.status, answer.body) == (200, image.raw)
            assert (await mirror.get(PATH)).status == 401
            assert (await mirror.get(PATH, Authorization=basic("eve", "word"))).status == 403
    assert len(composed) == 3


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_an_answer_given_again_is_the_same_for_whoever_asks(mirror: MirrorServer, method: str) -> None:
    image = add_image(mirror.hub, "team/app", "1", b"layer")
    async with asyncio.timeout(10):
        while "X-CVMFS-State" not in (await mirror.get(PATH, Cache_Control="max-age=60")).headers:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.01)
    answers = [await mirror.ask(method, PATH) for _ in range(3)]
    answers += [await mirror.ask(method, PATH, **own) for own in ({"Connection": "close"}, {"Cache_Control": "max-age=60"})]

    assert [(answer.status, answer.body) for answer in answers] == [(200, image.raw if method == "GET" else b"")] * 5
    seen = [{name.lower(): value for name, value in answer.headers.items()} for answer in answers]
    assert len({headers.pop("x-request-id") for headers in seen}) == 5
    assert all(headers.pop("date").endswith(" GMT") for headers in seen)
    assert [headers.pop("connection", "") for headers in seen] == ["", "", "", "close", ""]
    assert seen == [seen[0]] * 5


async def test_each_request_has_its_line_and_its_count(mirror: MirrorServer) -> None:
    image = add_image(mirror.hub, "team/app", "1", b"layer")
    await mirror.get(PATH)
    asked = [(await mirror.ask(method, PATH)).headers["X-Request-Id"] for method in ("GET", "GET", "GET", "HEAD", "HEAD", "HEAD")]

    await until(lambda: mirror.access_file.read_text().count("\n") == 7)
    records = [json.loads(line) for line in mirror.access_file.read_text().splitlines()[1:]]
    assert [record["id"] for record in records] == asked
    assert [record["bytes"] for record in records] == [len(image.raw)] * 3 + [0] * 3
    assert {(record["kind"], record["cache"], record["digest"], record["repository"]) for record in records} == {
        ("manifest", "hit", str(image.digest), "team/app")
    }


async def test_many_requests_on_one_connection(mirror: MirrorServer) -> None:
    image = add_image(mirror.hub, "team/app", "1", b"layer")
    await mirror.get(PATH)
    reader, writer = await asyncio.open_connection("127.0.0.1", mirror.port)
    request = f"GET {PATH} HTTP/1.1\r\nHost: mirror\r\n\r\n".encode()
    writer.write(20 * request)
    for _ in range(20):
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert await reader.readexactly(len(image.raw)) == image.raw
    writer.close()
    await writer.wait_closed()


async def stored(mirror: MirrorServer, image: Image) -> str:
    """The path of its layer, once that is in the store."""
    await mirror.get(PATH)
    path = f"/v2/team/app/blobs/{image.layer}"
    async with asyncio.timeout(10):
        while (await mirror.get(path, Range="bytes=0-0")).headers["X-Debark-Cache"] != "hit":  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.01)
    return path


async def test_a_small_blob_for_a_crowd_is_read_now_and_then(mirror: MirrorServer, monkeypatch: pytest.MonkeyPatch) -> None:
    image = add_image(mirror.hub, "team/app", "1", b"0123456789" * 1000)
    path, read, opened = await stored(mirror, image), BlobStore.open, []

    def noted(store: BlobStore, digest: Digest) -> Any:
        opened.append(digest)
        return read(store, digest)

    monkeypatch.setattr(BlobStore, "open", noted)
    answers = [await mirror.get(path) for _ in range(100)]
    assert [answer.body for answer in answers] == [b"0123456789" * 1000] * 100
    assert len(opened) < 20
    seen = [{name.lower(): value for name, value in answer.headers.items()} for answer in answers]
    assert len({headers.pop("x-request-id") for headers in seen}) == 100
    assert all(headers.pop("date") for headers in seen)
    assert seen == [seen[0]] * 100

    part = await mirror.get(path, Range="bytes=1-3")
    assert (part.status, part.body) == (206, b"123")
    assert (await mirror.get(path, If_None_Match=f'"{image.layer}"')).status == 304
    head = await mirror.head(path)
    assert (head.status, head.headers["Content-Length"], head.body) == (200, "10000", b"")
    lines = mirror.access_file.read_text
    asked = head.headers["X-Request-Id"]
    await until(lambda: asked in lines())
    records = [json.loads(line) for line in lines().splitlines()[-103:]]
    assert [record["bytes"] for record in records] == [10_000] * 100 + [3, 0, 0]
    assert {(record["kind"], record["digest"], record["repository"]) for record in records} == {
        ("blob", str(image.layer), "team/app")
    }


async def test_a_small_blob_that_cannot_be_read_whole_is_no_answer(mirror: MirrorServer) -> None:
    image = add_image(mirror.hub, "team/app", "1", b"0123456789" * 1000)
    path = await stored(mirror, image)

    def fails(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mirror.fetch.reader.os.pread", fails)
        answer = await mirror.get(path)
    assert (answer.status, answer.code) == (503, "UNAVAILABLE")
    assert "Input/output error" in answer.message
    assert (await mirror.get(path)).status == 200


async def test_who_does_not_read_gets_no_further_answers(mirror: MirrorServer) -> None:
    image = json.loads(add_image(mirror.hub, "team/app", "1", b"layer").raw)
    mirror.hub.add_manifest("team/app", "1", json.dumps({**image, "annotations": {"long": "x" * 30_000}}).encode())
    await mirror.get(PATH)
    reader, writer = await asyncio.open_connection("127.0.0.1", mirror.port, limit=1024)
    writer.write(2000 * f"GET {PATH} HTTP/1.1\r\nHost: mirror\r\n\r\n".encode())
    labels = {"kind": "manifest", "status": "200", "cache": "hit"}
    seen = -1.0
    while (answered := mirror.counted("debark_requests_total", **labels)) != seen:
        seen = answered
        await asyncio.sleep(0.3)
    assert 0 < answered < 1000  # What the kernel's buffers hold; the rest waits in the client's own requests.
    writer.transport.abort()
    assert reader is not None
