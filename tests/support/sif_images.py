"""SIF images as `apptainer push` leaves them in a registry, and the squashfs in them, made by squashfs-tools of a tar archive."""

from __future__ import annotations

import json
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.registry_client import OCI_MANIFEST, RegistryClient, digest_of
from tests.support.tool import ToolFailed, run

SIF_CONFIG = "application/vnd.sylabs.sif.config.v1+json"
SIF_LAYER = "application/vnd.sylabs.sif.layer.v1.sif"
EMPTY_CONFIG = b"{}"

DEFINITION_FILE = 0x4001
LABELS = 0x4003
PARTITION = 0x4004
SIGNATURE = 0x4005
OCI_INDEX = 0x400A

SQUASHFS, EXT3, ARCHIVE, RAW, ENCRYPTED, GOCRYPTFS = range(1, 7)
SYSTEM, PRIMARY, DATA, OVERLAY = range(1, 5)
AMD64 = b"02\0"

_ROOM = 48
"""Descriptors that Apptainer makes room for."""
_DATA_FROM = 32_768


def squashfs(tar: bytes, directory: Path, *options: str) -> bytes:
    """A squashfs of all that is in an archive. directory: for the file on its way."""
    target = directory / "made.sqfs"
    target.unlink(missing_ok=True)
    root = ["-root-mode", "755", "-root-uid", "0", "-root-gid", "0"]
    command = ["mksquashfs", "-", str(target), "-tar", *root, "-processors", "1", "-quiet", "-no-progress", *options]
    done = subprocess.run(command, input=tar, capture_output=True, check=False)
    if done.returncode != 0 or not target.exists():
        raise ToolFailed(f"{command}\n{done.stdout.decode()}{done.stderr.decode()}")
    return target.read_bytes()


@dataclass(frozen=True)
class Part:
    """One thing in a SIF file."""

    kind: int
    data: bytes
    file_system: int = 0
    part: int = 0
    architecture: bytes = AMD64

    @property
    def extra(self) -> bytes:
        """What only descriptors of partitions have."""
        return struct.pack("<ii3s", self.file_system, self.part, self.architecture) if self.kind == PARTITION else b""


def root(data: bytes, file_system: int = SQUASHFS, part: int = PRIMARY) -> Part:
    return Part(PARTITION, data, file_system, part)


def sif(parts: Sequence[Part], *, magic: bytes = b"SIF_MAGIC\0", version: bytes = b"01\0", total: int = _ROOM) -> bytes:
    """A file with these parts, laid out as Apptainer does it: the first at a page's begin each, partitions too."""
    descriptors, data = b"", bytearray()
    for number, part in enumerate(parts, 1):
        data += bytes(-len(data) % 4096)
        place = struct.pack("<3q", _DATA_FROM + len(data), len(part.data), len(part.data))
        times = struct.pack("<4q", 1_700_000_000, 1_700_000_000, 0, 0)
        head = struct.pack("<i?3I", part.kind, True, number, 0xF0000001, 0)
        descriptors += head + place + times + b"part".ljust(128, b"\0") + part.extra.ljust(384, b"\0")
        data += part.data
    size = 585 * total
    header = struct.pack(
        "<32s10s3s3s16s2q6q",
        b"#!/usr/bin/env run-singularity\n",
        magic,
        version,
        AMD64,
        b"sixteen bytes id",
        1_700_000_000,
        1_700_000_000,
        total - len(parts),
        total,
        4096,
        size,
        _DATA_FROM,
        len(data),
    )
    return (header.ljust(4096, b"\0") + descriptors.ljust(size, b"\0")).ljust(_DATA_FROM, b"\0") + bytes(data)


def by_siftool(file_system: bytes, directory: Path, kind: str = "1") -> bytes:
    """A file of SIF's own tool with a definition, a data partition and this root. kind: as siftool numbers file systems."""
    made, recipe, data, content = (directory / name for name in ("made.sif", "recipe", "data", "content"))
    made.unlink(missing_ok=True)
    recipe.write_text("bootstrap: scratch\n")
    data.write_bytes(b"data")
    content.write_bytes(file_system)
    run(["siftool", "new", made])
    run(["siftool", "add", made, recipe, "--datatype", "1"])
    partition = ["--datatype", "4", "--partarch", "2"]
    run(["siftool", "add", made, data, *partition, "--partfs", "4", "--parttype", "3"])
    run(["siftool", "add", made, content, *partition, "--partfs", kind, "--parttype", "2"])
    return made.read_bytes()


def whole(file_system: bytes) -> bytes:
    """A file as a build leaves it: definition, labels, root, and a signature of it."""
    return sif(
        [
            Part(DEFINITION_FILE, b"bootstrap: docker\nfrom: debian\n"),
            Part(LABELS, b"{}"),
            root(file_system),
            Part(SIGNATURE, b"-----BEGIN PGP SIGNED MESSAGE-----\n"),
        ]
    )


@dataclass(frozen=True)
class SifImage:
    """What is pushed."""

    file: bytes
    layer_type: str = SIF_LAYER
    title: str = "image.sif"

    @property
    def manifest(self) -> bytes:
        """As Apptainer 1.3 writes it."""
        config = {"mediaType": SIF_CONFIG, "size": len(EMPTY_CONFIG), "digest": digest_of(EMPTY_CONFIG), "data": "e30="}
        annotations = {"org.opencontainers.image.title": self.title}
        layer = {"mediaType": self.layer_type, "size": len(self.file), "digest": digest_of(self.file), "annotations": annotations}
        created = {"org.opencontainers.image.created": "2023-12-19T16:02:14Z"}
        document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer], "annotations": created}
        return json.dumps(document).encode()

    @property
    def digest(self) -> str:
        return digest_of(self.manifest)

    def push(self, hub: RegistryClient, repository: str, tag: str) -> str:
        """The digest."""
        hub.push_blob(repository, EMPTY_CONFIG)
        hub.push_blob(repository, self.file)
        return hub.push_manifest(repository, tag, self.manifest, OCI_MANIFEST)
