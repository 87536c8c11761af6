"""What the access log and the metrics know of requests afterwards."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.support.faulty_registry import until
from tests.support.mirror_server import HUB, MirrorServer, add_image, mirror_server

LAYER = bytes(range(256)) * 4000


async def test_a_pull_in_the_access_log_and_in_the_metrics(tmp_path: Path) -> None:
    async with mirror_server(tmp_path) as mirror:
        image = add_image(mirror.hub, "team/app", "1", LAYER)
        await mirror.get("/v2/")
        await mirror.head("/v2/team/app/manifests/1", User_Agent="docker/28")
        await mirror.get("/v2/team/app/manifests/1")
        await mirror.get(f"/v2/team/app/blobs/{image.layer}")
        await until((mirror.data / f"blobs/sha256/{image.layer.hex[:2]}/{image.layer.hex}").exists)
        await mirror.get(f"/v2/team/app/blobs/{image.layer}", Range="bytes=10-")
        await mirror.get("/v2/team/app/manifests/never")
        await mirror.get("/v2/nowhere.example.org/app/manifests/1")
        _counts(mirror)
    lines = mirror.access_lines()
    found = [(line["kind"], line["method"], line["status"], line["bytes"], line["cache"]) for line in lines]
    assert found == [
        ("ping", "GET", 200, 2, ""),
        ("manifest", "HEAD", 200, 0, "miss"),
        ("manifest", "GET", 200, len(image.raw), "hit"),
        ("blob", "GET", 200, len(LAYER), "miss"),
        ("blob", "GET", 206, len(LAYER) - 10, "hit"),
        ("manifest", "GET", 404, lines[5]["bytes"], ""),
        ("manifest", "GET", 404, lines[6]["bytes"], ""),
    ]
    pull, blob = lines[2], lines[4]
    assert (pull["upstream"], pull["repository"], pull["reference"]) == (HUB, "team/app", "1")
    assert (pull["digest"], blob["digest"]) == (str(image.digest), str(image.layer))
    assert (pull["client"], pull["type"][:12]) == ("127.0.0.1", "application/")
    assert lines[6]["upstream"] == ""
    assert lines[1]["agent"].startswith("docker/28")
    assert len({line["id"] for line in lines}) == len(lines)
    assert all(0 <= line["seconds"] < 10 for line in lines)


def _counts(mirror: MirrorServer) -> None:
    assert mirror.counted("debark_requests_total", kind="blob", status="200", cache="miss") == 1
    assert mirror.counted("debark_response_bytes_total", kind="blob", cache="miss") == len(LAYER)
    assert mirror.counted("debark_fills_total", result="stored") == 1
    for kind, method, status, times in (
        ("manifest", "GET", "200", 1),
        ("manifest", "HEAD", "200", 1),
        ("manifest", "GET", "404", 1),
        ("blob", "GET", "200", 1),
    ):
        counted = mirror.counted("debark_upstream_requests_total", upstream=HUB, method=method, kind=kind, status=status)
        assert counted == times, (kind, method, status)


async def test_a_client_that_leaves_counts_with_what_it_got(tmp_path: Path) -> None:
    async with mirror_server(tmp_path) as mirror:
        image = add_image(mirror.hub, "team/app", "1", LAYER)
        mirror.hub.faults.hold_at = 100_000
        response = await mirror.session.get(f"{mirror.url}/v2/team/app/blobs/{image.layer}")
        await response.content.readexactly(50_000)
        response.close()
        mirror.hub.release.set()
        await until(lambda: mirror.counted("debark_requests_total", kind="blob", status="200", cache="miss") == 1)
    (line,) = mirror.access_lines()
    assert (line["kind"], line["status"]) == ("blob", 200)
    assert 50_000 <= line["bytes"] < len(LAYER)


async def test_requests_to_a_hub_that_is_away_count_as_unanswered(tmp_path: Path) -> None:
    async with mirror_server(tmp_path) as mirror:
        await mirror.hub.kill()
        assert (await mirror.get("/v2/team/app/manifests/1")).status == 503
        labels = {"upstream": HUB, "method": "GET", "kind": "manifest", "status": "0"}
        assert mirror.counted("debark_upstream_requests_total", **labels) == 1


async def test_what_is_no_http_is_answered_in_a_way_that_clients_of_plain_ports_understand(tmp_path: Path) -> None:
    """Clients try TLS first, and go back to plain HTTP only if the answer begins like HTTP."""
    async with mirror_server(tmp_path) as mirror:
        for hello in (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
            b"GET /v2/ HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n",
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", mirror.port)
            writer.write(hello)
            assert (await asyncio.wait_for(reader.read(65536), 5)).startswith(b"HTTP/1.")
            writer.close()
    assert all(line["kind"] == "other" and line["status"] == 400 for line in mirror.access_lines())
