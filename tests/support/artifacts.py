"""What the OCI image specification 1.1 asks of an artifact that refers to another manifest, checked member by member."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Any

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}", re.ASCII)
"""RFC 6838, section 4.2."""
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}", re.ASCII)
_OWN_KEY = re.compile(r"[a-z0-9-]+(\.[a-zA-Z0-9-]+){2,}", re.ASCII)
"""Reverse domain notation (annotations.md, "Rules")."""


def artifact_problems(raw: bytes) -> list[str]:
    """What breaks manifest.md, descriptor.md or annotations.md; empty if nothing does."""
    document = json.loads(raw)
    found = []
    if document["schemaVersion"] != 2 or document["mediaType"] != OCI_MANIFEST:
        found.append("no image manifest of schema version 2")
    if not _MEDIA_TYPE.fullmatch(document.get("artifactType", "")):
        found.append("artifactType is no media type, and must be one where the config is empty")
    if not document["layers"]:
        found.append("no layer: for portability there should be at least one")
    for name, descriptor in [("config", document["config"]), ("subject", document["subject"])]:
        found += _descriptor_problems(name, descriptor)
    for layer in document["layers"]:
        found += _descriptor_problems("layer", layer)
    if document["config"]["mediaType"] == EMPTY_TYPE:
        found += [] if (document["config"]["size"], document["config"]["digest"]) == (2, _digest(b"{}")) else ["config not empty"]
    return found + _annotation_problems(document)


def _descriptor_problems(name: str, descriptor: dict[str, Any]) -> list[str]:
    found = []
    if not _MEDIA_TYPE.fullmatch(descriptor["mediaType"]):
        found.append(f"mediaType of {name}")
    if not _DIGEST.fullmatch(descriptor["digest"]):
        found.append(f"digest of {name}")
    if type(descriptor["size"]) is not int or descriptor["size"] < 0:
        found.append(f"size of {name}")
    if "data" in descriptor:
        data = base64.b64decode(descriptor["data"], validate=True)
        if (_digest(data), len(data)) != (descriptor["digest"], descriptor["size"]):
            found.append(f"data of {name}")
    return found + _annotation_problems(descriptor)


def _annotation_problems(holder: dict[str, Any]) -> list[str]:
    annotations = holder.get("annotations", {})
    return [
        f"annotation {key!r}" for key, value in annotations.items() if not (isinstance(value, str) and _OWN_KEY.fullmatch(key))
    ]


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
