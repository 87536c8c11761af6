"""Headers of SIF files: what the root is, and why something else is not unpacked."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.errors import InvalidInput
from publisher.errors import BrokenLayer
from publisher.sif.header import DESCRIPTOR_SIZE, HEADER_SIZE, Partition, parse_header
from publisher.sif.unpack import find_root
from publisher.squashfs.source import Section
from tests.support.sif_images import (
    AMD64,
    ARCHIVE,
    DATA,
    ENCRYPTED,
    EXT3,
    GOCRYPTFS,
    OCI_INDEX,
    OVERLAY,
    PARTITION,
    RAW,
    SQUASHFS,
    SYSTEM,
    Part,
    root,
    sif,
    whole,
)
from tests.support.squashfs_images import MemoryBytes

WHOLE = whole(b"a file system")
DESCRIPTORS_AT = 4096


def _root(data: bytes) -> tuple[str, Partition]:
    return find_root(MemoryBytes(data))


def test_the_root_is_the_primary_partition() -> None:
    architecture, partition = _root(WHOLE)
    assert architecture == "amd64"
    assert Section(MemoryBytes(WHOLE), partition.offset, partition.size).read(0, partition.size, "it") == b"a file system"


def test_partitions_for_data_are_passed_over() -> None:
    data = sif([root(b"data", EXT3, DATA), root(b"other", SQUASHFS, SYSTEM), root(b"the root")])
    _, partition = _root(data)
    assert data[partition.offset :][: partition.size] == b"the root"


def test_the_partition_knows_its_architecture_better_than_the_header() -> None:
    arm = Part(PARTITION, b"x", SQUASHFS, 2, b"04\0")
    assert _root(sif([arm]))[0] == "arm64"
    assert _root(sif([Part(PARTITION, b"x", SQUASHFS, 2, b"00\0")]))[0] == "amd64"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (sif([root(b"x", ENCRYPTED)]), "encrypted: only who has the key"),
        (sif([root(b"x", GOCRYPTFS)]), "encrypted .gocryptfs.: only who has the key"),
        (sif([root(b"x", EXT3)]), "ext3"),
        (sif([root(b"x", ARCHIVE)]), "an archive"),
        (sif([root(b"x", RAW)]), "raw data"),
        (sif([root(b"x", 99)]), "of the unknown kind 99"),
        (sif([root(b"x"), root(b"y", EXT3, OVERLAY)]), "overlay partition"),
        (sif([Part(OCI_INDEX, b"{}"), root(b"x")]), "OCI-SIF"),
    ],
)
def test_what_is_not_unpacked_is_told_by_its_name(data: bytes, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        _root(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "too short"),
        (WHOLE[: HEADER_SIZE - 1], "too short"),
        (WHOLE[:DESCRIPTORS_AT], "cut within its descriptors"),
        (sif([root(b"x")], magic=b"SIF_TRAGIC"), "no SIF image"),
        (sif([root(b"x")], version=b"02\0"), "version b'02"),
        (sif([root(b"x")], total=0), "it has 0 descriptors"),
        (sif([root(b"x")], total=0)[:88] + struct.pack("<q", 1 << 40) + bytes(5000), "descriptors"),
        (sif([]), "0 primary system partitions"),
        (sif([root(b"x"), root(b"y")]), "2 primary system partitions"),
    ],
)
def test_what_is_broken_is_told(data: bytes, words: str) -> None:
    with pytest.raises(BrokenLayer, match=words):
        _root(data)


def test_a_partition_beyond_the_files_end_is_told() -> None:
    _, partition = _root(WHOLE)
    with pytest.raises(BrokenLayer, match=f"but the file has {partition.offset}"):
        Section(MemoryBytes(WHOLE[: partition.offset]), partition.offset, partition.size)


def test_architectures_are_in_words_of_go() -> None:
    header = WHOLE[:HEADER_SIZE]
    for number, name in ((b"01\0", "386"), (AMD64, "amd64"), (b"12\0", "riscv64"), (b"77\0", "")):
        assert parse_header(header[:45] + number + header[48:]).architecture == name


@given(st.data())
def test_any_bytes_may_be_any_others(data: st.DataObject) -> None:
    changed = bytearray(WHOLE)
    places = st.integers(0, HEADER_SIZE - 1) | st.integers(DESCRIPTORS_AT, DESCRIPTORS_AT + 4 * DESCRIPTOR_SIZE)
    for at, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=8)):
        changed[at] = value
    with contextlib.suppress(BrokenLayer, InvalidInput):
        _, partition = _root(bytes(changed))
        Section(MemoryBytes(bytes(changed)), partition.offset, partition.size)


@given(st.binary(max_size=400))
def test_noise_is_no_sif(noise: bytes) -> None:
    with pytest.raises(BrokenLayer):
        _root(noise)
    with pytest.raises(BrokenLayer):
        _root(WHOLE[:42] + noise)
