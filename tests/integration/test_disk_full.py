"""A disk without room: pulls go on from the hub, everybody is told, and what could not be published is once there is room."""

from __future__ import annotations

import json
import socket
from pathlib import Path

from tests.support.clients import Skopeo
from tests.support.debark_process import IMPATIENT, DebarkProcess
from tests.support.hub import Hub
from tests.support.published import problems
from tests.support.registry_client import digest_of
from tests.support.small_images import tiny

NAME = "hub.test/disk/app:1"
FULL = IMPATIENT + '[store]\nmin_free = "99 TiB"\n'
"""No machine that runs tests has that."""


def test_pulls_pass_through_a_full_disk_and_the_image_is_published_once_there_is_room(
    hub: Hub, tmp_path: Path, skopeo: Skopeo
) -> None:
    image = tiny("no room")
    image.push(hub.client(), "disk/app", "1")
    layers = [digest_of(layer.packed) for layer in image.layers]
    with DebarkProcess(tmp_path / "debark", {"hub.test": hub.url}, FULL) as debark:
        for number in range(2):
            before = hub.requests("GET", f"/v2/disk/app/blobs/{layers[0]}")
            copy = skopeo.pull(f"{debark.address}/{NAME}", f"full-{number}")
            assert copy.differences(hub, "disk/app", "1") == []
            assert hub.requests("GET", f"/v2/disk/app/blobs/{layers[0]}") > before
        assert _cached(debark, layers) == []
        health = debark.get("/healthz").json()
        assert health["status"] == "degraded"
        assert "99 TiB" in health["parts"]["store"]
        log = [json.loads(line) for line in (debark.data / "log" / "debark.log").read_text().splitlines()]
        told = [line for line in log if line["event"] == "storage_full"]
        assert any(layers[0] == line["digest"] for line in told)
        assert all(line["level"] == "error" for line in told)
        document = debark.wait_for(NAME, {"failed"})
        assert "free space" in document["reason"]
        assert document["path"] is None
        assert document["next_try"] is not None
        assert debark.client().manifest("hub.test/disk/app", "1").headers["X-CVMFS-State"] == "failed"
    with DebarkProcess(tmp_path / "debark", {"hub.test": hub.url}) as debark:
        assert debark.get("/healthz").json()["parts"]["store"] == "ok"
        published = debark.wait_for(NAME)
        assert _cached(debark, layers) == sorted(layers)
        assert problems(debark, published["fqrn"]) == []


def test_a_server_starts_where_not_even_its_address_can_be_written_down(hub: Hub, tmp_path: Path) -> None:
    tiny("no room").push(hub.client(), "disk/app", "1")
    in_the_way = tmp_path / "debark" / "data" / "run" / "address.new"
    in_the_way.mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with DebarkProcess(tmp_path / "debark", {"hub.test": hub.url}, listen=f"127.0.0.1:{port}") as debark:
        assert debark.client().manifest("hub.test/disk/app", "1").status == 200
        (warning,) = debark.log_events("address_not_written")
        assert (warning["level"], warning["address"]) == ("warning", f"127.0.0.1:{port}")


def _cached(debark: DebarkProcess, digests: list[str]) -> list[str]:
    """Those of the blobs that are in the store."""
    names = {path.name for path in (debark.data / "blobs").rglob("*") if path.is_file()}
    return sorted(digest for digest in digests if digest.removeprefix("sha256:") in names)
