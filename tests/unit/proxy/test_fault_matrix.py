"""Every way in which a hub misbehaves, over the wire: what the client gets, what is stored, and what is asked next.

More of each is in tests/unit/fetch (transfers, processes, disks) and tests/unit/upstream (tokens, redirects, outages).
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from mirror.store.blobs import BlobStore
from tests.support.faulty_registry import Faults, until
from tests.support.mirror_server import Image, MirrorServer, add_image, mirror_server

LAYER = random.Random(7).randbytes(512_000)
SIZE = len(LAYER)
MIDDLE = 300_000
FIRST = "-"
"""The whole blob, from its beginning."""
QUICK = {"fetch": {"longest_pause": 0.1, "attempts": 4}, "tags": {"ttl": 0, "absent": 0, "patience": 0.5}}
UPSTREAM = {"attempts": 3, "read_timeout": 1}


@dataclass(frozen=True)
class BlobCase:
    """A fault while a blob is fetched."""

    fault: str
    faults: Faults
    status: int
    code: str = ""
    """Of the OCI error; empty for a blob that begins."""
    whole: bool = False
    """Whether all of it arrives."""
    stored: bool = False
    asked: Sequence[str] = (FIRST,)
    """Where each request of the hub's began."""
    retry_after: str | None = None
    next: Sequence[str] = ()
    """The same, for the next client, when the hub is well again."""


def given(fault: str, faults: Faults, *asked: str) -> BlobCase:
    """The client notices nothing, and the next one costs the hub nothing."""
    return BlobCase(fault, faults, 200, whole=True, stored=True, asked=asked or (FIRST,))


def refused(fault: str, faults: Faults, status: int, code: str, *asked: str, retry_after: str | None = None) -> BlobCase:
    """The client hears of it before the body, and the next one gets it all."""
    return BlobCase(fault, faults, status, code, asked=asked or (FIRST,), retry_after=retry_after, next=(FIRST,))


THRICE = (FIRST,) * 3
BLOBS = [
    given("none", Faults()),
    given("slow", Faults(between_pieces=0.02)),
    given("slow to begin", Faults(before_headers=0.2)),
    given("stalls once", Faults(hold_at=MIDDLE), FIRST, str(MIDDLE)),
    given("cut before the body", Faults(cut_at=0), FIRST, FIRST),
    given("cut after one byte", Faults(cut_at=1), FIRST, "1"),
    given("cut in the middle", Faults(cut_at=MIDDLE), FIRST, str(MIDDLE)),
    given("reset in the middle", Faults(cut_at=MIDDLE, reset=True), FIRST, str(MIDDLE)),
    given("cut before the last byte", Faults(cut_at=SIZE - 1), FIRST, str(SIZE - 1)),
    given("cut, then no ranges", Faults(cut_at=MIDDLE, ignore_range=True), FIRST, str(MIDDLE)),
    given("chunked", Faults(chunked=True)),
    given("chunked and cut", Faults(chunked=True, cut_at=MIDDLE), FIRST, str(MIDDLE)),
    given("HTTP/1.0", Faults(until_close=True)),
    given("HTTP/1.0 and cut", Faults(until_close=True, cut_at=MIDDLE), FIRST, str(MIDDLE)),
    given("500 once", Faults(statuses=[500]), FIRST, FIRST),
    given("503 in the middle", Faults(cut_at=MIDDLE, statuses=[0, 503]), FIRST, str(MIDDLE), str(MIDDLE)),
    given("404 in the middle", Faults(cut_at=MIDDLE, statuses=[0, 404]), FIRST, str(MIDDLE), str(MIDDLE)),
    given("403 in the middle", Faults(cut_at=MIDDLE, statuses=[0, 403]), FIRST, str(MIDDLE), str(MIDDLE)),
    given("429 in the middle", Faults(cut_at=MIDDLE, statuses=[0, 429]), FIRST, str(MIDDLE), str(MIDDLE)),
    given("a token for one request", Faults(auth="bearer", token_uses=1, cut_at=MIDDLE), *[FIRST] * 2, *[str(MIDDLE)] * 2),
    refused("401 without end", Faults(auth="bearer", token_uses=0), 403, "DENIED", FIRST, FIRST),
    refused("401 and no way out", Faults(status=401), 403, "DENIED"),
    refused("403", Faults(status=403), 403, "DENIED"),
    refused("404", Faults(statuses=[404]), 404, "BLOB_UNKNOWN"),
    refused("429", Faults(status=429), 503, "UNAVAILABLE", retry_after="1"),
    refused("429 for a while", Faults(status=429, headers={"Retry-After": "7"}), 503, "UNAVAILABLE", retry_after="7"),
    refused("500", Faults(status=500), 503, "UNAVAILABLE", *THRICE, retry_after="1"),
    refused("502", Faults(status=502), 503, "UNAVAILABLE", *THRICE, retry_after="1"),
    refused("503 for a while", Faults(status=503, headers={"Retry-After": "60"}), 503, "UNAVAILABLE", retry_after="60"),
    refused("silence", Faults(before_headers=3), 503, "UNAVAILABLE", retry_after="1"),
    refused("another length", Faults(extra_bytes=1), 502, "UPSTREAM_INVALID"),
    refused("encoded", Faults(content_encoding="gzip"), 502, "UPSTREAM_INVALID"),
    refused("redirects in a circle", Faults(redirect_loop=True), 503, "UNAVAILABLE", *[FIRST] * 6, retry_after="1"),
    refused("redirect to nowhere", Faults(redirect="http://["), 503, "UNAVAILABLE", retry_after="1"),
    refused("redirect to a stranger", Faults(redirect="http://stranger.test"), 403, "DENIED"),
    BlobCase("other bytes", Faults(wrong_content=True), 200, next=(FIRST,)),
    BlobCase("cut again and again", Faults(cut_at=MIDDLE, cuts=99), 200, asked=[FIRST, *[str(MIDDLE)] * 3], next=[str(MIDDLE)]),
    BlobCase("stalls for ever", Faults(hold_at=MIDDLE, statuses=[0] + [500] * 9), 200, asked=[FIRST, *[str(MIDDLE)] * 3],
             next=[str(MIDDLE)]),
]  # fmt: skip


@pytest.mark.parametrize("case", BLOBS, ids=lambda case: case.fault)
async def test_blobs(case: BlobCase, tmp_path: Path) -> None:
    async with mirror_server(tmp_path, upstream=UPSTREAM, settings=QUICK) as mirror:
        image = add_image(mirror.hub, "team/app", "1", LAYER)
        assert (await mirror.get("/v2/team/app/manifests/1")).status == 200
        path = f"/v2/team/app/blobs/{image.layer}"
        healthy, mirror.hub.faults = mirror.hub.faults, deepcopy(case.faults)
        mirror.hub.seen.clear()

        status, body, is_whole, headers, code = await pull(mirror, path)

        assert (status, is_whole and status == 200, code) == (case.status, case.whole, case.code)
        assert LAYER.startswith(body) if status == 200 else True
        assert headers.get("Retry-After") == case.retry_after
        assert asked(mirror) == list(case.asked)
        if case.stored:
            await until(lambda: mirror.counted("debark_fills_total", result="stored") > 0)
        assert (BlobStore(mirror.data, 0).size(image.layer) == SIZE) is case.stored

        mirror.hub.faults = healthy
        mirror.hub.seen.clear()
        if case.retry_after is not None and int(case.retry_after) > 1:
            return  # the hub is not asked before that; test_upstream_outage.py has what follows
        assert (await pull(mirror, path))[:3] == (200, LAYER, True)
        assert asked(mirror) == list(case.next)


@dataclass(frozen=True)
class ManifestCase:
    """A fault while a manifest is asked for: when its tag is not known, and when it is (and its image in the store)."""

    fault: str
    faults: Faults
    cold: tuple[int, str]
    """Status and code."""
    known: tuple[int, str]
    """Status, and code or cache result."""
    retry_after: str | None = None


MANIFESTS = [
    ManifestCase("none", Faults(), (200, "miss"), (200, "hit")),
    ManifestCase("slow", Faults(before_headers=0.1), (200, "miss"), (200, "hit")),
    ManifestCase("silence", Faults(before_headers=3), (503, "UNAVAILABLE"), (200, "stale"), "1"),
    ManifestCase("500 once", Faults(statuses=[500]), (200, "miss"), (200, "hit")),
    ManifestCase("500", Faults(status=500), (503, "UNAVAILABLE"), (200, "stale"), "1"),
    ManifestCase("503 for a while", Faults(status=503, headers={"Retry-After": "60"}),
                 (503, "UNAVAILABLE"), (200, "stale"), "60"),
    ManifestCase("429", Faults(status=429), (503, "UNAVAILABLE"), (200, "stale"), "1"),
    ManifestCase("429 for a while", Faults(status=429, headers={"Retry-After": "9"}), (503, "UNAVAILABLE"), (200, "stale"), "9"),
    ManifestCase("404", Faults(status=404), (404, "MANIFEST_UNKNOWN"), (404, "MANIFEST_UNKNOWN")),
    ManifestCase("404 once", Faults(statuses=[404]), (404, "MANIFEST_UNKNOWN"), (404, "MANIFEST_UNKNOWN")),
    ManifestCase("403", Faults(status=403), (403, "DENIED"), (403, "DENIED")),
    ManifestCase("401 without end", Faults(auth="bearer", token_uses=0), (403, "DENIED"), (403, "DENIED")),
    ManifestCase("tokens are away", Faults(auth="bearer", token_status=503), (503, "UNAVAILABLE"), (200, "stale"), "1"),
    ManifestCase("a token for one request", Faults(auth="bearer", token_uses=1), (200, "miss"), (200, "hit")),
    ManifestCase("a token service elsewhere", Faults(auth="bearer", challenge='Bearer realm="http://stranger.test/token"'),
                 (403, "DENIED"), (403, "DENIED")),
    ManifestCase("other bytes", Faults(wrong_content=True, no_head_digest=True), (502, "UPSTREAM_INVALID"), (200, "stale")),
    ManifestCase("encoded", Faults(content_encoding="gzip", no_head_digest=True), (502, "UPSTREAM_INVALID"), (200, "stale")),
    ManifestCase("no digest", Faults(no_head_digest=True), (200, "miss"), (200, "miss")),
]  # fmt: skip


@pytest.mark.parametrize("case", MANIFESTS, ids=lambda case: case.fault)
async def test_manifests_that_are_not_known(case: ManifestCase, tmp_path: Path) -> None:
    async with mirror_server(tmp_path, upstream=UPSTREAM, settings=QUICK) as mirror:
        image = add_image(mirror.hub, "team/app", "1", LAYER)
        mirror.hub.faults = deepcopy(case.faults)
        answer = await mirror.get("/v2/team/app/manifests/1")
        found = answer.headers["X-Debark-Cache"] if answer.status == 200 else answer.code
        assert (answer.status, found) == case.cold
        assert answer.headers.get("Retry-After") == case.retry_after
        if answer.status != 200:
            assert "hub.test" in answer.message
        assert (answer.body == image.raw) is (answer.status == 200)
        assert (BlobStore(mirror.data, 0).size(image.digest) is not None) is (answer.status == 200)
        if answer.status != 200 and case.retry_after in (None, "1"):
            mirror.hub.faults = Faults()
            await well_again(mirror, "/v2/team/app/manifests/1", "miss")


@pytest.mark.parametrize("case", MANIFESTS, ids=lambda case: case.fault)
async def test_manifests_that_are_known(case: ManifestCase, tmp_path: Path) -> None:
    async with mirror_server(tmp_path, upstream=UPSTREAM, settings=QUICK) as mirror:
        image = await pulled(mirror)
        mirror.hub.faults = deepcopy(case.faults)
        answer = await mirror.get("/v2/team/app/manifests/1")
        found = answer.headers["X-Debark-Cache"] if answer.status == 200 else answer.code
        assert (answer.status, found) == case.known
        assert ("Age" in answer.headers) is (found == "stale")
        if answer.status == 200:
            assert answer.body == image.raw
        # By its digest it is right for ever, and nobody is asked.
        by_digest = await mirror.get(f"/v2/team/app/manifests/{image.digest}")
        assert (by_digest.status, by_digest.headers["X-Debark-Cache"]) == (200, "hit")
        assert not [request for request in mirror.hub.seen if request.path.endswith(str(image.digest))]


async def test_a_hub_that_is_gone(tmp_path: Path) -> None:
    async with mirror_server(
        tmp_path, upstream={"attempts": 1, "breaker_failures": 2, "breaker_pause": 0.3}, settings=QUICK
    ) as mirror:
        await pulled(mirror)
        partly = add_image(mirror.hub, "team/partly", "1", b"other layer")
        await mirror.get("/v2/team/partly/manifests/1")
        await mirror.hub.kill()

        for path in ("team/app/manifests/1", "team/app/manifests/1", f"team/app/blobs/{(await image_of(mirror)).layer}"):
            assert (await mirror.get(f"/v2/{path}")).status == 200
        for path in (
            "team/partly/manifests/1",
            f"team/partly/blobs/{partly.layer}",
            "team/app/manifests/2",
            "team/app/tags/list",
        ):
            answer = await mirror.get(f"/v2/{path}")
            assert (answer.status, answer.code) == (503, "UNAVAILABLE")
            assert int(answer.headers["Retry-After"]) >= 1
            assert "hub.test" in answer.message
            assert "reached" in answer.message

        assert "hub.test is not asked" in (await mirror.get("/healthz")).body.decode()
        assert mirror.counted("debark_upstream_circuit_open", upstream="hub.test") == 1
        assert mirror.counted("debark_upstream_circuit_openings_total", upstream="hub.test") == 1
        assert mirror.counted("debark_stale_answer_age_seconds_count") == 2

        await mirror.hub.start()
        await well_again(mirror, "/v2/team/app/manifests/1", "hit")
        assert (await mirror.get("/v2/team/partly/manifests/1")).headers["X-Debark-Cache"] == "hit"
        assert mirror.counted("debark_upstream_circuit_open", upstream="hub.test") == 0
        assert "hub.test" not in (await mirror.get("/healthz")).body.decode()
    stale = [line for line in mirror.access_lines() if line["cache"] == "stale"]
    assert stale
    assert all(line["age"] >= 0 for line in stale)


async def test_what_is_left_of_the_budget_is_shown(tmp_path: Path) -> None:
    async with mirror_server(tmp_path) as mirror:
        add_image(mirror.hub, "team/app", "1", LAYER)
        mirror.hub.faults.manifest_headers = {"RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": "76;w=21600"}
        await mirror.get("/v2/team/app/manifests/1")
        assert mirror.counted("debark_upstream_pull_limit", upstream="hub.test") == 100
        assert mirror.counted("debark_upstream_pulls_remaining", upstream="hub.test") == 76


async def pull(mirror: MirrorServer, path: str) -> tuple[int, bytes, bool, dict[str, str], str]:
    """Status, what came of the body, whether that is all of it, headers, and the code of an error."""
    body = bytearray()
    async with mirror.session.get(f"{mirror.url}{path}") as response:
        headers = dict(response.headers)
        try:
            async for piece in response.content.iter_any():
                body += piece
        except aiohttp.ClientError:
            return response.status, bytes(body), False, headers, ""
        code = json.loads(body)["errors"][0]["code"] if response.status != 200 else ""
        return response.status, bytes(body), True, headers, code


def asked(mirror: MirrorServer) -> list[str]:
    """Where the hub's blobs and manifests were begun to be read."""
    requests = [request for request in mirror.hub.seen if request.path.startswith("/v2/")]
    return [(request.range or f"bytes={FIRST}-").removeprefix("bytes=").removesuffix("-") for request in requests]


async def pulled(mirror: MirrorServer) -> Image:
    """An image that a client has pulled whole."""
    image = add_image(mirror.hub, "team/app", "1", LAYER)
    for path in ("manifests/1", f"blobs/{image.config}", f"blobs/{image.layer}"):
        assert (await mirror.get(f"/v2/team/app/{path}")).status == 200
    return image


async def image_of(mirror: MirrorServer) -> Image:
    """The same again."""
    return add_image(mirror.hub, "team/app", "1", LAYER)


async def well_again(mirror: MirrorServer, path: str, result: str) -> None:
    """Ask until the hub's answer comes, this one: what failed a moment ago is left alone for a while."""
    async with asyncio.timeout(10):
        while (await mirror.get(path)).headers.get("X-Debark-Cache") != result:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
