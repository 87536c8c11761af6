"""Answers that are given again within a moment: the same to the client, and to everybody who counts."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from tests.support.mirror_server import MirrorServer, add_image, mirror_server

PATH = "/v2/team/app/manifests/1"


@pytest.fixture
async def mirror(tmp_path: Path) -> AsyncIterator[MirrorServer]:
    async with mirror_server(tmp_path, settings={"tags": {"ttl": 60}}) as started:
        yield started


async def test_they_are_the_same_answers(mirror: MirrorServer) -> None:
    image = add_image(mirror.hub, "team/app", "1", b"layer")
    await mirror.get(PATH)
    own = ("x-request-id", "date", "x-cvmfs-state")  # the last one comes a moment later
    for method, body in (("GET", image.raw), ("HEAD", b"")):
        first, second, third = [await mirror.ask(method, PATH) for _ in range(3)]
        assert second.status == third.status == 200
        assert second.body == third.body == body
        assert len({answer.headers["X-Request-Id"] for answer in (first, second, third)}) == 3
        seen = [
            {name: value for name, value in answer.headers.items() if name.lower() not in own}
            for answer in (first, second, third)
        ]
        assert seen[0] == seen[1] == seen[2]
    assert mirror.hub.count("GET", "/manifests/") == 1


async def test_conditions_and_wishes_are_looked_at(mirror: MirrorServer) -> None:
    image = add_image(mirror.hub, "team/app", "1", b"layer")
    for _ in range(2):
        await mirror.get(PATH)
    assert (await mirror.get(PATH, If_None_Match=f'"{image.digest}"')).status == 304
    assert (await mirror.get("/v2/team/app/manifests/1?ns=hub.test")).headers["OCI-Namespace"] == "hub.test"
    assert "OCI-Namespace" not in (await mirror.get(PATH)).headers
    assert (await mirror.ask("DELETE", PATH)).status == 405


async def test_a_moment_is_short(tmp_path: Path) -> None:
    async with mirror_server(tmp_path) as mirror:  # answers for tags are good for no time at all
        old = add_image(mirror.hub, "team/app", "1", b"old")
        for _ in range(2):
            assert (await mirror.get(PATH)).body == old.raw
        new = add_image(mirror.hub, "team/app", "1", b"new")
        assert (await mirror.get(PATH)).body == new.raw


async def test_every_one_is_in_the_log_and_counted(tmp_path: Path) -> None:
    async with mirror_server(tmp_path, settings={"tags": {"ttl": 60}}) as mirror:
        image = add_image(mirror.hub, "team/app", "1", b"layer")
        for _ in range(5):
            await mirror.get(PATH)
        assert mirror.counted("debark_requests_total", kind="manifest", status="200", cache="hit") == 4
    lines = mirror.access_lines()
    assert [line["cache"] for line in lines] == ["miss", "hit", "hit", "hit", "hit"]
    told = [{key: line[key] for key in ("repository", "reference", "digest", "type", "bytes", "kind")} for line in lines]
    assert all(facts == told[0] for facts in told)
    assert told[0]["digest"] == str(image.digest)


async def test_errors_are_not_kept(mirror: MirrorServer) -> None:
    path = f"/v2/team/app/manifests/{Digest.of(b'nothing')}"
    for _ in range(2):
        assert json.loads((await mirror.get(path)).body)["errors"][0]["code"] == "MANIFEST_UNKNOWN"
