"""Compressed layers: what is recognised, how they are put together, and what is noticed when they are damaged."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import sys
from collections.abc import Callable

import pytest

from publisher.errors import BrokenLayer, UnsafeLayer
from publisher.layers.limits import LayerLimits
from publisher.layers.packed import Packed
from publisher.layers.zstd_frames import ZstdFrames
from tests.support.compressed import EMPTY_MEMBER, FOOTER, INDEX, chunked, estargz, skippable, zstandard
from tests.support.layers import archive, header, ingest, padded, paths

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

TAR = archive(header(b"f", size=3000), padded(bytes(range(250)) * 12))


FORMS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "eStargz": estargz,
    "zstd": zstandard,
    "zstd without checksum": lambda tar: zstandard(tar, checksum_flag=0),
    "zstd without size": lambda tar: zstandard(tar, content_size_flag=0),
    "zstd, long window": lambda tar: zstandard(tar, content_size_flag=0, window_log=27),
    "zstd in several frames": lambda tar: zstandard(tar[:600]) + zstandard(b"") + zstandard(tar[600:]),
    "zstd behind a skippable frame": lambda tar: skippable(b"pzstd") + zstandard(tar),
    "zstd:chunked": chunked,
}


class Trickle:
    """A blob that comes in pieces of any size."""

    def __init__(self, data: bytes, piece: int) -> None:
        self._data = data
        self._piece = piece

    def read(self, size: int, /) -> bytes:
        data, self._data = self._data[: min(size, self._piece)], self._data[min(size, self._piece) :]
        return data


@pytest.mark.parametrize("form", FORMS)
def test_what_is_stored_is_recognised_by_its_first_bytes(form: str) -> None:
    layer = ingest(FORMS[form](TAR), tar=TAR)
    assert layer.read("f") == bytes(range(250)) * 12
    assert layer.result.size == len(TAR)


@pytest.mark.parametrize("form", ["eStargz", "zstd in several frames", "zstd behind a skippable frame", "zstd:chunked"])
@pytest.mark.parametrize("piece", [1, 7, 300])
def test_frames_and_members_may_begin_anywhere_in_what_arrives(form: str, piece: int) -> None:
    assert ingest(source=Trickle(FORMS[form](TAR), piece), tar=TAR).result.size == len(TAR)


@pytest.mark.parametrize(
    ("form", "without_content"),
    [
        ("zstd", ()),
        ("zstd without checksum", ()),
        ("zstd without size", ()),
        ("zstd:chunked", (INDEX, FOOTER)),
        ("eStargz", (EMPTY_MEMBER,)),
    ],
)
def test_every_cut_is_noticed(form: str, without_content: tuple[bytes, ...]) -> None:
    """But for those between frames that have no content: what they lack is nobody's (and the blob's digest shows it)."""
    packed = FORMS[form](TAR)
    whole = {len(packed) - sum(map(len, without_content[at:])) for at in range(len(without_content))}
    for length in range(1, len(packed)):
        if length in whole:
            assert ingest(packed[:length], tar=TAR).result.entries == 1
            continue
        with pytest.raises((BrokenLayer, UnsafeLayer)):
            ingest(packed[:length], tar=TAR)


def test_every_damaged_byte_of_a_zstd_layer_is_noticed() -> None:
    for packed in (zstandard(TAR), zstandard(TAR, checksum_flag=0)):
        for position in range(len(packed)):
            damaged = bytearray(packed)
            damaged[position] ^= 0x5A
            try:
                layer = ingest(bytes(damaged), tar=TAR)
            except (BrokenLayer, UnsafeLayer):
                continue
            # A frame's header may say the same in another way, such as with a larger window; its content is what counts.
            assert layer.result.diff_id.hex == hashlib.sha256(TAR).hexdigest()
            assert position < 14


def test_a_cut_and_a_damage_are_named() -> None:
    packed = zstandard(TAR)
    with pytest.raises(BrokenLayer, match=rf"zstd stream is cut after {len(packed) - 1} bytes"):
        ingest(packed[:-1], tar=TAR)
    with pytest.raises(BrokenLayer, match=r"zstd stream is damaged near byte [0-9]+: .*checksum"):
        ingest(packed[:-1] + bytes((packed[-1] ^ 1,)), tar=TAR)


@pytest.mark.parametrize("rest", [b"rubbish", bytes(100), gzip.compress(b"x")])
def test_something_else_behind_a_zstd_stream_is_named(rest: bytes) -> None:
    with pytest.raises(BrokenLayer, match=r"zstd stream is followed by something else"):
        ingest(zstandard(TAR) + rest, tar=TAR)


def frame_with_window(window_log: int, *, mantissa: int = 0) -> bytes:
    """A frame header that asks for this much memory, and the beginning of content."""
    return b"\x28\xb5\x2f\xfd\x00" + bytes((((window_log - 10) << 3) | mantissa,)) + b"\x01\x00\x00" + bytes(20)


@pytest.mark.parametrize(
    ("blob", "asked"),
    [
        (frame_with_window(31), 2 << 30),
        (frame_with_window(41, mantissa=7), (2 << 40) // 8 * 15),
        (frame_with_window(27, mantissa=1), (128 << 20) + (16 << 20)),
        (b"\x28\xb5\x2f\xfd\xe0" + (1 << 40).to_bytes(8, "little") + bytes(20), 1 << 40),  # a single segment
        (zstandard(TAR) + frame_with_window(31), 2 << 30),
    ],
    ids=["2 GiB", "largest", "just above", "single segment", "second frame"],
)
def test_a_frame_that_asks_for_too_much_memory_is_refused(blob: bytes, asked: int) -> None:
    with pytest.raises(UnsafeLayer, match=rf"asks for {asked} bytes of memory to be unpacked; 134217728 are allowed"):
        ingest(blob, tar=TAR)


def test_the_limit_on_memory_can_be_set() -> None:
    compressor = zstd.ZstdCompressor(options={int(zstd.CompressionParameter.window_log): 21})
    packed = compressor.compress(TAR) + compressor.flush()
    with pytest.raises(UnsafeLayer, match=r"asks for 2097152 bytes of memory to be unpacked; 1048576 are allowed"):
        ingest(packed, tar=TAR, limits=LayerLimits(window_bytes=1 << 20))
    assert ingest(packed, tar=TAR, limits=LayerLimits(window_bytes=2 << 20)).result.entries == 1


def test_a_zstd_bomb_is_stopped_by_size_and_by_ratio_in_little_memory() -> None:
    tar = archive(header(b"zeros", size=32 << 20), bytes(32 << 20))
    packed = zstandard(tar)
    assert len(packed) < 4096
    with pytest.raises(UnsafeLayer, match="more than the 1048576 bytes"):
        ingest(packed, tar=tar, limits=LayerLimits(expanded_bytes=1 << 20))
    with pytest.raises(UnsafeLayer, match="more than 250 times"):
        ingest(packed, tar=tar, limits=LayerLimits(ratio_from=1 << 20))
    frames = ZstdFrames(Packed(Trickle(packed, 1 << 20)), 128 << 20)
    sizes = []
    while block := frames.read(1000):
        sizes.append(len(block))
        if len(sizes) == 100:
            break
    assert max(sizes) <= 1000


@pytest.mark.parametrize(
    ("name", "packed"),
    [("bzip2", bz2.compress(TAR)), ("xz", lzma.compress(TAR)), ("lz4", b"\x04\x22\x4d\x18" + bytes(100))],
)
def test_compression_that_images_do_not_have_is_named(name: str, packed: bytes) -> None:
    with pytest.raises(BrokenLayer, match=rf"compressed with {name}; images have gzip, zstd, or no compression"):
        ingest(packed, tar=TAR)


def test_the_well_known_empty_layer_of_docker() -> None:
    packed = bytes.fromhex("1f8b080000096e8800ff621805a360148c5800080000ffff2eafb5ef00040000")
    assert hashlib.sha256(packed).hexdigest() == "a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4"
    layer = ingest(packed, tar=bytes(1024))
    assert paths(layer.tree) == []
    assert layer.result.diff_id.hex == "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
