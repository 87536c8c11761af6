"""Which images a pull publishes, and under which names."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import pytest

from mirror.jobs.model import PublishRequest
from mirror.observe.policy import SeenIndex, requests_for_image, requests_for_index
from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_INDEX, OCI_MANIFEST, Descriptor
from mirror.oci.platform import Platform
from mirror.oci.reference import ImageReference, Reference, RepositoryName

DEBIAN = RepositoryName.of("docker.io", "debian")
AMD64 = Platform("linux", "amd64")
ARM64 = Platform("linux", "arm64")
ARM64_V8 = Platform("linux", "arm64", "v8")
ARM_V7 = Platform("linux", "arm", "v7")
RISCV = Platform("linux", "riscv64")
UNKNOWN = Platform("unknown", "unknown")


def _digest(name: str) -> Digest:
    return Digest.of(name.encode())


def _child(name: str, platform: Platform | None, media_type: str = OCI_MANIFEST, artifact_type: str = "") -> Descriptor:
    return Descriptor(media_type, _digest(name), 2, platform, artifact_type=artifact_type)


def _index(*children: Descriptor) -> SeenIndex:
    return SeenIndex(_digest("index"), children)


INDEX = _index(
    _child("arm", ARM_V7),
    _child("arm64", ARM64_V8),
    _child("amd64", AMD64),
    _child("attestation", UNKNOWN),
    _child("no platform", None),
    _child("sbom", AMD64, artifact_type="application/spdx+json"),
)


def _requests(
    index: SeenIndex,
    *,
    references: Sequence[str] = ("12",),
    platforms: Sequence[Platform] = (AMD64,),
    pulled: Collection[str] = (),
    followed: Mapping[str, Collection[Platform]] | None = None,
) -> set[PublishRequest]:
    used = {Reference.parse(text): found for text, found in (followed or {}).items()}
    found = requests_for_index(
        DEBIAN,
        index,
        [Reference.parse(text) for text in references],
        platforms=platforms,
        pulled={_digest(name) for name in pulled},
        followed=used,
    )
    assert len(set(found)) == len(found)
    return set(found)


def _request(manifest: str, platform: Platform | None = None, reference: str = "12") -> PublishRequest:
    image = ImageReference(DEBIAN, Reference.parse(reference))
    return PublishRequest(image, _digest("index"), _digest(manifest), platform)


DEFAULT = {_request("amd64"), _request("amd64", AMD64)}


def test_an_image_gets_every_name_that_it_was_pulled_by() -> None:
    references = [Reference.parse("12"), Reference.parse(str(_digest("m")))]
    assert requests_for_image(DEBIAN, _digest("m"), references) == [
        PublishRequest(ImageReference(DEBIAN, reference), _digest("m"), _digest("m")) for reference in references
    ]


def test_an_index_stands_for_the_wanted_platform_with_and_without_its_name() -> None:
    assert _requests(INDEX) == DEFAULT


def test_further_platforms_get_the_name_for_their_platform_in_its_normal_form() -> None:
    assert _requests(INDEX, platforms=[AMD64, ARM64, RISCV]) == DEFAULT | {_request("arm64", ARM64)}


def test_the_first_wanted_platform_that_the_index_has_is_the_one_without_a_platform() -> None:
    found = _requests(INDEX, platforms=[RISCV, ARM64, AMD64])
    assert found == {_request("arm64"), _request("arm64", ARM64), _request("amd64", AMD64)}


def test_an_image_that_was_pulled_by_its_digest_gets_every_name_of_its_index_for_its_platform() -> None:
    found = _requests(INDEX, references=["12", "latest"], pulled=["arm"])
    names = {(str(request.image.reference), request.platform) for request in found if request.manifest == _digest("arm")}
    assert names == {("12", ARM_V7), ("latest", ARM_V7)}


def test_a_platform_that_a_tag_was_used_for_is_followed_when_the_tag_moves() -> None:
    found = _requests(INDEX, references=["12", "13"], followed={"12": [ARM64, RISCV]})
    assert found == DEFAULT | {_request("arm64", ARM64), _request("amd64", None, "13"), _request("amd64", AMD64, "13")}


def test_a_platform_that_the_index_does_not_have_gives_nothing() -> None:
    assert _requests(INDEX, platforms=[RISCV]) == set()


@pytest.mark.parametrize("pulled", ["attestation", "sbom"])
def test_what_is_for_no_machine_is_never_published(pulled: str) -> None:
    assert _requests(INDEX, pulled=[pulled]) == DEFAULT
    assert INDEX.lists_as_no_image(_digest(pulled))
    assert not INDEX.lists_as_no_image(_digest("amd64"))
    assert not INDEX.lists_as_no_image(_digest("not listed"))


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (ARM64, "plain"),
        (ARM64_V8, "v8"),
        (Platform("linux", "aarch64"), "v8"),
        (Platform("linux", "arm64", "v9"), None),
        (Platform("linux", "arm"), "arm 7"),
        (Platform("linux", "amd64"), "amd64 v3"),
    ],
)
def test_the_exact_platform_wins_then_what_means_the_same_then_a_variant(wanted: Platform, found: str | None) -> None:
    index = _index(
        _child("v8", ARM64_V8),
        _child("plain", ARM64),
        _child("second", ARM64),
        _child("arm 6", Platform("linux", "arm", "v6")),
        _child("arm 7", ARM_V7),
        _child("amd64 v3", Platform("linux", "amd64", "v3")),
    )
    default = index.default([wanted])
    assert (default and default.digest) == (_digest(found) if found else None)


def test_of_two_images_for_one_platform_the_first_has_its_name() -> None:
    index = _index(_child("first", AMD64), _child("second", AMD64))
    assert _requests(index, pulled=["second"]) == {_request("first"), _request("first", AMD64)}


def test_an_image_that_is_listed_for_two_platforms_gets_both_names() -> None:
    index = _index(_child("same", AMD64), _child("same", ARM64))
    assert _requests(index) == {_request("same"), _request("same", AMD64), _request("same", ARM64)}


def test_a_single_image_without_a_platform_is_what_the_index_stands_for() -> None:
    assert _requests(_index(_child("only", None), _child("attestation", UNKNOWN))) == {_request("only")}
    assert _requests(_index(_child("one", None), _child("other", None))) == set()


def test_only_images_are_taken_from_an_index() -> None:
    assert _requests(_index(_child("nested", AMD64, OCI_INDEX), _child("other", AMD64, "application/x"))) == set()


@pytest.mark.parametrize("odd", [Platform("linux", "../../x"), Platform("li/nux", "amd64"), Platform("linux", "amd64", "v/1")])
def test_a_platform_that_cannot_be_part_of_a_path_has_no_name(odd: Platform) -> None:
    found = _requests(_index(_child("odd", odd)), platforms=[odd], pulled=["odd"])
    assert all(request.platform is None for request in found)
