"""The artifact that says where an image is: well-formed, made of nothing but facts, and only of published images."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from mirror.jobs.model import ImageStatus, Publication, State
from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_INDEX, OCI_MANIFEST, Descriptor, ImageManifest, parse_manifest
from mirror.oci.platform import Platform
from mirror.oci.reference import ImageReference
from mirror.proxy.hint_artifact import HintArtifact, hint_artifact
from tests.support.artifacts import artifact_problems

PATH = "/cvmfs/unpacked.example.org/docker.io/library/debian:12"
TYPE = "application/vnd.debark.cvmfs.v1+json"
INDEX = Descriptor(OCI_INDEX, Digest.of(b"index"), 1234)
PUBLISHED = ImageStatus(
    image=ImageReference.parse("docker.io/library/debian:12"),
    manifest=Digest.of(b"manifest"),
    target=INDEX.digest,
    state=State.PUBLISHED,
    reason=None,
    publication=Publication("unpacked.example.org", PATH, 7),
    attempts=1,
    next_try=None,
    requested=1.0,
    updated=2.0,
    published=3.0,
)
FACTS = {
    "image": "docker.io/library/debian:12",
    "manifest": str(Digest.of(b"manifest")),
    "fqrn": "unpacked.example.org",
    "path": PATH,
    "revision": 7,
}


def made(status: ImageStatus = PUBLISHED, subject: Descriptor = INDEX) -> HintArtifact:
    artifact = hint_artifact(status, subject)
    assert artifact is not None
    return artifact


def test_it_is_an_artifact_as_the_specification_describes_them() -> None:
    artifact = made()
    assert artifact_problems(artifact.manifest) == []
    assert Digest.of(artifact.manifest) == artifact.digest
    document = json.loads(artifact.manifest)
    assert document["artifactType"] == TYPE
    assert document["subject"] == {"mediaType": OCI_INDEX, "digest": str(INDEX.digest), "size": 1234}
    parsed = parse_manifest(artifact.manifest, OCI_MANIFEST)
    assert isinstance(parsed, ImageManifest)
    assert not parsed.is_publishable
    for named in parsed.references:
        assert Digest.of(artifact.blobs[named.digest]) == named.digest
        assert len(artifact.blobs[named.digest]) == named.size


def test_annotations_and_layer_say_the_same() -> None:
    artifact = made()
    document = json.loads(artifact.manifest)
    (layer,) = document["layers"]
    assert json.loads(artifact.blobs[Digest.parse(layer["digest"])]) == FACTS
    assert document["annotations"] == {f"org.debark.cvmfs.{name}": str(value) for name, value in FACTS.items()}
    assert layer["mediaType"] == TYPE
    assert layer["annotations"] == {"org.opencontainers.image.title": "cvmfs.json"}


def test_lists_have_it_with_its_type_and_annotations() -> None:
    artifact = made()
    assert artifact.descriptor == {
        "mediaType": OCI_MANIFEST,
        "digest": str(artifact.digest),
        "size": len(artifact.manifest),
        "artifactType": TYPE,
        "annotations": json.loads(artifact.manifest)["annotations"],
    }


def test_an_image_for_a_platform_says_which() -> None:
    artifact = made(replace(PUBLISHED, platform=Platform("linux", "arm64")))
    assert artifact.descriptor["annotations"]["org.debark.cvmfs.platform"] == "linux/arm64"


def test_only_its_facts_make_it_another_one() -> None:
    same = replace(PUBLISHED, attempts=5, requested=8.0, updated=9.0, published=10.0, state=State.COMMITTING)
    assert made(same).manifest == made().manifest
    others = [
        made(replace(PUBLISHED, publication=Publication("unpacked.example.org", PATH, 8))),
        made(replace(PUBLISHED, publication=Publication("unpacked.example.org", f"{PATH}.1", 7))),
        made(replace(PUBLISHED, publication=Publication("other.example.org", PATH, 7))),
        made(subject=Descriptor(OCI_MANIFEST, PUBLISHED.manifest, 1234)),
    ]
    assert len({artifact.digest for artifact in [made(), *others]}) == 5


@pytest.mark.parametrize("state", [state for state in State if state is not State.PUBLISHED])
def test_what_is_not_published_has_none(state: State) -> None:
    assert hint_artifact(replace(PUBLISHED, state=state, publication=None), INDEX) is None
