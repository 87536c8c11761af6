"""Images as real tools make them, through a real hub and a real publisher, compared with what umoci unpacks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support import compressed, image_zoo
from tests.support.clients import Skopeo
from tests.support.comparison import differences
from tests.support.debark_process import DebarkProcess
from tests.support.hub import Hub
from tests.support.published import flat_tree, open_repository, problems
from tests.support.registry_client import OCI_LAYER_GZIP, digest_of
from tests.support.small_images import Image, Layer
from tests.support.tar_zoo import HAND_MADE, write_layout
from tests.support.unpacked import unpack

OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
ZSTD = b"\x28\xb5\x2f\xfd"
GZIP = b"\x1f\x8b"


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_zoo.build(tmp_path_factory.mktemp("image-zoo"))


def _publish(debark: DebarkProcess, skopeo: Skopeo, name: str) -> dict[str, Any]:
    skopeo.pull(f"{debark.address}/hub.test/{name}", "pulled")
    return debark.wait_for(f"hub.test/{name}")


def _first_layer(hub: Hub, repository: str, tag: str) -> tuple[str, bytes]:
    """Media type and content of the lowest layer."""
    layer = hub.client().manifest(repository, tag).json()["layers"][0]
    return layer["mediaType"], hub.client().blob(repository, layer["digest"]).body


def _check(debark: DebarkProcess, image: dict[str, Any], layout: Path, tag: str) -> None:
    assert differences(unpack(layout, tag), flat_tree(debark, image)) == []
    assert problems(debark, image["fqrn"]) == []


@pytest.mark.parametrize("tag", [image_zoo.BASE, image_zoo.CHANGED])
def test_what_buildah_and_umoci_make(tag: str, layout: Path, hub: Hub, debark: DebarkProcess, skopeo: Skopeo) -> None:
    skopeo.push(layout, tag, f"{hub.address}/zoo/made:{tag}")
    image = _publish(debark, skopeo, f"zoo/made:{tag}")
    _check(debark, image, layout, tag)
    assert image["notes"]["setuid_kept"] >= 1
    told = debark.run("where", "-v", f"docker://hub.test/zoo/made:{tag}")
    assert (told.returncode, told.stdout) == (0, image["path"] + "\n")
    assert "files with set-user-ID or set-group-ID, as in the image" in told.stderr


def test_layers_that_skopeo_compresses_with_zstd(
    layout: Path, hub: Hub, debark: DebarkProcess, skopeo: Skopeo, tmp_path: Path
) -> None:
    image_zoo.label(layout, image_zoo.CHANGED, "zstd")
    image_zoo.push_compressed(skopeo, layout, "zstd", f"{hub.address}/zoo/zstd:zstd", tmp_path)
    media_type, packed = _first_layer(hub, "zoo/zstd", "zstd")
    assert media_type == OCI_LAYER_ZSTD
    assert packed.startswith(ZSTD)
    _check(debark, _publish(debark, skopeo, "zoo/zstd:zstd"), layout, "zstd")


@pytest.mark.parametrize(
    ("form", "media_type"), [("chunked", OCI_LAYER_ZSTD), ("estargz", OCI_LAYER_GZIP), ("chunked", OCI_LAYER_GZIP)]
)
def test_layers_that_can_be_read_in_pieces(
    form: str, media_type: str, hub: Hub, debark: DebarkProcess, skopeo: Skopeo, tmp_path: Path
) -> None:
    """Also where the media type is wrong: the first bytes tell."""
    archives = HAND_MADE["hard link of a hard link below"]
    packer = getattr(compressed, form)
    layers = tuple(Layer(packer(archive), digest_of(archive), media_type) for archive in archives)
    name = f"zoo/pieces:{form}{len(media_type)}"
    Image(layers, settings={"Labels": {"form": name}}).push(hub.client(), "zoo/pieces", name.partition(":")[2])
    (tag,) = write_layout(tmp_path / "layout", {form: archives})
    _check(debark, _publish(debark, skopeo, name), tmp_path / "layout", tag)


def test_the_same_layers_in_two_compressions_are_the_same_files(
    layout: Path, hub: Hub, debark: DebarkProcess, skopeo: Skopeo
) -> None:
    """They have directories of their own, by the digests of their blobs, with the same objects."""
    skopeo.push(layout, image_zoo.CHANGED, f"{hub.address}/zoo/made:again")
    images = [_publish(debark, skopeo, name) for name in ("zoo/made:again", "zoo/zstd:zstd")]
    assert images[0]["fqrn"] == images[1]["fqrn"]
    reader = open_repository(debark, images[0]["fqrn"])
    facts = []
    for image in images:
        name = image["path"].partition(f"/cvmfs/{image['fqrn']}/")[2]
        manifest = json.loads(reader.read(f".metadata/{name}/manifest.json".encode()))
        hexes = [layer["digest"].partition(":")[2] for layer in manifest["layers"]]
        trees = [reader.tree(f".layers/{digest[:2]}/{digest}/layerfs".encode()) for digest in hexes]
        facts.append([[(path, entry.mode, entry.mtime, entry.content) for path, entry in tree.walk()] for tree in trees])
    assert facts[0] == facts[1]
    assert len(facts[0]) >= 5


def test_dockers_own_media_types(layout: Path, hub: Hub, debark: DebarkProcess, skopeo: Skopeo) -> None:
    image_zoo.label(layout, image_zoo.BASE, "docker")
    skopeo.convert(f"oci:{layout}:docker", f"docker://{hub.address}/zoo/docker:1", "--format=v2s2", "--dest-tls-verify=false")
    media_type, packed = _first_layer(hub, "zoo/docker", "1")
    assert media_type == "application/vnd.docker.image.rootfs.diff.tar.gzip"
    assert packed.startswith(GZIP)
    _check(debark, _publish(debark, skopeo, "zoo/docker:1"), layout, "docker")
