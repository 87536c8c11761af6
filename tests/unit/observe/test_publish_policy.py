"""Which images a pull publishes, and under which names."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pytest

from mirror.jobs.model import PublishRequest
from mirror.observe.events import Pull
from mirror.observe.policy import requests_of
from mirror.oci.digest import Digest
from mirror.oci.manifest import (
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    ImageManifest,
    Index,
    Manifest,
    Platform,
    UnknownManifest,
)
from mirror.oci.reference import ImageReference

AMD64 = Platform("linux", "amd64")
ARM64 = Platform("linux", "arm64")
ARM64_V8 = Platform("linux", "arm64", "v8")
IMAGE_CONFIG = Descriptor("application/vnd.oci.image.config.v1+json", Digest.of(b"config"), 2)
IMAGE = ImageManifest(OCI_MANIFEST, IMAGE_CONFIG, ())
SIF_CONFIG = Descriptor("application/vnd.sylabs.sif.config.v1+json", Digest.of(b"{}"), 2)
SIF_FILE = Descriptor("application/vnd.sylabs.sif.layer.v1.sif", Digest.of(b"sif"), 3)
SIF = ImageManifest(OCI_MANIFEST, SIF_CONFIG, (SIF_FILE,))
CHART = ImageManifest(
    OCI_MANIFEST, Descriptor("application/vnd.cncf.helm.config.v1+json", Digest.of(b"chart"), 2), (SIF_CONFIG, SIF_FILE)
)


def _digest(name: str) -> Digest:
    return Digest.of(name.encode())


def _child(name: str, platform: Platform | None, media_type: str = OCI_MANIFEST) -> Descriptor:
    return Descriptor(media_type, _digest(name), 2, platform)


INDEX = Index(
    OCI_INDEX,
    (
        _child("arm", Platform("linux", "arm", "v7")),
        _child("arm64", ARM64_V8),
        _child("amd64", AMD64),
        _child("attestation", Platform("unknown", "unknown")),
        _child("no platform", None),
    ),
)


def _requests(
    image: str,
    served: str,
    manifest: Manifest,
    *,
    tags: Collection[str] = (),
    known: Collection[PublishRequest] = (),
    platforms: Sequence[Platform] = (AMD64,),
) -> list[PublishRequest]:
    pull = Pull(1.0, ImageReference.parse(image), _digest(served), manifest.media_type, b"")
    return requests_of(pull, manifest, platforms=platforms, tags=tags, known=known)


def _request(image: str, target: str, manifest: str) -> PublishRequest:
    return PublishRequest(ImageReference.parse(image), _digest(target), _digest(manifest))


def test_an_image_pulled_by_tag_gets_the_tag_as_its_name() -> None:
    expected = [_request("debian:12", "m", "m")]
    assert _requests("debian:12", "m", IMAGE) == expected
    assert _requests("debian:12", "m", IMAGE, tags=["latest", "12"]) == expected, "nobody pulled latest"


def test_an_index_pulled_by_tag_gives_its_image_for_the_wanted_platform_the_tag() -> None:
    assert _requests("debian:12", "index", INDEX) == [_request("debian:12", "index", "amd64")]


def test_further_platforms_get_names_of_their_own() -> None:
    assert _requests("debian:12", "index", INDEX, platforms=[AMD64, ARM64]) == [
        _request("debian:12", "index", "amd64"),
        _request(f"debian@{_digest('arm64')}", "arm64", "arm64"),
    ]


def test_a_platform_that_the_index_does_not_have_gives_nothing() -> None:
    assert _requests("debian:12", "index", INDEX, platforms=[Platform("linux", "riscv64")]) == []


@pytest.mark.parametrize(
    ("wanted", "found"),
    [(ARM64, "plain"), (ARM64_V8, "v8"), (Platform("linux", "arm64", "v9"), None)],
)
def test_the_exact_platform_wins_over_a_variant(wanted: Platform, found: str | None) -> None:
    index = Index(OCI_INDEX, (_child("v8", ARM64_V8), _child("plain", ARM64), _child("second", ARM64)))
    expected = [_request("debian:12", "index", found)] if found else []
    assert _requests("debian:12", "index", index, platforms=[wanted]) == expected


def test_an_index_that_lists_the_same_image_twice_gives_it_once() -> None:
    index = Index(OCI_INDEX, (_child("same", AMD64), _child("same", ARM64)))
    assert _requests("debian:12", "index", index, platforms=[AMD64, ARM64]) == [_request("debian:12", "index", "same")]


def test_only_images_are_taken_from_an_index() -> None:
    index = Index(OCI_INDEX, (_child("nested", AMD64, OCI_INDEX), _child("other", AMD64, "application/x")))
    assert _requests("debian:12", "index", index) == []


def test_an_image_pulled_by_digest_gets_every_tag_that_leads_to_it() -> None:
    image = f"debian@{_digest('m')}"
    known = [_request("debian:12", "m", "m")]
    assert _requests(image, "m", IMAGE, tags=["latest", "12"], known=known) == [
        _request("debian:12", "m", "m"),
        _request("debian:latest", "m", "m"),
    ]


def test_an_image_pulled_by_a_digest_that_no_tag_leads_to_gets_the_digest_unless_it_has_a_name() -> None:
    image = f"debian@{_digest('m')}"
    assert _requests(image, "m", IMAGE) == [_request(image, "m", "m")]
    assert _requests(image, "m", IMAGE, known=[_request("debian:12", "index", "m")]) == []


def test_an_index_pulled_by_a_digest_that_no_tag_leads_to_gives_its_image_the_digest_unless_it_has_a_name() -> None:
    image = f"debian@{_digest('index')}"
    assert _requests(image, "index", INDEX) == [_request(image, "index", "amd64")]
    assert _requests(image, "index", INDEX, known=[_request("debian:12", "index", "amd64")]) == []


@pytest.mark.parametrize("manifest", [CHART, UnknownManifest("application/vnd.docker.distribution.manifest.v1+json")])
@pytest.mark.parametrize("image", ["debian:12", f"debian@{_digest('m')}"])
def test_artifacts_and_unknown_manifests_are_not_published(manifest: Manifest, image: str) -> None:
    assert _requests(image, "m", manifest, tags=["12"]) == []


def test_a_sif_image_is_an_image_like_any_other() -> None:
    assert _requests("debian:12", "m", SIF) == [_request("debian:12", "m", "m")]


def test_docker_schema_2_is_an_image_like_any_other() -> None:
    config = Descriptor("application/vnd.docker.container.image.v1+json", Digest.of(b"config"), 2)
    assert len(_requests("debian:12", "m", ImageManifest(DOCKER_MANIFEST, config, ()))) == 1
