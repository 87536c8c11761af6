"""Manifests and indexes, read but never re-written: the bytes that came are the bytes that are served.

Sources: OCI image specification 1.1 (manifest.md, image-index.md, descriptor.md) and Docker's schema 2 documents, which have the
same members. Unknown members are left alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mirror.errors import InvalidInput
from mirror.oci.digest import Digest
from mirror.oci.document import json_object
from mirror.oci.platform import Platform

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+json"
DOCKER_SCHEMA1_SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws"

IMAGE_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_LIST})
SCHEMA1_TYPES = frozenset({DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED})
IMAGE_CONFIG_TYPES = frozenset({"application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"})

_FILE_SYSTEM_TYPES = ("application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs.")
"""What media types of layers that are file systems begin with."""

SIF_TYPES = frozenset({"application/vnd.sylabs.sif.layer.v1.sif", "appliciation/vnd.sylabs.sif.layer.tar"})
"""Of the one layer of what `apptainer push` makes; the second one, typing error included, is that of Singularity before 3.7."""

_LONGEST_WORD = 100
_VAGUE_TYPES = frozenset({"", "application/json", "application/octet-stream", "text/plain", "text/html"})
MAX_MEDIA_TYPE = 255
"""Characters; RFC 6838, section 4.2, allows 127 on each side of the slash."""


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A typed pointer to content: media type, digest, size in bytes."""

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None = None
    urls: tuple[str, ...] = ()
    artifact_type: str = ""
    """Of the manifest that it leads to, where an index says so."""


@dataclass(frozen=True, slots=True)
class ImageManifest:
    """One image or artifact: a config and layers, lowest layer first."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    artifact_type: str = ""
    """What an artifact is, if it says so (OCI image specification 1.1, "Guidelines for Artifact Usage")."""

    @property
    def is_runnable(self) -> bool:
        """Whether this is a container image, not an artifact that only looks like one.

        Signatures and attestations have an image's config for the sake of old registries; their layers are no file systems.
        """
        return self.config.media_type in IMAGE_CONFIG_TYPES and (
            not self.layers or any(layer.media_type.startswith(_FILE_SYSTEM_TYPES) for layer in self.layers)
        )

    @property
    def sif(self) -> Descriptor | None:
        """The file of a SIF image, which is its only layer; None if this is something else. No config tells it reliably."""
        return self.layers[0] if len(self.layers) == 1 and self.layers[0].media_type in SIF_TYPES else None

    @property
    def is_publishable(self) -> bool:
        """Whether this has a root file system that can be unpacked."""
        return self.is_runnable or self.sif is not None

    @property
    def root(self) -> Digest:
        """What the root file system is known by: the config's digest, or that of a SIF file, for all of these have one config."""
        return self.config.digest if self.sif is None else self.sif.digest

    @property
    def content_type(self) -> str:
        """What it holds, in one media type: of the artifact, or of what tells it from an image."""
        if self.artifact_type:
            return self.artifact_type
        if self.config.media_type in IMAGE_CONFIG_TYPES and self.layers and not self.is_runnable:
            return self.layers[0].media_type
        return self.config.media_type

    @property
    def references(self) -> tuple[Descriptor, ...]:
        """All content that this manifest names."""
        return (self.config, *self.layers)


@dataclass(frozen=True, slots=True)
class Index:
    """A list of manifests, usually one a platform."""

    media_type: str
    manifests: tuple[Descriptor, ...]
    artifact_type: str = ""

    @property
    def references(self) -> tuple[Descriptor, ...]:
        """All content that this index names."""
        return self.manifests


@dataclass(frozen=True, slots=True)
class UnknownManifest:
    """A manifest of a type that is mirrored but not understood: OCI's artifact manifest of 1.1's drafts, or something new."""

    media_type: str

    @property
    def references(self) -> tuple[Descriptor, ...]:
        """Nothing is known of what it names."""
        return ()


Manifest = ImageManifest | Index | UnknownManifest


def parse_manifest(raw: bytes, media_type: str) -> Manifest:
    """Read a manifest of the given media type (of the Content-Type header; the document's own `mediaType` may not contradict it).

    Raises InvalidInput, naming the member that is wrong.
    """
    media_type = media_type.partition(";")[0].strip()
    if media_type not in IMAGE_TYPES | INDEX_TYPES:
        return UnknownManifest(media_type)
    document = json_object(raw, "manifest")
    declared = document.get("mediaType")
    if declared is not None and declared != media_type:
        raise InvalidInput(f"the manifest says it is {declared!r}, but it came as {media_type!r}")
    if media_type in INDEX_TYPES:
        return Index(media_type, _descriptors(document, "manifests"), _artifact_type(document))
    config, layers = _descriptor(document.get("config"), "config"), _descriptors(document, "layers")
    return ImageManifest(media_type, config, layers, _artifact_type(document))


def is_media_type(text: str) -> bool:
    """Whether a text can be a media type: one that fits into a header and into a database (RFC 9110, section 8.3.1, and more)."""
    return len(text) <= MAX_MEDIA_TYPE and text.isascii() and text.isprintable()


def declared_media_type(raw: bytes) -> str | None:
    """The media type that a manifest itself states, or else that its members show; None if it is no manifest that we know."""
    try:
        document = json_object(raw, "manifest")
    except InvalidInput:
        return None
    declared = document.get("mediaType")
    if isinstance(declared, str) and declared and is_media_type(declared):
        return declared
    if document.get("schemaVersion") == 1:
        return DOCKER_SCHEMA1_SIGNED if "signatures" in document else DOCKER_SCHEMA1
    if isinstance(document.get("manifests"), list):
        return OCI_INDEX
    return OCI_MANIFEST if isinstance(document.get("layers"), list) and "config" in document else None


def manifest_type(stated: str, raw: bytes) -> str:
    """The media type of a manifest: that of the header, or the document's own where the header says nothing of use."""
    if stated not in _VAGUE_TYPES and is_media_type(stated):
        return stated
    return declared_media_type(raw) or OCI_MANIFEST


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """The parts of an image configuration that unpacking needs (OCI image specification, config.md)."""

    platform: Platform
    diff_ids: tuple[Digest, ...]
    environment: tuple[str, ...]
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    labels: dict[str, str]


def parse_config(raw: bytes) -> ImageConfig:
    """Read an image configuration. Raises InvalidInput, naming the member that is wrong."""
    document = json_object(raw, "config")
    root_fs = document.get("rootfs")
    if not isinstance(root_fs, dict):
        raise InvalidInput("the image config has no 'rootfs' object")
    execution = document.get("config") or {}
    if not isinstance(execution, dict):
        raise InvalidInput("the image config's 'config' is not an object")
    labels = execution.get("Labels") or {}
    if not isinstance(labels, dict):
        raise InvalidInput("the image config's 'Labels' is not an object")
    return ImageConfig(
        platform=_stated_platform(document, "the image config"),
        diff_ids=tuple(Digest.parse(text) for text in _strings(root_fs, "diff_ids")),
        environment=_strings(execution, "Env"),
        entrypoint=_strings(execution, "Entrypoint"),
        command=_strings(execution, "Cmd"),
        labels={str(key): str(value) for key, value in labels.items()},
    )


def _strings(document: dict[str, Any], member: str) -> tuple[str, ...]:
    value = document.get(member) or []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidInput(f"'{member}' is not a list of strings")
    return tuple(value)


def _descriptors(document: dict[str, Any], member: str) -> tuple[Descriptor, ...]:
    value = document.get(member)
    if not isinstance(value, list):
        raise InvalidInput(f"the manifest's '{member}' is not a list")
    return tuple(_descriptor(item, f"{member}[{position}]") for position, item in enumerate(value))


def _descriptor(value: Any, where: str) -> Descriptor:
    if not isinstance(value, dict):
        raise InvalidInput(f"the manifest's '{where}' is not a descriptor")
    size, media_type, digest = value.get("size"), value.get("mediaType"), value.get("digest")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 63:
        raise InvalidInput(f"the manifest's '{where}.size' is not a size in bytes")
    if not isinstance(media_type, str) or not isinstance(digest, str):
        raise InvalidInput(f"the manifest's '{where}' lacks 'mediaType' or 'digest'")
    if not is_media_type(media_type):
        raise InvalidInput(f"the manifest's '{where}.mediaType' is not a media type")
    platform = value.get("platform")
    urls = value.get("urls") or []
    return Descriptor(
        media_type=media_type,
        digest=Digest.parse(digest),
        size=size,
        platform=_platform(platform, where) if platform is not None else None,
        urls=tuple(url for url in urls if isinstance(url, str)) if isinstance(urls, list) else (),
        artifact_type=_artifact_type(value),
    )


def _artifact_type(document: dict[str, Any]) -> str:
    """It only describes: what is no media type is as good as nothing."""
    value = document.get("artifactType")
    return value if isinstance(value, str) and is_media_type(value) else ""


def _platform(value: Any, where: str) -> Platform | None:
    """None also where the object is there, but says nothing."""
    if not isinstance(value, dict):
        raise InvalidInput(f"the manifest's '{where}.platform' is not an object")
    platform = _stated_platform(value, f"the manifest's '{where}.platform'")
    return platform if platform.os or platform.architecture else None


def _stated_platform(document: dict[str, Any], what: str) -> Platform:
    """The members `os`, `architecture` and `variant`, empty where they are missing. Raises InvalidInput for what is no word."""
    words = [str(document.get(member) or "") for member in ("os", "architecture", "variant")]
    for word in words:
        if len(word) > _LONGEST_WORD or not word.isascii() or not word.isprintable():
            raise InvalidInput(f"{what} names a platform with {word[:100]!r}, which is no name of a system or architecture")
    return Platform(*words)
