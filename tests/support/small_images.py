"""Images of a few files, made member by member: for speed, and for what no builder would make."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.support.registry_client import (
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    RegistryClient,
    digest_of,
)

_MTIME = 1_700_000_000


def member(name: str, kind: bytes = tarfile.REGTYPE, **attributes: str | int) -> tarfile.TarInfo:
    """A tar member's header; attributes are TarInfo's."""
    info = tarfile.TarInfo(name)
    info.type = kind
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    info.mtime = _MTIME
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    return info


def directory(name: str, **attributes: int) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, tarfile.DIRTYPE, **attributes), b""


def file(name: str, content: bytes = b"", **attributes: int) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, tarfile.REGTYPE, size=len(content), **attributes), content


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, kind, linkname=target), b""


def pack(members: Iterable[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """A tar stream in PAX form."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


@dataclass(frozen=True)
class Layer:
    """A layer as pushed, and the diff_id that the config claims for it."""

    packed: bytes
    diff_id: str
    media_type: str = OCI_LAYER_GZIP

    @classmethod
    def of(cls, *members: tuple[tarfile.TarInfo, bytes], compressed: bool = True) -> Layer:
        tar = pack(members)
        if not compressed:
            return cls(tar, digest_of(tar), OCI_LAYER)
        return cls(gzip.compress(tar, mtime=0), digest_of(tar))


@dataclass(frozen=True)
class Image:
    """An image manifest with all that belongs to it."""

    layers: tuple[Layer, ...]
    architecture: str = "amd64"
    os: str = "linux"
    settings: dict[str, object] = field(default_factory=dict)
    """The config's member `config`: Env, Cmd and so on."""

    @property
    def config(self) -> bytes:
        return json.dumps(
            {
                "architecture": self.architecture,
                "os": self.os,
                "config": self.settings,
                "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in self.layers]},
            }
        ).encode()

    @property
    def manifest(self) -> bytes:
        return json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": _descriptor(OCI_CONFIG, self.config),
                "layers": [_descriptor(layer.media_type, layer.packed) for layer in self.layers],
            },
            indent=2,
        ).encode()

    @property
    def digest(self) -> str:
        return digest_of(self.manifest)

    def push(self, hub: RegistryClient, repository: str, reference: str | None = None) -> str:
        """By tag, or by nothing but its digest; the digest."""
        for data in (self.config, *(layer.packed for layer in self.layers)):
            hub.push_blob(repository, data)
        return hub.push_manifest(repository, reference or self.digest, self.manifest, OCI_MANIFEST)


def push_index(hub: RegistryClient, repository: str, tag: str, images: Iterable[Image]) -> str:
    """The images and an index that names them by platform; the index's digest."""
    entries = []
    for image in images:
        image.push(hub, repository)
        platform = {"architecture": image.architecture, "os": image.os}
        entries.append({**_descriptor(OCI_MANIFEST, image.manifest), "platform": platform})
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}, indent=2).encode()
    return hub.push_manifest(repository, tag, index, OCI_INDEX)


def _descriptor(media_type: str, data: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}


def base_layer() -> Layer:
    return Layer.of(
        directory("etc"),
        file("etc/os-release", b"ID=tiny\n"),
        file("etc/removed", b"gone soon\n"),
        directory("usr"),
        directory("usr/bin"),
        file("usr/bin/hello", b"#!/bin/sh\necho hello\n", mode=0o755),
        link("bin", "usr/bin"),
    )


def tiny(text: str = "tiny") -> Image:
    """Two layers, a whiteout, a setuid file and a hard link; images with different texts share the lower layer."""
    top = Layer.of(
        directory("etc"),
        file("etc/.wh.removed"),
        file("etc/motd", text.encode()),
        directory("usr"),
        directory("usr/bin"),
        file("usr/bin/su", b"#!/bin/sh\n", mode=0o4755),
        link("usr/bin/sudo", "usr/bin/su", tarfile.LNKTYPE),
        compressed=False,
    )
    return Image((base_layer(), top), settings={"Env": ["PATH=/usr/bin", f"TEXT={text}"], "Cmd": ["hello"]})


def many_platforms() -> tuple[Image, ...]:
    """For an index: two architectures and an attestation as BuildKit adds it."""
    arm = Image((Layer.of(directory("etc"), file("etc/arch", b"arm64\n")),), architecture="arm64")
    attestation = Image((Layer.of(file("statement.json", b"{}")),), architecture="unknown", os="unknown")
    return (arm, tiny("amd64 of several"), attestation)


def broken() -> dict[str, Image]:
    """By tag: each has one right layer below a wrong one; every digest in the manifest is right, so pulls work."""
    good = base_layer()
    noise = gzip.compress(b"no tar at all. " * 5000, mtime=0)
    tar = pack([directory("opt"), file("opt/data", bytes(range(256)) * 4096)])
    packed = gzip.compress(tar, mtime=0)
    layers = {
        "not-a-tar": Layer(noise, digest_of(b"no tar at all. " * 5000)),
        "not-gzip": Layer(b"\x00" * 4096, digest_of(b"")),
        "wrong-diff-id": Layer(packed, digest_of(b"something else")),
        "truncated": Layer(packed[: len(packed) // 2], digest_of(tar)),
        "leaves-root": Layer.of(directory("opt"), file("opt/../../../escaped", b"out\n")),
    }
    return {tag: Image((good, layer)) for tag, layer in layers.items()}
