"""Layers that are kept elsewhere: refused with the reason, or fetched from registries that the operator knows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mirror.errors import InvalidInput
from mirror.jobs.model import State
from mirror.oci.digest import Digest
from mirror.oci.manifest import Descriptor, ImageManifest
from mirror.oci.reference import RepositoryName
from mirror.upstream.model import Upstream
from publisher.foreign import ForeignLayers, is_foreign
from publisher.images import layout
from tests.support.faulty_registry import FaultyRegistry
from tests.support.publishing import publishing
from tests.support.small_images import Image, Layer, file

DOCKER = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
DIGEST = Digest.of(b"layer")
KNOWN = (Upstream("mcr.microsoft.com", "https://mcr.microsoft.com"), Upstream("far.test", "https://far.test:5000/prefix/"))
IMAGE = RepositoryName("docker.io", "team/app")
GOOD = f"https://mcr.microsoft.com/v2/windows/nanoserver/blobs/{DIGEST}"


def layer(*urls: str, media_type: str = DOCKER) -> Descriptor:
    return Descriptor(media_type, DIGEST, 5, urls=urls)


def manifest(of: Descriptor) -> ImageManifest:
    config = Descriptor("application/vnd.docker.container.image.v1+json", Digest.of(b"config"), 6)
    return ImageManifest("application/vnd.docker.distribution.manifest.v2+json", config, (of,))


@pytest.mark.parametrize(
    ("media_type", "foreign"),
    [
        (DOCKER, True),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar", True),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", True),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+zstd", True),
        ("application/vnd.oci.image.layer.v1.tar+zstd", False),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", False),
    ],
)
def test_media_types_say_which_layers_are_foreign(media_type: str, foreign: bool) -> None:
    assert is_foreign(layer(GOOD, media_type=media_type)) is foreign


def test_by_default_they_are_refused() -> None:
    with pytest.raises(InvalidInput, match=rf"layer {DIGEST} is foreign.*base layers of Windows.*publish\.foreign_layers"):
        ForeignLayers(KNOWN).check(manifest(layer(GOOD)))
    ForeignLayers(KNOWN).check(manifest(layer(GOOD, media_type="application/vnd.oci.image.layer.v1.tar+gzip")))


@pytest.mark.parametrize(
    ("urls", "home"),
    [
        ((GOOD,), "mcr.microsoft.com/windows/nanoserver"),
        (("https://elsewhere.test/x", GOOD), "mcr.microsoft.com/windows/nanoserver"),
        ((f"https://far.test:5000/prefix/v2/a/b/c/blobs/{DIGEST}",), "far.test/a/b/c"),
    ],
)
def test_they_are_fetched_from_registries_that_are_upstreams(urls: tuple[str, ...], home: str) -> None:
    layers = ForeignLayers(KNOWN, fetch=True)
    layers.check(manifest(layer(*urls)))
    assert str(layers.home(IMAGE, layer(*urls))) == home
    ordinary = replace(layer(*urls), media_type="application/vnd.oci.image.layer.v1.tar")
    assert layers.home(IMAGE, ordinary) == IMAGE, "its own registry has it"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://go.microsoft.com/fwlink/?linkid=837858",
        GOOD.replace("https", "http"),
        GOOD.replace("mcr.microsoft.com", "mcr.microsoft.com.evil.test"),
        GOOD.replace("mcr.microsoft.com", "mcr.microsoft.com:8443"),
        GOOD.replace("mcr.microsoft.com", "user@evil.test"),
        GOOD.replace(str(DIGEST), str(Digest.of(b"another"))),
        GOOD.replace("windows/nanoserver", "../../internal"),
        GOOD.replace("/v2/", "/v1/"),
        f"https://far.test:5000/v2/a/blobs/{DIGEST}"[:-1],
        "http://[::1",
        f"/v2/windows/nanoserver/blobs/{DIGEST}",
    ],
)
def test_nothing_else_is_ever_asked(url: str) -> None:
    with pytest.raises(InvalidInput, match="none of its URLs"):
        ForeignLayers(KNOWN, fetch=True).check(manifest(layer(url)))


def _with_foreign_layer(hub: FaultyRegistry, url: str) -> tuple[Digest, Image]:
    """An image in `team/app` whose lower layer is in the registry's `windows/base`."""
    image = Image((Layer.of(file("base", b"from elsewhere")), Layer.of(file("own"))))
    document: dict[str, Any] = json.loads(image.manifest)
    document["layers"][0] |= {"mediaType": DOCKER, "urls": [f"{url}/v2/windows/base/blobs/{document['layers'][0]['digest']}"]}
    for data in (image.config, *(layer.packed for layer in image.layers)):
        hub.add_blob(data)
    return hub.add_manifest("team/app", "1", json.dumps(document).encode()), image


async def test_an_image_with_a_foreign_layer_is_refused_or_published(tmp_path: Path) -> None:
    async with FaultyRegistry() as hub:
        for number, setting in enumerate(("", 'foreign_layers = "fetch"\n')):
            directory = tmp_path / str(number)
            directory.mkdir()
            async with publishing(directory, hub, setting) as here, here.publisher():
                digest, image = _with_foreign_layer(hub, hub.url)
                await here.request("hub.test/team/app:1", digest)
                if not setting:
                    status = await here.reach("hub.test/team/app:1", {State.REFUSED})
                    assert "is foreign" in (status.reason or "")
                    assert hub.count("GET", "/windows/base/") == 0
                    continue
                await here.published("hub.test/team/app:1")
                assert here.reader().read(layout.flat_root(Digest.of(image.config)) + b"/base") == b"from elsewhere"
                assert hub.count("GET", f"/team/app/blobs/{image.layers[0].diff_id}") == 0
                assert hub.count("GET", f"/windows/base/blobs/{Digest.of(image.layers[0].packed)}") >= 1
                assert hub.count("GET", f"/team/app/blobs/{Digest.of(image.layers[0].packed)}") == 0
