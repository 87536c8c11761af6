"""The registry API as clients use it: every way of naming, HEAD and GET, conditions, errors in OCI JSON."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.manifest import DOCKER_LIST, DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED, OCI_MANIFEST
from tests.support.faulty_registry import Faults, until
from tests.support.mirror_server import HUB, MirrorServer, add_image, mirror_server

LAYER = bytes(range(256)) * 1000
NOWHERE = Digest.of(b"nobody has this")


@pytest.mark.parametrize("path", ["/v2/", "/v2"])
async def test_it_is_a_registry_and_wants_no_credentials(mirror: MirrorServer, path: str) -> None:
    for method in ("GET", "HEAD"):
        answer = await mirror.ask(method, path)
        assert answer.status == 200
        assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"


@pytest.mark.parametrize(
    "path",
    [
        "team/app/manifests/{reference}",  # docker
        "team/app/manifests/{reference}?ns=hub.test",  # containerd
        "hub.test/team/app/manifests/{reference}",  # direct, or a mirror entry with a path
        "hub.test/team/app/manifests/{reference}?ns=hub.test",  # containerd with override_path
        "hub%2Etest/team%2Fapp/manifests/{reference}",
    ],
)
async def test_each_way_of_naming_gives_the_same_manifest_by_head_and_get_by_tag_and_digest(
    mirror: MirrorServer, path: str
) -> None:
    image = add_image(mirror.hub, "team/app", "1", LAYER)
    for reference in ("1", str(image.digest)):
        for method, body in (("HEAD", b""), ("GET", image.raw)):
            answer = await mirror.ask(method, f"/v2/{path.format(reference=reference)}")
            assert (answer.status, answer.body) == (200, body)
            assert answer.headers["Content-Type"] == OCI_MANIFEST
            assert answer.headers["Content-Length"] == str(len(image.raw))
            assert answer.headers["Docker-Content-Digest"] == str(image.digest)
            assert answer.headers["ETag"] == f'"{image.digest}"'
            assert answer.headers.get("OCI-Namespace") == (HUB if "?ns=" in path else None)
    assert mirror.hub.count("GET", "/manifests/") == 1


async def test_a_manifest_may_be_known_by_its_sha512_digest(mirror: MirrorServer) -> None:
    image = add_image(mirror.hub, "team/app", "1", LAYER)
    digest = str(Digest.of(image.raw, "sha512"))
    mirror.hub.manifests["team/app", digest] = (image.raw, OCI_MANIFEST)
    for method, body in (("HEAD", b""), ("GET", image.raw), ("GET", image.raw)):
        answer = await mirror.ask(method, f"/v2/team/app/manifests/{digest}")
        assert (answer.status, answer.body, answer.headers["Docker-Content-Digest"]) == (200, body, digest)
    mirror.hub.manifests["team/app", digest] = (image.raw + b" ", OCI_MANIFEST)
    assert (await mirror.get(f"/v2/team/app/manifests/{digest}")).body == image.raw
    wrong = str(Digest.of(b"something else", "sha512"))
    mirror.hub.manifests["team/app", wrong] = (image.raw, OCI_MANIFEST)
    assert (await mirror.get(f"/v2/team/app/manifests/{wrong}")).status == 502


@pytest.mark.parametrize(
    ("namespace", "stated"),
    [("hub.test", "hub.test"), ("HUB.test", "HUB.test"), ("alias.test", "alias.test"), ("docker.io", None)],
)
async def test_the_namespace_that_was_used_is_stated_as_the_client_wrote_it(
    tmp_path: Path, namespace: str, stated: str | None
) -> None:
    async with mirror_server(tmp_path, upstream={"aliases": ["alias.test"]}) as mirror:
        image = add_image(mirror.hub, "team/app", "1", LAYER)
        path = f"/v2/team/app/manifests/1?ns={namespace}"
        path = path if stated else f"/v2/hub.test{path.removeprefix('/v2')}"
        for _ in range(2):
            answer = await mirror.get(path)
            assert (answer.status, answer.body, answer.headers.get("OCI-Namespace")) == (200, image.raw, stated)


async def test_accept_changes_nothing_where_the_hub_gives_what_there_is(mirror: MirrorServer) -> None:
    raw = b'{"schemaVersion": 2, "manifests": []}'
    mirror.hub.add_manifest("team/app", "all", raw, DOCKER_LIST)
    for accept in (OCI_MANIFEST, "*/*", "application/json", ""):
        answer = await mirror.get("/v2/team/app/manifests/all", Accept=accept, Accept_Encoding="zstd;q=1.0, gzip;q=0.8")
        assert (answer.status, answer.body, answer.headers["Content-Type"]) == (200, raw, DOCKER_LIST)
        assert "Content-Encoding" not in answer.headers


@pytest.mark.parametrize("condition", ['"{digest}"', 'W/"{digest}"', '"other", "{digest}"', "*"])
async def test_a_manifest_that_the_client_has_is_not_sent_again(mirror: MirrorServer, condition: str) -> None:
    image = add_image(mirror.hub, "team/app", "1", LAYER)
    answer = await mirror.get("/v2/team/app/manifests/1", If_None_Match=condition.format(digest=image.digest))
    assert (answer.status, answer.body) == (304, b"")
    assert answer.headers["ETag"] == f'"{image.digest}"'


async def test_after_a_head_the_digest_stays_servable_though_the_tag_moves_and_the_hub_goes(mirror: MirrorServer) -> None:
    image = add_image(mirror.hub, "team/app", "1", LAYER)
    assert (await mirror.head("/v2/team/app/manifests/1")).headers["Docker-Content-Digest"] == str(image.digest)
    moved = add_image(mirror.hub, "team/app", "1", LAYER + b"moved")
    assert (await mirror.head("/v2/team/app/manifests/1")).headers["Docker-Content-Digest"] == str(moved.digest)
    await mirror.hub.kill()
    for known in (image, moved):
        assert (await mirror.get(f"/v2/team/app/manifests/{known.digest}")).body == known.raw


async def test_blobs_by_head_get_and_range_with_the_cache_result(mirror: MirrorServer) -> None:
    image = add_image(mirror.hub, "team/app", "1", LAYER)
    await mirror.get("/v2/team/app/manifests/1")
    path = f"/v2/team/app/blobs/{image.layer}?ns={HUB}"
    head = await mirror.head(path)
    assert (head.status, head.headers["Content-Length"], head.headers["Accept-Ranges"]) == (200, str(len(LAYER)), "bytes")
    assert mirror.hub.count("HEAD", "/blobs/") == mirror.hub.count("GET", "/blobs/") == 0  # The manifest says how long it is.
    cold = await mirror.get(path)
    assert (cold.status, cold.body, cold.headers["X-Debark-Cache"]) == (200, LAYER, "miss")
    same = ("Content-Type", "Content-Length", "Docker-Content-Digest", "ETag", "OCI-Namespace", "Docker-Distribution-Api-Version")
    assert [head.headers[name] for name in same] == [cold.headers[name] for name in same]
    await until((mirror.data / f"blobs/sha256/{image.layer.hex[:2]}/{image.layer.hex}").exists)
    warm = await mirror.get(path, Range="bytes=1000-")
    assert (warm.status, warm.body, warm.headers["X-Debark-Cache"]) == (206, LAYER[1000:], "hit")
    assert warm.headers["Docker-Content-Digest"] == str(image.layer)


async def test_a_blob_under_a_repository_that_no_manifest_ties_it_to_is_the_hubs_to_confirm(mirror: MirrorServer) -> None:
    image = add_image(mirror.hub, "team/app", "1", LAYER)
    assert (await mirror.get(f"/v2/team/app/blobs/{image.layer}")).body == LAYER
    assert mirror.hub.count("HEAD", "/blobs/") == 1
    del mirror.hub.blobs[str(image.layer)]
    answer = await mirror.get(f"/v2/other/app/blobs/{image.layer}")
    assert (answer.status, answer.code) == (404, "BLOB_UNKNOWN")
    assert (await mirror.get(f"/v2/team/app/blobs/{image.layer}")).body == LAYER


@pytest.mark.parametrize("chunked", [False, True])
async def test_head_of_a_blob_of_unknown_length(mirror: MirrorServer, *, chunked: bool) -> None:
    large = bytes(1000) * 5000
    digest = mirror.hub.add_blob(large)
    mirror.hub.faults = Faults(no_head_length=True, chunked=chunked)
    head = await mirror.head(f"/v2/team/app/blobs/{digest}")
    assert (head.status, head.headers["Content-Length"], head.body) == (200, str(len(large)), b"")
    # Nothing but receiving all of it tells how long it is where its content does not say so either.
    ranges = [seen.range for seen in mirror.hub.seen if seen.method == "GET"]
    assert ranges == (["bytes=0-0", None] if chunked else ["bytes=0-0"])
    assert (await mirror.get(f"/v2/team/app/blobs/{digest}")).body == large


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("Upper/case/manifests/1", 400, "NAME_INVALID"),
        ("team/app/manifests/-tag", 400, "MANIFEST_INVALID"),
        ("team/app/manifests/1%0d%0aSet-Cookie", 400, "MANIFEST_INVALID"),
        ("team/app/manifests/sha256:short", 400, "DIGEST_INVALID"),
        ("team/app/blobs/latest", 400, "DIGEST_INVALID"),
        ("team/../app/manifests/%2e%2e", 400, "NAME_INVALID"),
        ("elsewhere.example.org/app/manifests/1", 404, "NAME_UNKNOWN"),
        ("app/manifests/1?ns=169.254.169.254", 404, "NAME_UNKNOWN"),
        ("team/app/manifests/never", 404, "MANIFEST_UNKNOWN"),
        (f"team/app/manifests/{NOWHERE}", 404, "MANIFEST_UNKNOWN"),
        (f"team/app/blobs/{NOWHERE}", 404, "BLOB_UNKNOWN"),
        ("team/app/tags/list", 404, "NAME_UNKNOWN"),
        ("team/app/uploads/", 404, "NAME_UNKNOWN"),
    ],
)
async def test_what_cannot_be_answered_is_an_error_that_clients_understand(
    mirror: MirrorServer, path: str, status: int, code: str
) -> None:
    answer = await mirror.get(f"/v2/{path}")
    assert (answer.status, answer.code) == (status, code)
    assert answer.message
    assert answer.headers["Content-Type"].startswith("application/json")
    head = await mirror.head(f"/v2/{path}")
    assert (head.status, head.body) == (status, b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_writing_is_not_offered(mirror: MirrorServer, method: str) -> None:
    answer = await mirror.ask(method, "/v2/team/app/manifests/1")
    assert (answer.status, answer.code) == (405, "UNSUPPORTED")
    assert set(answer.headers["Allow"].split(",")) == {"GET", "HEAD"}


@pytest.mark.parametrize(
    ("hub_status", "headers", "status", "code", "retry_after"),
    [
        (429, {"Retry-After": "30"}, 503, "UNAVAILABLE", "30"),
        (503, {}, 503, "UNAVAILABLE", "1"),
        (500, {}, 503, "UNAVAILABLE", "1"),
        (403, {}, 403, "DENIED", None),
        (404, {}, 404, "MANIFEST_UNKNOWN", None),
    ],
)
async def test_a_hub_that_does_not_give_it_is_an_answer_from_which_clients_fall_back(
    mirror: MirrorServer, hub_status: int, headers: dict[str, str], status: int, code: str, retry_after: str | None
) -> None:
    mirror.hub.faults.status, mirror.hub.faults.headers = hub_status, headers
    answer = await mirror.get("/v2/team/app/manifests/1")
    assert (answer.status, answer.code, answer.headers.get("Retry-After")) == (status, code, retry_after)
    assert HUB in answer.message


async def test_a_wrong_manifest_is_no_answer(mirror: MirrorServer) -> None:
    add_image(mirror.hub, "team/app", "1", LAYER)
    mirror.hub.faults.wrong_content = True
    answer = await mirror.get("/v2/team/app/manifests/1")
    assert (answer.status, answer.code) == (502, "UPSTREAM_INVALID")


@pytest.mark.parametrize(
    "layer",
    [
        {"mediaType": "a", "digest": str(NOWHERE), "size": 10**30},
        {"mediaType": "\ud800", "digest": str(NOWHERE), "size": 1},
        {"mediaType": "a", "digest": "sha256:", "size": 1},
    ],
)
async def test_a_manifest_that_makes_no_sense_is_passed_on_as_it_is(mirror: MirrorServer, layer: dict[str, object]) -> None:
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": str(NOWHERE), "size": 1}
    raw = json.dumps({"schemaVersion": 2, "config": config, "layers": [layer]}).encode()
    mirror.hub.add_manifest("team/app", "1", raw)
    for _ in range(2):
        answer = await mirror.get("/v2/team/app/manifests/1")
        assert (answer.status, answer.body) == (200, raw)


async def test_a_type_that_no_header_takes_is_not_passed_on(mirror: MirrorServer) -> None:
    image = add_image(mirror.hub, "team/app", "1", LAYER)
    mirror.hub.faults.content_type = "application/\u00e4"
    answer = await mirror.get("/v2/team/app/manifests/1")
    assert (answer.status, answer.body, answer.headers["Content-Type"]) == (200, image.raw, OCI_MANIFEST)


async def test_the_last_known_answer_is_given_when_the_hub_is_down_and_says_so(mirror: MirrorServer) -> None:
    image = add_image(mirror.hub, "team/app", "1", LAYER)
    for path in ("manifests/1", f"blobs/{image.config}", f"blobs/{image.layer}"):
        await mirror.get(f"/v2/team/app/{path}")
    await mirror.hub.kill()
    answer = await mirror.get("/v2/team/app/manifests/1")
    assert (answer.status, answer.body, answer.headers["X-Debark-Cache"]) == (200, image.raw, "stale")


async def test_a_pull_asks_for_publishing_and_the_next_answer_tells_the_state(mirror: MirrorServer) -> None:
    image = add_image(mirror.hub, "team/app", "1", LAYER)
    assert "X-CVMFS-State" not in (await mirror.get("/v2/team/app/manifests/1")).headers

    headers: Mapping[str, str] = {}
    async with asyncio.timeout(10):
        while "X-CVMFS-State" not in headers:
            await asyncio.sleep(0.05)
            headers = (await mirror.head("/v2/team/app/manifests/1")).headers
    assert headers["X-CVMFS-State"] == "queued"
    document = json.loads((await mirror.get("/_debark/v1/images?ref=docker://hub.test/team/app:1")).body)
    assert (document["state"], document["manifest"], document["path"]) == ("queued", str(image.digest), None)


async def test_every_answer_has_an_id_that_the_logs_have_too(mirror: MirrorServer) -> None:
    image = add_image(mirror.hub, "team/app", "1", LAYER)
    paths = ["/v2/", "/v2/team/app/manifests/1", f"/v2/team/app/blobs/{image.layer}", "/v2/team/app/tags/list", "/nothing"]
    ids = [(await mirror.get(path)).headers["X-Request-Id"] for path in paths]
    assert len(set(ids)) == len(paths)


@pytest.mark.parametrize("stated", [DOCKER_SCHEMA1_SIGNED, DOCKER_SCHEMA1, "application/json"])
async def test_schema_1_is_refused_in_words(mirror: MirrorServer, stated: str) -> None:
    raw = b'{"schemaVersion": 1, "name": "team/old", "tag": "1", "fsLayers": [], "history": [], "signatures": []}'
    digest = mirror.hub.add_manifest("team/old", "1", raw, stated)
    for reference in ("1", str(digest)):
        answer = await mirror.get(f"/v2/team/old/manifests/{reference}")
        assert (answer.status, answer.code) == (400, "MANIFEST_INVALID")
        assert "schema 1" in answer.message
    assert (await mirror.get("/_debark/v1/images?ref=team/old:1")).status == 404
