"""The header of a SIF file and the list of what is in it. Pure.

Source: the format as github.com/apptainer/sif (pkg/sif) writes it, version 01. All numbers are little-endian, nothing is padded.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from mirror.errors import InvalidInput
from publisher.errors import BrokenLayer

HEADER_SIZE = 128
DESCRIPTOR_SIZE = 585
MOST_DESCRIPTORS = 4096
"""Writers make room for 48."""

_HEADER = struct.Struct("<32s10s3s3s16s2q6q")
_DESCRIPTOR = struct.Struct("<i?3I3q4q128s384s")
_PARTITION = struct.Struct("<ii3s")
_MAGIC = b"SIF_MAGIC\0"
_VERSION = b"01\0"
_ARCHITECTURES = {
    b"01\0": "386",
    b"02\0": "amd64",
    b"03\0": "arm",
    b"04\0": "arm64",
    b"05\0": "ppc64",
    b"06\0": "ppc64le",
    b"07\0": "mips",
    b"08\0": "mipsle",
    b"09\0": "mips64",
    b"10\0": "mips64le",
    b"11\0": "s390x",
    b"12\0": "riscv64",
    b"13\0": "loong64",
}
_PARTITION_TYPE = 0x4004
_OCI_INDEX_TYPE = 0x400A


class FileSystem(IntEnum):
    """What a partition's bytes are."""

    SQUASHFS = 1
    EXT3 = 2
    ARCHIVE = 3
    RAW = 4
    ENCRYPTED_SQUASHFS = 5
    GOCRYPTFS_SQUASHFS = 6


class Part(IntEnum):
    """What a partition is for."""

    SYSTEM = 1
    PRIMARY_SYSTEM = 2
    DATA = 3
    OVERLAY = 4


_REFUSED = {
    FileSystem.EXT3: "an ext3 file system; build the image anew, with a squashfs",
    FileSystem.ARCHIVE: "an archive, not a squashfs",
    FileSystem.RAW: "raw data, not a squashfs",
    FileSystem.ENCRYPTED_SQUASHFS: "encrypted: only who has the key can read it",
    FileSystem.GOCRYPTFS_SQUASHFS: "encrypted (gocryptfs): only who has the key can read it",
}


@dataclass(frozen=True, slots=True)
class SifHeader:
    """The global header, as far as it matters here."""

    architecture: str
    """In Go's words; empty where the file does not say."""
    descriptors: int
    """How many there is room for, those not used included."""
    descriptors_offset: int


@dataclass(frozen=True, slots=True)
class Partition:
    """A file system in a SIF file, at an offset and with a size in bytes."""

    part: int
    """A `Part`, or something newer."""
    file_system: int
    """A `FileSystem`, or something newer."""
    offset: int
    size: int
    architecture: str


@dataclass(frozen=True, slots=True)
class Contents:
    """What a SIF file's descriptors list."""

    partitions: tuple[Partition, ...]
    is_oci: bool
    """Its content is an OCI image in pieces ("OCI-SIF"), not a file system."""


def parse_header(data: bytes) -> SifHeader:
    """Read the first 128 bytes. Raises BrokenLayer."""
    if len(data) < HEADER_SIZE:
        raise BrokenLayer("the file is too short for a SIF image")
    _, magic, version, architecture, _, _, _, _, total, offset, size, _, _ = _HEADER.unpack(data[:HEADER_SIZE])
    if magic != _MAGIC:
        raise BrokenLayer("the file is no SIF image: it does not begin as one")
    if version != _VERSION:
        raise BrokenLayer(f"the SIF image has version {version!r}; only 01 can be unpacked")
    if not 0 < total <= MOST_DESCRIPTORS:
        raise BrokenLayer(f"the SIF image says that it has {total} descriptors; 1 to {MOST_DESCRIPTORS} can be")
    if offset < HEADER_SIZE or size < total * DESCRIPTOR_SIZE:
        raise BrokenLayer("the SIF image has its descriptors where they cannot be")
    return SifHeader(_ARCHITECTURES.get(architecture, ""), total, offset)


def parse_descriptors(data: bytes) -> Contents:
    """Read descriptors that stand in a row; what does not concern file systems is passed over. Raises BrokenLayer."""
    partitions = []
    is_oci = False
    if len(data) % DESCRIPTOR_SIZE:
        raise BrokenLayer("the SIF image is cut within its descriptors")
    for kind, used, _, _, _, offset, size, _, _, _, _, _, _, extra in _DESCRIPTOR.iter_unpack(data):
        if not used:
            continue
        is_oci = is_oci or kind == _OCI_INDEX_TYPE
        if kind == _PARTITION_TYPE:
            file_system, part, architecture = _PARTITION.unpack(extra[: _PARTITION.size])
            if offset < 0 or size < 0:
                raise BrokenLayer("the SIF image has a partition before its begin")
            partitions.append(Partition(part, file_system, offset, size, _ARCHITECTURES.get(architecture, "")))
    return Contents(tuple(partitions), is_oci)


def root_partition(contents: Contents) -> Partition:
    """The one squashfs that the image's root is. Raises InvalidInput where it is something that is not unpacked, BrokenLayer."""
    if contents.is_oci:
        raise InvalidInput("the SIF image has an OCI image inside (OCI-SIF), which is not unpacked; push that as an OCI image")
    primary = [partition for partition in contents.partitions if partition.part == Part.PRIMARY_SYSTEM]
    if len(primary) != 1:
        raise BrokenLayer(f"the SIF image has {len(primary)} primary system partitions; 1 is needed")
    (root,) = primary
    if root.file_system != FileSystem.SQUASHFS:
        reason = _REFUSED.get(root.file_system, f"of the unknown kind {root.file_system}")  # type: ignore[call-overload]
        raise InvalidInput(f"the SIF image cannot be unpacked: its root file system is {reason}")
    if any(partition.part == Part.OVERLAY for partition in contents.partitions):
        raise InvalidInput("the SIF image has an overlay partition, whose changes would be missing; seal it into a new image")
    return root
