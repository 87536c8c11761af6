"""squashfs images that no tool makes: each is refused with a reason, or harmless; none is a crash or a hang."""

from __future__ import annotations

import io
import struct
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from publisher.errors import BrokenLayer, UnsafeLayer
from publisher.layers.limits import LayerLimits
from publisher.objects.compress import compressor
from publisher.objects.pipeline import Pipeline, PipelineLimits
from tests.support.layers import entry_at
from tests.support.memory_store import MemoryStore
from tests.support.sif_images import squashfs
from tests.support.squashfs_images import (
    BLOCK,
    ROOT_SIZE,
    STORED,
    directory,
    file,
    image,
    large_file,
    listing,
    of_one,
    reference,
    symlink,
    unpack_squashfs,
)

SMALL = LayerLimits(entries=300, expanded_bytes=1 << 20, file_bytes=1 << 20, table_bytes=1 << 18, header_bytes=1 << 12)


def test_what_the_tests_write_is_a_squashfs() -> None:
    data = of_one(b"f", file(5, 96, [5 | STORED]), data=b"hello")
    assert unpack_squashfs(data).read("f") == b"hello"


@pytest.mark.parametrize("name", [b"..", b".", b"a/b", b"/", b"a\0b", b"n" * 256])
def test_names_that_lead_elsewhere_are_refused(name: bytes) -> None:
    with pytest.raises((UnsafeLayer, BrokenLayer)):
        unpack_squashfs(of_one(name, file(0)))


def test_a_name_that_is_in_its_directory_twice_is_refused() -> None:
    names = listing((b"f", reference(ROOT_SIZE)), (b"f", reference(ROOT_SIZE)))
    with pytest.raises(BrokenLayer, match="'f' is in its directory twice"):
        unpack_squashfs(image(directory(0, len(names)) + file(0), names))


def test_names_of_one_inode_are_hard_links_wherever_they_are() -> None:
    inner = listing((b"g", reference(2 * ROOT_SIZE)))
    outer = listing((b"d", reference(ROOT_SIZE)), (b"f", reference(2 * ROOT_SIZE)))
    inodes = directory(len(inner), len(outer)) + directory(0, len(inner)) + file(0)
    tree = unpack_squashfs(image(inodes, inner + outer)).tree
    assert entry_at(tree, "f") is entry_at(tree, "d/g")


def test_a_directory_within_itself_is_refused() -> None:
    names = listing((b"again", reference(0)))
    with pytest.raises(BrokenLayer, match="'again' is a directory that has another name, too"):
        unpack_squashfs(image(directory(0, len(names)), names))


def test_a_directory_with_two_names_is_refused() -> None:
    names = listing((b"a", reference(ROOT_SIZE)), (b"b", reference(ROOT_SIZE)))
    with pytest.raises(BrokenLayer, match="'b' is a directory that has another name, too"):
        unpack_squashfs(image(directory(0, len(names)) + directory(0, 0), names))


def test_directories_that_share_their_names_do_not_grow_without_end() -> None:
    """Each of twenty levels has two names for the next one: a million paths, of forty inodes."""
    inodes, names = b"", b""
    levels = 20
    for level in range(levels):
        children = [2 * level + 1, 2 * level + 2] if level < levels - 1 else []
        here = listing(*((b"ab"[at : at + 1], reference(child * ROOT_SIZE)) for at, child in enumerate(children)))
        inodes += directory(len(names), len(here)) * (1 if level == 0 else 2)
        names += here
    with pytest.raises(BrokenLayer, match="is a directory that has another name, too"):
        unpack_squashfs(image(inodes, names))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (of_one(b"f", b"\x0f\0" + file(0)[2:]), "an inode of type 15"),
        (of_one(b"f", b"\0\0" + file(0)[2:]), "an inode of type 0"),
        (of_one(b"f", file(5, 96, [3 | STORED]), data=b"hello"), "a data block of 3 bytes at 96, where 5 are expected"),
        (of_one(b"f", file(5, 96, [BLOCK + 1]), data=b"hello"), "more than a block can have"),
        (of_one(b"f", file(5, 96, [5]), data=b"hello"), "a gzip block of the squashfs is damaged"),
        (of_one(b"f", file(5, 1 << 31, [5 | STORED])), "a data block at 2147483648, which is beyond its end"),
        (of_one(b"f", file(5, 96, fragment=0), data=b"hello"), "fragment 0, but has 0"),
        (of_one(b"f", file(5, fragment=0, offset=2), data=b"hello", fragments=[(96, 5 | STORED)]), "beyond fragment 0"),
        (of_one(b"f", file(BLOCK * 3000, 96)), "a metadata block|beyond its end"),
        (of_one(b"f", symlink(b"", 0)), "without a target"),
        (of_one(b"f", symlink(b"a\0b")), "with a zero byte"),
        (of_one(b"f", symlink(b"a", 5000)), "target of 5000 bytes; 4095 are allowed"),
        (of_one(b"f", file(0), ids=[]), "owner 0, but has 0"),
        (of_one(b"f", file(0), ids=[(1 << 32) - 1]), "belong to 4294967295, which no file can"),
        (of_one(b"f", large_file(0, xattrs=0)), "set of attributes 0, but has 0"),
        (of_one(b"f", large_file(0, xattrs=9), xattrs=(b"x", [(0, 1)])), "set of attributes 9, but has 1"),
        (of_one(b"f", large_file(0, xattrs=0), xattrs=(struct.pack("<HH", 7, 1) + b"a", [(0, 1)])), "attribute of type 7"),
        (of_one(b"f", large_file(0, xattrs=0), xattrs=(struct.pack("<HHI", 0x100, 0, 1) + b"a", [(0, 1)])), "place of its value"),
        (of_one(b"f", file(0), compressor_number=7), "an unknown compressor .number 7."),
        (of_one(b"f", file(0), compressor_number=3), "compressed with lzo"),
        (of_one(b"f", file(0), version=(3, 1)), "version 3.1"),
        (of_one(b"f", file(0), block_size=512), "blocks of 512 bytes"),
        (image(file(0), b""), "the root of the squashfs is no directory"),
        (image(directory(0, 9000), b""), "metadata block|beyond its end"),
        (image(directory(9000, 50), b"x"), "a reference to byte 9000 of the metadata block"),
        (image(directory(0, 60), struct.pack("<III", 300, 0, 0)), "a run of 301 names"),
        (image(directory(0, 21), listing((b"longer than it may be", 0))), "go beyond its end"),
        (image(directory(0, 0), b"", root=1 << 47), "beyond its end"),
        (b"", "shorter than its superblock"),
        (b"hsqs", "shorter than its superblock"),
        (bytes(96), "no squashfs"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(data: bytes, words: str) -> None:
    with pytest.raises((BrokenLayer, UnsafeLayer), match=words):
        unpack_squashfs(data)


def _huge(size: int, count: int = 1) -> bytes:
    """Files that are one hole each, in a few bytes."""
    inode = large_file(size, [0] * -(-size // (1 << 20)))
    names = listing(*((b"f%03d" % at, reference(ROOT_SIZE + at * len(inode))) for at in range(count)))
    return image(directory(0, len(names)) + inode * count, names, block_size=1 << 20)


@pytest.mark.parametrize(
    ("data", "limits", "words"),
    [
        (_huge(33 << 30), LayerLimits(), f"a file of {33 << 30} bytes; {32 << 30} are allowed"),
        (_huge(16 << 20, 5), LayerLimits(expanded_bytes=64 << 20), "expands to more than the 67108864 bytes"),
        (_huge(16 << 20, 5), LayerLimits(ratio=100, ratio_from=1 << 20), "expands to more than 100 times its size"),
        (_huge(0, 50), LayerLimits(entries=49), "more than the 49 names"),
        (
            of_one(b"f", large_file(0, xattrs=0), xattrs=(struct.pack("<HHI", 0, 0, 1 << 30), [(0, 1)])),
            LayerLimits(),
            "attribute of",
        ),
        (
            of_one(b"f", large_file(0, xattrs=0), xattrs=((struct.pack("<HHI", 0, 0, 40) + bytes(40)) * 99, [(0, 99)])),
            LayerLimits(header_bytes=1000),
            "more than 1000 bytes of extended attributes",
        ),
        (_huge(0, 200), LayerLimits(table_bytes=8192), "tables of more than the 8192 bytes"),
    ],
)
def test_bombs_are_refused_with_the_limit(data: bytes, limits: LayerLimits, words: str) -> None:
    with pytest.raises(UnsafeLayer, match=words):
        unpack_squashfs(data, limits=limits)


def test_attributes_that_many_sets_share_are_bounded_as_a_whole() -> None:
    """A thousand files with a set each, all of them made of the same bytes."""
    count = 1000
    inodes = b"".join(large_file(0, xattrs=number) for number in range(count))
    size = len(large_file(0))
    names = listing(*((b"f%04d" % at, reference(ROOT_SIZE + at * size)) for at in range(count)))
    pairs = b"".join(struct.pack("<HH", 0, 2) + b"%02d" % number + struct.pack("<I", 255) + bytes(255) for number in range(30))
    data = image(directory(0, len(names)) + inodes, names, xattrs=(pairs, [(0, 30)] * count))
    with pytest.raises(UnsafeLayer, match="tables of more than the 4194304 bytes"):
        unpack_squashfs(data, limits=LayerLimits(table_bytes=4 << 20))


def test_a_block_that_expands_to_more_than_a_block_is_refused() -> None:
    packed = zlib.compress(bytes(1 << 20))
    with pytest.raises(BrokenLayer, match="expands to more than the 4096 bytes"):
        unpack_squashfs(of_one(b"f", file(BLOCK, 96, [len(packed)]), data=packed))


def test_fragments_that_are_all_one_block_are_bounded_as_a_whole() -> None:
    """Each file needs one byte of a fragment of its own; each fragment is the same block, of a megabyte of zeros."""
    count, packed = 100, zlib.compress(bytes(1 << 20))
    inodes = b"".join(file(1, fragment=number) for number in range(count))
    names = listing(*((b"f%03d" % at, reference(ROOT_SIZE + at * len(file(1)))) for at in range(count)))
    fragments = [(96, len(packed))] * count
    data = image(directory(0, len(names)) + inodes, names, data=packed, fragments=fragments, block_size=1 << 20)
    assert unpack_squashfs(data).result.size == count
    with pytest.raises(UnsafeLayer, match="more than the 67108864 bytes"):
        unpack_squashfs(data, limits=LayerLimits(expanded_bytes=64 << 20))
    with pytest.raises(UnsafeLayer, match="more than 250 times its size"):
        unpack_squashfs(data, limits=LayerLimits(ratio_from=1 << 20))


def test_deep_paths_are_refused() -> None:
    names, inodes = b"", b""
    for depth in range(200):
        here = listing((b"d", reference((depth + 1) * ROOT_SIZE)))
        inodes += directory(len(names), len(here))
        names += here
    with pytest.raises(UnsafeLayer, match="deeper than the 128 levels"):
        unpack_squashfs(image(inodes + directory(0, 0), names))


def test_long_paths_are_refused() -> None:
    names, inodes = b"", b""
    for depth in range(10):
        here = listing((b"d" * 100, reference((depth + 1) * ROOT_SIZE)))
        inodes += directory(len(names), len(here))
        names += here
    with pytest.raises(UnsafeLayer, match="more than 500 bytes"):
        unpack_squashfs(image(inodes + directory(0, 0), names), limits=LayerLimits(path_bytes=500))


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small one with every kind of table, its tables not compressed, so that a changed byte changes a meaning."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("d", "d/e"):
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE
            tar.addfile(info)
        for number, size in enumerate((0, 10, 4096, 9000)):
            info = tarfile.TarInfo(f"d/f{number}")
            info.size, info.uid, info.pax_headers = size, number, {"SCHILY.xattr.user.n": str(number % 2)}
            tar.addfile(info, io.BytesIO(bytes(range(250)) * 36))
        info = tarfile.TarInfo("d/e/link")
        info.type, info.linkname = tarfile.SYMTYPE, "../f1"
        tar.addfile(info)
    options = ("-b", "4096", "-noI", "-noId", "-noX", "-no-exports")
    return squashfs(stream.getvalue(), tmp_path_factory.mktemp("real"), *options)


@pytest.fixture(scope="module")
def pipeline() -> Iterator[Pipeline]:
    with Pipeline(MemoryStore(), compressor("zlib-1"), PipelineLimits()) as opened:
        yield opened


def _named_refusal_or_tree(data: bytes, pipeline: Pipeline) -> str:
    try:
        result = unpack_squashfs(data, limits=SMALL, pipeline=pipeline).result
    except (BrokenLayer, UnsafeLayer) as error:
        return str(error)
    assert result.entries <= SMALL.entries
    return ""


def test_every_byte_may_be_any_other(real: bytes, pipeline: Pipeline) -> None:
    used = struct.unpack_from("<Q", real, 40)[0]
    reasons = set()
    for at in range(used):
        changed = bytearray(real)
        changed[at] ^= 0xFF
        reasons.add(_named_refusal_or_tree(bytes(changed), pipeline))
    assert len(reasons) > 30


@settings(max_examples=150)
@given(st.data())
def test_any_bytes_may_be_any_others(real: bytes, pipeline: Pipeline, data: st.DataObject) -> None:
    used = struct.unpack_from("<Q", real, 40)[0]
    changed = bytearray(real)
    for at, value in data.draw(st.lists(st.tuples(st.integers(0, used - 1), st.integers(0, 255)), min_size=1, max_size=6)):
        changed[at] = value
    _named_refusal_or_tree(bytes(changed), pipeline)


def test_a_cut_is_told_wherever_it_is(real: bytes, pipeline: Pipeline) -> None:
    used = struct.unpack_from("<Q", real, 40)[0]
    assert _named_refusal_or_tree(real[:used], pipeline) == "", "what stands behind it is padding"
    for size in range(0, used, 7):
        assert _named_refusal_or_tree(real[:size], pipeline)


@pytest.mark.parametrize("name", ["gzip", "lzma", "xz", "lz4", "zstd"])
def test_damage_in_compressed_blocks_is_told(tmp_path: Path, pipeline: Pipeline, name: str) -> None:
    info = tarfile.TarInfo("f")
    info.size = 9000
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        tar.addfile(info, io.BytesIO(bytes(range(250)) * 36))
    good = squashfs(stream.getvalue(), tmp_path, "-comp", name, "-b", "4096")
    used = struct.unpack_from("<Q", good, 40)[0]
    for at in range(96, used, 3):
        for value in (0x00, 0x01, 0xFF):
            changed = bytearray(good)
            changed[at] = value
            _named_refusal_or_tree(bytes(changed), pipeline)
