"""One request too many costs nothing and is told to come again."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.support.faulty_registry import until
from tests.support.mirror_server import add_image, mirror_server


async def test_beyond_the_limit_clients_are_sent_elsewhere_and_the_operator_still_sees(tmp_path: Path) -> None:
    async with mirror_server(tmp_path, settings={"server": {"max_requests": 2}}) as mirror:
        image = add_image(mirror.hub, "team/app", "1", bytes(3_000_000))
        mirror.hub.faults.hold_at = 100_000
        path = f"/v2/team/app/blobs/{image.layer}"
        under_way = [asyncio.create_task(mirror.get(path)) for _ in range(2)]
        await until(lambda: mirror.hub.count("GET", "/blobs/") == 1)
        await asyncio.sleep(0.05)
        refused = await mirror.get("/v2/")
        assert (refused.status, refused.code, refused.headers["Retry-After"]) == (503, "UNAVAILABLE", "2")
        assert (await mirror.get("/healthz")).status == 200
        assert (await mirror.get("/metrics")).status == 200
        mirror.hub.release.set()
        assert [(await task).status for task in under_way] == [200, 200]
        assert (await mirror.get("/v2/")).status == 200


async def test_what_is_refused_at_the_entrance_is_signed_as_all_answers_are(tmp_path: Path) -> None:
    async with mirror_server(tmp_path, settings={"access": {"allow": ["192.0.2.1"]}}) as mirror:
        refused, served = await mirror.get("/v2/"), await mirror.get("/healthz")
        assert (refused.status, served.status) == (403, 200)
        assert refused.headers["Server"] == served.headers["Server"]
    assert [line["id"] for line in mirror.access_lines()] == [answer.headers["X-Request-Id"] for answer in (refused, served)]
