"""Whatever types of manifest a client takes: status, digest and bytes are those of a real docker-registry."""

from __future__ import annotations

import json

import pytest

from mirror.oci.manifest import DOCKER_LIST, DOCKER_MANIFEST, DOCKER_SCHEMA1_SIGNED, OCI_INDEX, OCI_MANIFEST
from tests.support.debark_process import DebarkProcess
from tests.support.hub import Hub
from tests.support.registry_client import RegistryClient, digest_of

LAYER = b"no archive, but bytes"
REPOSITORY = "negotiated/app"
ALL = ", ".join((OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST))


def push(hub: Hub, tag: str, index_type: str, image_type: str) -> dict[str, bytes]:
    """An index of images for two machines; what was pushed, by tag or architecture."""
    client = hub.client()
    pushed, manifests = {}, []
    layer_type = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    layer = {"mediaType": layer_type, "digest": client.push_blob(REPOSITORY, LAYER), "size": len(LAYER)}
    for architecture in ("arm64", "amd64"):
        document = {"os": "linux", "architecture": architecture, "history": [{"created_by": "a test"}]}
        config = json.dumps({**document, "rootfs": {"type": "layers", "diff_ids": [digest_of(LAYER)]}}).encode()
        named = {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "digest": client.push_blob(REPOSITORY, config),
            "size": len(config),
        }
        image = json.dumps({"schemaVersion": 2, "mediaType": image_type, "config": named, "layers": [layer]}).encode()
        digest = client.push_manifest(REPOSITORY, digest_of(image), image, image_type)
        platform = {"os": "linux", "architecture": architecture}
        manifests.append({"mediaType": image_type, "digest": digest, "size": len(image), "platform": platform})
        pushed[architecture] = image
    pushed[tag] = json.dumps({"schemaVersion": 2, "mediaType": index_type, "manifests": manifests}).encode()
    client.push_manifest(REPOSITORY, tag, pushed[tag], index_type)
    return pushed


@pytest.mark.parametrize(
    ("tag", "index_type", "image_type"), [("docker", DOCKER_LIST, DOCKER_MANIFEST), ("oci", OCI_INDEX, OCI_MANIFEST)]
)
def test_no_client_that_says_what_it_takes_can_tell_the_mirror_from_the_hub(
    hub: Hub, debark: DebarkProcess, tag: str, index_type: str, image_type: str
) -> None:
    pushed = push(hub, tag, index_type, image_type)
    for accept in (ALL, DOCKER_MANIFEST, index_type, f"{DOCKER_MANIFEST}, {OCI_MANIFEST}", ALL, DOCKER_MANIFEST):
        for method in ("GET", "HEAD"):
            at_hub = _ask(hub.client(), method, f"/v2/{REPOSITORY}/manifests/{tag}", accept)
            at_mirror = _ask(RegistryClient(debark.address), method, f"/v2/hub.test/{REPOSITORY}/manifests/{tag}", accept)
            assert at_mirror == at_hub, accept
            if method == "GET" and accept == DOCKER_MANIFEST:
                # The hub does honour what it is asked with.
                assert (at_hub[0], at_hub[-1]) == ((200, pushed["amd64"]) if tag == "docker" else (404, b""))


def test_a_client_of_oci_types_gets_a_list_that_the_hub_would_turn_into_schema_1(hub: Hub, debark: DebarkProcess) -> None:
    pushed = push(hub, "docker", DOCKER_LIST, DOCKER_MANIFEST)
    accept = f"{OCI_MANIFEST}, {OCI_INDEX}"
    at_hub = _ask(hub.client(), "GET", f"/v2/{REPOSITORY}/manifests/docker", accept)
    assert at_hub[2] == DOCKER_SCHEMA1_SIGNED
    at_mirror = _ask(RegistryClient(debark.address), "GET", f"/v2/hub.test/{REPOSITORY}/manifests/docker", accept)
    assert at_mirror == (200, digest_of(pushed["docker"]), DOCKER_LIST, pushed["docker"])


def _ask(client: RegistryClient, method: str, path: str, accept: str) -> tuple[int, str | None, str | None, bytes]:
    """Status, digest, media type and bytes; of an error, only that it is one."""
    answer = client.ask(method, path, {"Accept": accept})
    if answer.status != 200:
        return answer.status, None, None, b""
    return answer.status, answer.headers["Docker-Content-Digest"], answer.headers["Content-Type"], answer.body
