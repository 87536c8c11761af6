"""The wired mirror in front of a hub that has a mirror of its own."""

from __future__ import annotations

from pathlib import Path

from tests.support.faulty_registry import FaultyRegistry
from tests.support.mirror_server import add_image, mirror_server

LAYER = b"layer" * 10_000
ACCOUNT = ("site", "pass-word")


async def test_content_comes_from_the_mirror_and_proofs_from_the_hub(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text(ACCOUNT[1])
    async with FaultyRegistry() as near:
        settings = {"mirrors": [near.url], "username": ACCOUNT[0], "password_file": str(password)}
        async with mirror_server(tmp_path, upstream=settings) as mirror:
            image = add_image(near, "team/app", "1", LAYER)
            add_image(mirror.hub, "team/app", "1", LAYER)
            mirror.hub.faults.auth = "bearer"

            assert (await mirror.get("/v2/team/app/manifests/1")).body == image.raw
            assert (await mirror.get(f"/v2/team/app/blobs/{image.layer}")).body == LAYER
            assert (near.count("GET", "/manifests/"), near.count("GET", "/blobs/")) == (1, 1)
            assert {request.authorization for request in near.seen} == {None}
            # That everybody may read it, an anonymous question to the hub itself has shown.
            assert (mirror.hub.count("HEAD", "/manifests/"), mirror.hub.count("GET", "/blobs/")) == (2, 0)

            mirror.hub.faults.user = ACCOUNT
            add_image(near, "team/private", "1", b"secret")
            add_image(mirror.hub, "team/private", "1", b"secret")
            answer = await mirror.get("/v2/team/private/manifests/1")
            assert (answer.status, answer.code) == (403, "DENIED")


async def test_a_hub_that_is_away_is_no_outage_where_a_mirror_has_it(tmp_path: Path) -> None:
    async with FaultyRegistry() as near:
        settings = {"mirrors": [near.url], "breaker_failures": 1}
        async with mirror_server(tmp_path, upstream=settings) as mirror:
            image = add_image(near, "team/app", "1", LAYER)
            await mirror.hub.kill()
            assert (await mirror.get("/v2/team/app/tags/list")).status == 503
            assert (await mirror.get("/v2/team/app/manifests/1")).body == image.raw
            assert (await mirror.get(f"/v2/team/app/blobs/{image.layer}")).body == LAYER
            assert (await mirror.get("/v2/team/app/manifests/1")).headers["X-Debark-Cache"] == "hit"

            assert (await mirror.get("/v2/team/app/manifests/2")).status == 503  # that it is nowhere only the hub can say
            near_name = f"hub.test@127.0.0.1:{near.port}"
            assert mirror.counted("debark_upstream_circuit_open", upstream="hub.test") == 1
            assert mirror.counted("debark_upstream_circuit_open", upstream=near_name) == 0
            await near.kill()
            stale = await mirror.get("/v2/team/app/manifests/1")
            assert (stale.status, stale.code) == (503, "UNAVAILABLE")  # its config was never pulled
