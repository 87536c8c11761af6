"""Images for several platforms, pulled by real clients: one path for each that scripts can compute; and what is no image."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.clients import Skopeo
from tests.support.debark_process import DebarkProcess, wait_until
from tests.support.hub import Hub
from tests.support.published import follow, inside, open_repository, problems
from tests.support.registry_client import OCI_INDEX, OCI_MANIFEST, RegistryClient, digest_of
from tests.support.small_images import many_platforms, push_index, tiny

NAME = "hub.test/platforms/many"
ARM64, AMD64, ATTESTATION = many_platforms()


@pytest.fixture(scope="module")
def index(hub: Hub, debark: DebarkProcess, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of an index, all of which was pulled by its tag: every child by its digest, as `skopeo copy --all` does."""
    digest = push_index(hub.client(), "platforms/many", "1", many_platforms())
    Skopeo(tmp_path_factory.mktemp("all")).pull(f"{debark.address}/{NAME}:1", "all", "--all")
    for platform in ("linux/amd64", "linux/arm64"):
        _wait_for(debark, f"{NAME}:1", platform)
    debark.wait_for(f"{NAME}:1")
    return digest


def _wait_for(debark: DebarkProcess, reference: str, platform: str, manifest: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}

    def is_published() -> bool:
        answer = debark.get(f"/_debark/v1/images?ref={reference}&platform={platform}")
        found.update(answer.json() if answer.status == 200 else {})
        return found.get("state") == "published" and manifest in ("", found["manifest"])

    wait_until(is_published, 60, lambda: f"{reference} for {platform} is {found}")
    return found


def test_each_platform_that_was_pulled_has_a_path_that_scripts_can_compute(index: str, debark: DebarkProcess) -> None:
    image = debark.wait_for(f"{NAME}:1")
    assert image["target"] == index
    root = f"/cvmfs/{image['fqrn']}"
    assert image["path"] == f"{root}/{NAME}:1"
    paths = {found["platform"]: found["path"] for found in image["platforms"]}
    assert paths == {platform: f"{root}/.multiarch/{platform[6:]}/{NAME}:1" for platform in ("linux/amd64", "linux/arm64")}
    reader = open_repository(debark, image["fqrn"])
    for machine, architecture in {"x86_64": "amd64", "aarch64": "arm64"}.items():
        alias = reader.lookup(f".multiarch/{machine}".encode())
        assert alias is not None
        assert alias.symlink == architecture.encode()
    arm64 = follow(reader, f".multiarch/arm64/{NAME}:1".encode())
    assert reader.read(arm64 + b"/etc/arch") == b"arm64\n"
    assert follow(reader, f".multiarch/amd64/{NAME}:1".encode()) == follow(reader, inside(image))
    assert reader.read(f".metadata/.multiarch/arm64/{NAME}:1/manifest.json".encode()) == ARM64.manifest
    assert problems(debark, image["fqrn"]) == []


def test_the_attestation_is_mirrored_and_never_published(index: str, debark: DebarkProcess) -> None:
    image = debark.wait_for(f"{NAME}@{ATTESTATION.digest}", ("not-an-image",))
    assert image["path"] is None
    answer = debark.client().manifest(NAME, ATTESTATION.digest)
    assert (answer.status, answer.body) == (200, ATTESTATION.manifest)
    assert answer.headers["X-CVMFS-State"] == "not-an-image"
    config = digest_of(ATTESTATION.config).removeprefix("sha256:")
    for repository in debark.repositories():
        assert open_repository(debark, repository["fqrn"]).lookup(f".flat/{config[:2]}/{config}".encode()) is None


def test_the_hint_for_a_child_names_the_path_of_its_platform(index: str, debark: DebarkProcess) -> None:
    image = debark.wait_for(f"{NAME}:1")
    by_platform = {found["platform"]: found["path"] for found in image["platforms"]}
    wanted = {"1": image["path"], index: image["path"], AMD64.digest: image["path"], ARM64.digest: by_platform["linux/arm64"]}
    for reference, path in wanted.items():
        answer = debark.client().manifest(NAME, reference)
        assert answer.headers["X-CVMFS-Path"] == path, reference
        assert path in answer.headers["Warning"]


def test_where_knows_platforms(index: str, debark: DebarkProcess) -> None:
    path = debark.wait_for(f"{NAME}:1")["path"]
    for platform in ("linux/arm64", "aarch64"):
        done = debark.run("where", "--platform", platform, f"docker://{NAME}:1")
        assert (done.returncode, done.stdout.strip()) == (0, path.replace("/hub.test/", "/.multiarch/arm64/hub.test/"))
    done = debark.run("where", "--platform", "s390x", f"docker://{NAME}:1")
    assert done.returncode == 5
    assert "linux/amd64, linux/arm64" in done.stderr


def test_a_tag_that_moves_takes_all_its_platforms_along(index: str, hub: Hub, debark: DebarkProcess, skopeo: Skopeo) -> None:
    assert index
    newer = (tiny("newer amd64"), type(ARM64)(tiny("newer arm64").layers, architecture="arm64"))
    push_index(hub.client(), "platforms/many", "1", newer)
    skopeo.pull(f"{debark.address}/{NAME}:1", "moved")  # the amd64 image only: nobody pulls the other one
    image = debark.wait_for(f"{NAME}:1", manifest=newer[0].digest)
    arm64 = _wait_for(debark, f"{NAME}:1", "arm64", newer[1].digest)
    assert arm64["fqrn"] == image["fqrn"]
    reader = open_repository(debark, image["fqrn"])
    assert reader.read(follow(reader, inside(image)) + b"/etc/motd") == b"newer amd64"
    assert reader.read(follow(reader, inside(arm64)) + b"/etc/motd") == b"newer arm64"
    config = digest_of(ARM64.config).removeprefix("sha256:")
    assert reader.lookup(f".flat/{config[:2]}/{config}".encode()) is not None
    by_digest = debark.client().manifest(NAME, AMD64.digest)
    assert by_digest.status == 200


def test_an_index_in_an_index_is_published_like_any_other(hub: Hub, debark: DebarkProcess) -> None:
    client = hub.client()
    inner = push_index(client, "platforms/nested", "inner", (AMD64, ARM64))
    entry = {"mediaType": OCI_INDEX, "digest": inner, "size": len(client.manifest("platforms/nested", "inner").body)}
    outer = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}).encode()
    digest = client.push_manifest("platforms/nested", "1", outer, OCI_INDEX)
    assert debark.client().manifest("hub.test/platforms/nested", "1").body == outer
    image = debark.wait_for("hub.test/platforms/nested:1")
    assert (image["target"], image["manifest"]) == (digest, AMD64.digest)


def test_an_artifact_is_mirrored_and_where_says_at_once_that_it_is_no_image(hub: Hub, debark: DebarkProcess) -> None:
    artifact = _push_artifact(hub.client(), "platforms/chart", "1")
    answer = debark.client().manifest("hub.test/platforms/chart", "1")
    assert (answer.status, answer.body) == (200, artifact)
    debark.wait_for("hub.test/platforms/chart:1", ("not-an-image",))
    done = debark.run("where", "--wait", "docker://hub.test/platforms/chart:1")
    assert done.returncode == 4
    assert "no container image but application/vnd.example.chart" in done.stdout
    wait_until(
        lambda: debark.client().manifest("hub.test/platforms/chart", "1").headers["X-CVMFS-State"] == "not-an-image",
        20,
        lambda: "the mirror does not say so",
    )


def _push_artifact(client: RegistryClient, repository: str, tag: str) -> bytes:
    """An OCI 1.1 artifact: with an artifactType, and an empty config."""
    content = b"a chart"
    for data in (b"{}", content):
        client.push_blob(repository, data)
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": "application/vnd.example.chart",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest_of(b"{}"), "size": 2},
        "layers": [{"mediaType": "application/octet-stream", "digest": digest_of(content), "size": len(content)}],
    }
    raw = json.dumps(document).encode()
    client.push_manifest(repository, tag, raw, OCI_MANIFEST)
    return raw
