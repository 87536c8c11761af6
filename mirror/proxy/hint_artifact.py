"""The hint as an artifact that refers to the image: what lists of referrers show, and clients pull. Pure.

It is an image manifest with `subject` and `artifactType`, the empty config, and one layer: a JSON object with the facts that its
annotations have as well (OCI image specification 1.1, manifest.md, "Guidelines for Artifact Usage", and annotations.md, "Rules").
It is made of these facts and of nothing else, so that every process and every server that knows them makes the same bytes.
"""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import dataclass
from typing import Any

from mirror.jobs.model import ImageStatus
from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_MANIFEST, Descriptor

ARTIFACT_TYPE = "application/vnd.debark.cvmfs.v1+json"
"""Of the artifact and of its layer: the vendor tree (RFC 6838, section 3.2), with a version as OCI's own types have it."""
ANNOTATION_PREFIX = "org.debark.cvmfs."
FILE_NAME = "cvmfs.json"
"""As what clients write the layer, which pass over layers without a name (`oras pull`)."""

_EMPTY = b"{}"
_EMPTY_TYPE = "application/vnd.oci.empty.v1+json"


@dataclass(frozen=True, slots=True)
class HintArtifact:
    """The artifact of one image or index."""

    subject: Descriptor
    """What it refers to."""
    manifest: bytes
    digest: Digest
    """Of the manifest."""
    descriptor: dict[str, Any]
    """As a list of referrers has it ("Listing Referrers": with the manifest's `artifactType` and annotations)."""
    blobs: dict[Digest, bytes]
    """All that the manifest names."""

    @property
    def digests(self) -> tuple[Digest, ...]:
        """Everything of it that can be asked for."""
        return (self.digest, *self.blobs)


def hint_artifact(status: ImageStatus, subject: Descriptor) -> HintArtifact | None:
    """What says where a published image is; None if it is not published. subject: its manifest, or the index that lists it."""
    publication = status.publication
    if publication is None:
        return None
    facts: dict[str, str | int] = {"image": str(status.image)}
    if status.platform is not None:
        facts["platform"] = str(status.platform)
    facts["manifest"] = str(status.manifest)
    facts |= {"fqrn": publication.fqrn, "path": publication.path, "revision": publication.revision}
    layer = _document(facts) + b"\n"
    annotations = {f"{ANNOTATION_PREFIX}{name}": str(value) for name, value in facts.items()}
    named = {"org.opencontainers.image.title": FILE_NAME}
    manifest = _document(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": ARTIFACT_TYPE,
            "config": _descriptor(_EMPTY_TYPE, _EMPTY) | {"data": b64encode(_EMPTY).decode()},
            "layers": [_descriptor(ARTIFACT_TYPE, layer) | {"annotations": named}],
            "subject": {"mediaType": subject.media_type, "digest": str(subject.digest), "size": subject.size},
            "annotations": annotations,
        }
    )
    listed = _descriptor(OCI_MANIFEST, manifest) | {"artifactType": ARTIFACT_TYPE, "annotations": annotations}
    blobs = {Digest.of(data): data for data in (_EMPTY, layer)}
    return HintArtifact(subject, manifest, Digest.of(manifest), listed, blobs)


def _descriptor(media_type: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": str(Digest.of(data)), "size": len(data)}


def _document(members: dict[str, Any]) -> bytes:
    return json.dumps(members, separators=(",", ":")).encode()
