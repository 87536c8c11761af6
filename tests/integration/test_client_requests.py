"""What well-known clients send, answered by a mirror as the hub would: cold and warm, in an outage, after a cut."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.debark_process import IMPATIENT, DebarkProcess, wait_until
from tests.support.hub import Hub
from tests.support.raw_http import RawConnection
from tests.support.registry_client import DOCKER_MANIFEST, OCI_MANIFEST, digest_of
from tests.support.small_images import Image, Layer, directory, file, many_platforms, push_index, tiny
from tests.support.wire import Wire
from tests.support.wire_clients import CLIENTS, Puller, WireClient

DEFAULT = 'default_upstream = "hub.test"\n'
ZSTD_LAYER = "application/vnd.oci.image.layer.v1.tar+zstd"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


@pytest.fixture(scope="module")
def mirror(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DebarkProcess]:
    """With the hub as default upstream, so that every way of naming it leads there."""
    with DebarkProcess(tmp_path_factory.mktemp("debark"), {"hub.test": hub.url}, DEFAULT + IMPATIENT) as started:
        yield started


@pytest.fixture(params=CLIENTS, ids=lambda client: client.name)
def client(request: pytest.FixtureRequest) -> WireClient:
    found: WireClient = request.param
    return found


def repository_of(client: WireClient) -> str:
    """One for each client, so that each one's first pull is cold."""
    return "clients/" + re.sub("[^a-z0-9]+", "-", client.name)


def blobs_of(*images: Image) -> dict[str, bytes]:
    return {digest_of(data): data for image in images for data in (image.config, *(layer.packed for layer in image.layers))}


def test_an_index_is_pulled_cold_warm_and_without_the_hub_and_each_blob_fetched_once(
    hub: Hub, mirror: DebarkProcess, client: WireClient
) -> None:
    name = repository_of(client)
    image, other = tiny(client.name), many_platforms()[0]
    push_index(hub.client(), name, "1", [image, other])
    index = hub.client().manifest(name, "1").body
    taken = [image, other] if client.all_platforms else [image]
    for _ in range(2):
        pulled = Puller(client, mirror.address).pull(name, "1")
        assert pulled.manifests == (index, *(one.manifest for one in taken))
        assert pulled.blobs == blobs_of(*taken)
        assert all("OCI-Namespace" in reply.headers for request, reply in pulled.replies if client.namespace)
    assert Puller(client, mirror.address).pull(name, image.digest).blobs == blobs_of(image)
    fetched = f"/v2/{name}/blobs/{digest_of(image.config)}"
    _was_fetched_once(hub, fetched)


def test_in_an_outage_what_was_pulled_is_pulled_again_and_the_rest_is_a_503(tmp_path: Path) -> None:
    with Hub(tmp_path / "hub") as hub:
        push_index(hub.client(), "clients/outage", "1", [tiny("before the outage")])
        with DebarkProcess(tmp_path / "debark", {"hub.test": hub.url}, DEFAULT + IMPATIENT) as mirror:
            before = [Puller(client, mirror.address).pull("clients/outage", "1").blobs for client in CLIENTS]
            hub.stop()
            for client, blobs in zip(CLIENTS, before, strict=True):
                puller = Puller(client, mirror.address)
                assert puller.pull("clients/outage", "1").blobs == blobs
                for method in ("HEAD", "GET"):
                    reply = puller.manifest(method, "clients/never-pulled", "1")
                    assert reply.status == 503
                    assert int(reply.headers["Retry-After"]) >= 1
                puller.close()


def test_what_the_hub_does_not_have_is_a_404_with_words_that_name_it(hub: Hub, mirror: DebarkProcess, client: WireClient) -> None:
    tiny("here").push(hub.client(), repository_of(client), "here")
    puller = Puller(client, mirror.address)
    assert puller.manifest("HEAD", repository_of(client), "absent").status == 404
    reply = puller.manifest("GET", repository_of(client), "absent")
    error = json.loads(reply.body)["errors"][0]
    assert (reply.status, error["code"]) == (404, "MANIFEST_UNKNOWN")
    assert "hub.test" in error["message"]
    assert "absent" in error["message"]
    missing = {"digest": digest_of(b"nowhere"), "mediaType": ZSTD_LAYER}
    reply = puller.blob(repository_of(client), missing)
    assert (reply.status, json.loads(reply.body)["errors"][0]["code"]) == (404, "BLOB_UNKNOWN")
    puller.close()


def test_what_is_unpacked_is_announced_on_every_manifest_and_nowhere_else(
    hub: Hub, mirror: DebarkProcess, client: WireClient
) -> None:
    name = f"{repository_of(client)}/hint"
    image = tiny(f"hint for {client.name}")
    push_index(hub.client(), name, "1", [image])
    Puller(client, mirror.address).pull(name, "1")
    path = mirror.wait_for(f"hub.test/{name}:1")["path"]
    tag = f"/v2/hub.test/{name}/manifests/1"
    wait_until(lambda: "Warning" in mirror.client().head(tag).headers, 10, lambda: "the mirror does not see what is published")
    pulled = Puller(client, mirror.address).pull(name, "1")
    texts = set()
    for request, reply in pulled.replies:
        if "/manifests/" not in request:
            assert "Warning" not in reply.headers
            continue
        (warning,) = reply.headers.get_all("Warning", [])
        # What containers/image, ggcr and oras-go take to be shown: this code and agent, one quoted text, nothing behind it.
        shown = re.fullmatch(r'299 - "((?:[^"\\]|\\.)*)"', warning)
        assert shown is not None
        assert warning.isascii()
        assert path in shown[1]
        assert reply.headers["X-CVMFS-Path"] == path
        texts.add(warning)
    assert len(texts) == 1


@pytest.mark.parametrize("kind", ["zstd", "docker", "artifact"])
def test_whatever_is_in_it_comes_as_the_hub_has_it(hub: Hub, mirror: DebarkProcess, client: WireClient, kind: str) -> None:
    name = f"{repository_of(client)}/{kind}"
    layer = Layer.of(directory("etc"), file("etc/x", b"x"))
    config = json.dumps({"client": client.name, "kind": kind}).encode()
    layer_type, config_type, media_type = {
        "zstd": (ZSTD_LAYER, "application/vnd.oci.image.config.v1+json", OCI_MANIFEST),
        "docker": (DOCKER_LAYER, DOCKER_CONFIG, DOCKER_MANIFEST),
        "artifact": ("application/x.data", "application/x.config", OCI_MANIFEST),
    }[kind]
    described = [(config_type, config), (layer_type, layer.packed)]
    first, second = ({"mediaType": what, "digest": digest_of(data), "size": len(data)} for what, data in described)
    raw = json.dumps({"schemaVersion": 2, "mediaType": media_type, "config": first, "layers": [second]}, indent=5).encode()
    for data in (config, layer.packed):
        hub.client().push_blob(name, data)
    hub.client().push_manifest(name, "1", raw, media_type)
    pulled = Puller(client, mirror.address).pull(name, "1")
    assert pulled.manifests == (raw,)
    assert pulled.blobs == {digest_of(config): config, digest_of(layer.packed): layer.packed}


def test_a_cut_pull_goes_on_where_it_broke_while_the_blob_is_still_on_its_way(tmp_path: Path) -> None:
    with (
        Hub(tmp_path / "hub") as hub,
        Wire(hub.address, 8 * 1024 * 1024) as wire,
        DebarkProcess(tmp_path / "debark", {"hub.test": wire.url}, DEFAULT + IMPATIENT) as mirror,
    ):
        for client in CLIENTS:
            if client.resumes:
                _cut_and_resumed(hub, mirror, client)


def _cut_and_resumed(hub: Hub, mirror: DebarkProcess, client: WireClient) -> None:
    name = repository_of(client)
    data = client.name.encode() + bytes(range(256)) * (16 * 1024)
    Image((Layer(data, digest_of(data)),)).push(hub.client(), name, "1")
    descriptor = {"digest": digest_of(data), "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip"}
    puller = Puller(client, mirror.address)
    assert puller.manifest("GET", name, "1").status == 200
    with RawConnection(mirror.address) as connection:
        path = f"{client.way.format(name=name)}/blobs/{descriptor['digest']}"
        query = f"?ns={client.namespace}" if client.namespace else ""
        connection.send(f"GET {path}{query} HTTP/1.1\r\nHost: {mirror.address}\r\n\r\n".encode())
        beginning = connection.some_body(200_000)
    reply = puller.blob(name, descriptor, start=len(beginning))
    puller.close()
    assert reply.status == 206
    assert reply.headers["Content-Range"] == f"bytes {len(beginning)}-{len(data) - 1}/{len(data)}"
    assert beginning + reply.body == data
    fetched = f"/v2/{name}/blobs/{descriptor['digest']}"
    _was_fetched_once(hub, fetched)


def _was_fetched_once(hub: Hub, path: str) -> None:
    """By the mirror: the publisher's own client asks, too, when it finds out whether everybody gets it."""
    # The registry writes its log behind its answers.
    wait_until(lambda: hub.requests("GET", path, "debark/") > 0, 30, lambda: f"the hub was not asked for {path}")
    assert hub.requests("GET", path, "debark/") == 1
