"""What a layer must not be: refused, with the member and the rule in the message, and in bounded memory."""

from __future__ import annotations

import gzip
import hashlib
import io
import resource
import stat
import zlib

import pytest

from mirror.errors import InvalidInput
from mirror.oci.digest import Digest
from publisher.errors import BrokenLayer, UnsafeLayer
from publisher.layers.ingest import ingest_layer
from publisher.layers.limits import LayerLimits
from publisher.objects.compress import compressor
from publisher.objects.pipeline import Pipeline, PipelineLimits
from tests.support.layers import archive, entry_at, header, ingest, padded, paths, pax
from tests.support.memory_store import MemoryStore

FILE = header(b"first")
SPARSE_10 = pax([(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0")])


def sparse_01(numbers: bytes, size: int, stored: int) -> bytes:
    records = [(b"GNU.sparse.map", numbers), (b"GNU.sparse.size", b"%d" % size)]
    return archive(pax(records), header(b"f", size=stored), bytes(512))


def long_name(name: bytes, kind: bytes = b"L") -> bytes:
    return header(b"././@LongLink", kind, len(name) + 1) + padded(name + b"\0")


UNSAFE = {
    "parent": (archive(header(b"a/../../etc/passwd")), r"'a/\.\./\.\./etc/passwd' has '\.\.'"),
    "parent in pax": (archive(pax([(b"path", b"../up")]), header(b"x")), r"'\.\./up' has '\.\.'"),
    "parent in long name": (archive(long_name(b"../up"), header(b"x")), r"'\.\./up' has '\.\.'"),
    "hard link out": (archive(header(b"l", b"1", link=b"../../etc/shadow")), r"hard link target '\.\./\.\./etc/shadow'"),
    "zero byte": (archive(pax([(b"path", b"a\0b")]), header(b"x")), r"zero byte"),
    "component too long": (archive(long_name(b"d/" + b"n" * 256), header(b"x")), r"component of more than 255 bytes"),
    "path too long": (archive(long_name(b"/".join([b"n" * 200] * 21)), header(b"x")), r"path of more than 4095 bytes"),
    "too deep": (archive(long_name(b"/".join([b"d"] * 129)), header(b"x")), r"129 levels deep; 128 are allowed"),
    "long target": (archive(long_name(b"t" * 5000, b"K"), header(b"s", b"2")), r"'s' has a target of more than"),
    "whiteout of nothing": (archive(header(b"d/.wh.")), r"'d/\.wh\.' is a deletion mark for no name"),
    "whiteout of parent": (archive(header(b".wh..")), r"deletion mark for no name"),
    "whiteout of grandparent": (archive(header(b".wh...")), r"deletion mark for no name"),
    "below a whiteout": (archive(header(b".wh.d/f")), r"'\.wh\.d/f' lies below a deletion mark"),
    "link to a mark": (archive(header(b"l", b"2", link=b".wh.x"), header(b"l/f")), r"reserved name '\.wh\.x'"),
    "link to a marker": (archive(header(b"l", b"2", link=b".cvmfscatalog"), header(b"l/f")), r"reserved name"),
    "huge file": (archive(header(b"f", size_field=b"\x80" + (1 << 60).to_bytes(11, "big"))), r"'f' has 1152921504606846976"),
    "huge hole": (
        archive(pax([(b"GNU.sparse.map", b"0,0"), (b"GNU.sparse.size", b"%d" % (1 << 60))]), header(b"f")),
        r"'f' has 1152921504606846976",
    ),
    "holes beyond reason": (
        archive(pax([(b"GNU.sparse.map", b"0,0"), (b"GNU.sparse.size", b"%d" % (1 << 30))]), header(b"f")),
        r"more than 250 times",
    ),
}

BROKEN = {
    "checksum": (archive(FILE, FILE[:20] + b"!" + FILE[21:]), r"checksum is wrong \(behind 'first'\)"),
    "rubbish": (b"no tar at all " * 100, r"checksum is wrong \(at the first member\)"),
    "cut header": (FILE + FILE[:100], r"cut within a header"),
    "cut data": (header(b"f", size=1000) + b"x" * 600, r"cut within"),
    "cut last block": (header(b"f", size=600) + b"x" * 599, r"cut within"),
    "cut extended header": (header(b"p", b"x", 400) + b"12 path=abc\n", r"cut within"),
    "nothing behind an extended header": (archive(pax([(b"path", b"x")])), r"ends behind an extended header"),
    "lone zero block": (FILE + bytes(512) + FILE, r"block of zeros between its members"),
    "unknown type": (archive(header(b"v", b"V")), r"type b'V'"),
    "negative size": (archive(header(b"f", size_field=(-512 & ((1 << 96) - 1)).to_bytes(12, "big"))), r"negative size"),
    "negative pax size": (archive(pax([(b"size", b"-512")]), header(b"f")), r"'f' has a negative size"),
    "bad octal": (archive(header(b"f", uid=b"0o17\0\0\0\0")), r"where a number is expected"),
    "bad octal digit": (archive(header(b"f", uid=b"0000089\0")), r"where a number is expected"),
    "owner": (archive(pax([(b"uid", b"4294967295")]), header(b"f")), r"'f' belongs to 4294967295:0"),
    "negative owner": (archive(pax([(b"gid", b"-1")]), header(b"f")), r"'f' belongs to 0:-1"),
    "time": (archive(pax([(b"mtime", b"9" * 19)]), header(b"f")), r"impossible modification time"),
    "time text": (archive(pax([(b"mtime", b"now")]), header(b"f")), r"where a time is expected"),
    "record length": (archive(header(b"p", b"x", 12), padded(b"99 path=abc\n"), FILE), r"record of a wrong length"),
    "record overlap": (archive(header(b"p", b"x", 12), padded(b"3 path=abcd\n"), FILE), r"record of a wrong length"),
    "no keyword": (archive(header(b"p", b"x", 8), padded(b"8 =abcd\n"), FILE), r"record without a keyword"),
    "number text": (archive(pax([(b"uid", b"1_000")]), header(b"f")), r"where a number is expected"),
    "no target": (archive(header(b"s", b"2")), r"symbolic link 's' has no target"),
    "link to nothing": (archive(header(b"l", b"1", link=b"gone")), r"'l' is a hard link to 'gone', which does not exist"),
    "link to directory": (archive(header(b"d", b"5"), header(b"l", b"1", link=b"d")), r"which is a directory"),
    "link to root": (archive(header(b"l", b"1", link=b"/")), r"which is a directory"),
    "link to deleted": (archive(header(b".wh.f"), header(b"l", b"1", link=b"f")), r"does not exist"),
    "root is a file": (archive(header(b"./")), r"root is not a directory"),
    "file as parent": (archive(header(b"f"), header(b"f/x")), r"'f' is no directory"),
    "loop": (archive(header(b"a", b"2", link=b"b"), header(b"b", b"2", link=b"a"), header(b"a/x")), r"more than 40 symbolic"),
    "sparse map not ascending": (sparse_01(b"5,5,0,5", 20, 10), r"does not ascend"),
    "sparse map overlong": (sparse_01(b"5,50", 20, 50), r"beyond the file's end"),
    "sparse map odd": (sparse_01(b"5,5,9", 20, 5), r"offset without a length"),
    "sparse map and data": (sparse_01(b"0,100", 200, 5), r"does not fit its data"),
    "sparse map without end": (
        archive(SPARSE_10, header(b"f", size=512), b"9" * 512, FILE),
        r"map takes more than",
    ),
    "gzip garbage": (b"\x1f\x8b\x08" + b"\xff" * 2000, r"gzip stream is damaged|cut"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNSAFE)
def test_unsafe_layers_are_refused(case: str) -> None:
    tar, message = UNSAFE[case]
    small = LayerLimits(ratio_from=1 << 20)
    with pytest.raises(UnsafeLayer, match=message):
        ingest(tar, limits=small)


@pytest.mark.parametrize("case", BROKEN)
def test_broken_layers_are_refused(case: str) -> None:
    tar, message = BROKEN[case]
    with pytest.raises(BrokenLayer, match=message):
        ingest(tar)


def test_every_cut_of_a_gzip_layer_is_noticed() -> None:
    tar = archive(header(b"f", size=3000), padded(bytes(range(250)) * 12))
    packed = gzip.compress(tar, mtime=0)
    for length in range(1, len(packed)):
        with pytest.raises((BrokenLayer, UnsafeLayer)):
            ingest(packed[:length], tar=tar)


def test_every_damaged_byte_of_a_gzip_layer_is_noticed() -> None:
    tar = archive(header(b"f", size=300), padded(b"abc" * 100))
    packed = gzip.compress(tar, mtime=0)
    for position in range(10, len(packed)):
        damaged = bytearray(packed)
        damaged[position] ^= 0x5A
        with pytest.raises((BrokenLayer, UnsafeLayer)):
            ingest(bytes(damaged), tar=tar)


def test_rubbish_behind_a_gzip_stream() -> None:
    with pytest.raises(BrokenLayer, match="followed by something else"):
        ingest(gzip.compress(archive(FILE)) + b"rubbish", tar=archive(FILE))


def test_a_wrong_diff_id_is_named() -> None:
    with pytest.raises(BrokenLayer, match=r"digest sha256:[0-9a-f]{64}, but the image's config says sha256:[0-9a-f]{64}"):
        ingest(archive(FILE), tar=b"something else")


def test_absolute_names_land_in_the_layer() -> None:
    tree = ingest(archive(header(b"/etc/passwd"), header(b"//x"), header(b"./y//z/./w"))).tree
    assert paths(tree) == ["etc", "etc/passwd", "x", "y", "y/z", "y/z/w"]


def test_symlink_targets_are_data() -> None:
    tree = ingest(archive(header(b"a", b"2", link=b"../../../etc/passwd"), header(b"b", b"2", link=b"/etc/shadow"))).tree
    assert (entry_at(tree, "a").symlink, entry_at(tree, "b").symlink) == (b"../../../etc/passwd", b"/etc/shadow")


def test_members_below_a_link_stay_in_the_layer() -> None:
    tar = archive(
        header(b"usr/bin", b"5"),
        header(b"bin", b"2", link=b"usr/bin"),
        header(b"bin/sh", size=2),
        padded(b"sh"),
        header(b"up", b"2", link=b"../../.."),
        header(b"up/here"),
        header(b"abs", b"2", link=b"/new/dir"),
        header(b"abs/there"),
        header(b"hard", b"1", link=b"up/bin/sh"),
    )
    layer = ingest(tar)
    assert paths(layer.tree) == [
        "abs",
        "bin",
        "hard",
        "here",
        "new",
        "new/dir",
        "new/dir/there",
        "up",
        "usr",
        "usr/bin",
        "usr/bin/sh",
    ]
    assert entry_at(layer.tree, "hard") is entry_at(layer.tree, "usr/bin/sh")


def test_devices_are_dropped_and_counted_with_their_links() -> None:
    tar = archive(
        header(b"dev/sda", b"4"), header(b"dev/null", b"3"), header(b"dev/link", b"1", link=b"dev/sda"), header(b"dev/ok")
    )
    layer = ingest(tar)
    assert paths(layer.tree) == ["dev", "dev/ok"]
    assert layer.result.notes.devices_dropped == 3


def test_a_device_0_0_does_not_delete() -> None:
    assert not any(entry.is_whiteout for _, entry in ingest(archive(header(b"x", b"3"))).tree.walk())


def test_names_that_catalogs_use_are_left_out_and_counted() -> None:
    tar = archive(
        header(b".cvmfscatalog"),
        header(b"d/.cvmfsautocatalog"),
        header(b"d/.cvmfsdirtab"),
        header(b"d/.cvmfsbundle-x"),
        header(b".cvmfscatalog/", b"5"),
        header(b".cvmfscatalog/below"),
        header(b"d/.wh..cvmfscatalog"),
        header(b"d/.wh..wh.plnk/1.2"),
        header(b"d/.cvmfs-is-fine"),
    )
    layer = ingest(tar)
    assert paths(layer.tree) == ["d", "d/.cvmfs-is-fine"]
    assert layer.result.notes.names_dropped == 8


def test_entries_are_bounded_implied_ones_included() -> None:
    limits = LayerLimits(entries=100)
    ingest(archive(*(header(b"f%d" % number) for number in range(100))), limits=limits)
    with pytest.raises(UnsafeLayer, match="more than the 100"):
        ingest(archive(*(header(b"f%d" % number) for number in range(101))), limits=limits)
    with pytest.raises(UnsafeLayer, match="more than the 100"):
        ingest(archive(*(header(b"%d/a/b/c/d" % number) for number in range(30))), limits=limits)
    with pytest.raises(UnsafeLayer, match="more than the 100"):
        ingest(archive(*([header(b"same")] * 101)), limits=limits)


def test_links_do_not_make_a_tree_deeper_than_allowed() -> None:
    parts = [header(b"/".join([b"d"] * 20), b"5")]
    previous = b"/".join([b"d"] * 20)
    for number in range(10):
        link = b"l%d" % number
        parts += [header(link, b"2", link=previous), header(link + b"/" + b"/".join([b"d"] * 20), b"5")]
        previous = link + b"/" + b"/".join([b"d"] * 20)
    with pytest.raises(UnsafeLayer, match="levels deep"):
        ingest(archive(*parts))


def test_work_along_links_is_bounded() -> None:
    winding = b"/".join([b"."] * 1500)
    parts = [pax([(b"linkpath", winding)]), header(b"l", b"2")]
    parts += [header(b"l/f%d" % number if number % 2 else b"f%d" % number) for number in range(400)]
    with pytest.raises(UnsafeLayer, match="far too many symbolic links"):
        ingest(archive(*parts), limits=LayerLimits(entries=1000))


def test_bombs_are_stopped_by_size_and_by_ratio() -> None:
    tar = archive(header(b"zeros", size=32 << 20), bytes(32 << 20))
    packed = gzip.compress(tar, 9)
    with pytest.raises(UnsafeLayer, match="more than the 1048576 bytes"):
        ingest(packed, tar=tar, limits=LayerLimits(expanded_bytes=1 << 20))
    with pytest.raises(UnsafeLayer, match="more than 250 times"):
        ingest(packed, tar=tar, limits=LayerLimits(ratio_from=1 << 20))
    assert ingest(packed, tar=tar).result.entries == 1
    with pytest.raises(UnsafeLayer, match="1048576 are allowed"):
        ingest(packed, tar=tar, limits=LayerLimits(file_bytes=1 << 20))


def test_padding_counts_as_expansion() -> None:
    tar = archive(FILE) + bytes(8 << 20)
    with pytest.raises(UnsafeLayer, match="more than the 1048576 bytes"):
        ingest(gzip.compress(tar), tar=tar, limits=LayerLimits(expanded_bytes=1 << 20))


class Zeros(io.RawIOBase):
    """A gzip stream of a head and then endless zeros, made while it is read."""

    def __init__(self, head: bytes) -> None:
        self._packer = zlib.compressobj(1, zlib.DEFLATED, 31)
        self._ready = self._packer.compress(head)
        self.asked = 0

    def read(self, size: int = -1, /) -> bytes:
        while len(self._ready) < size:
            self._ready += self._packer.compress(bytes(1 << 20))
        self.asked += size
        piece, self._ready = self._ready[:size], self._ready[size:]
        return piece


@pytest.mark.parametrize(
    "head",
    [
        header(b"p", b"x", 1 << 30),
        header(b"p", b"L", 1 << 30),
        SPARSE_10 + header(b"f", size=1 << 30) + b"99999999\n" + b"1\n" * 600,
        b"".join(pax([(b"comment", b"x" * 1000)]) for _ in range(1000)),
        b"".join(long_name(b"n" * 100) for _ in range(2000)),
        header(b"s", b"S", 0, magic=b"ustar  \0", at482=b"\1") + (b"%011o\0" % 1 * 42).ljust(512, b"\1") * 3000,
    ],
    ids=["pax", "long name", "sparse map", "many pax", "many long names", "sparse blocks"],
)  # fmt: skip
def test_a_gigabyte_of_extended_header_takes_no_memory(head: bytes) -> None:
    stream = Zeros(head)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with (
        Pipeline(MemoryStore(), compressor("libdeflate-1"), PipelineLimits()) as pipeline,
        pytest.raises((UnsafeLayer, BrokenLayer), match=r"1048576 bytes"),
    ):
        ingest_layer(stream, Digest("sha256", hashlib.sha256().hexdigest()), pipeline, LayerLimits())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40_000, "KiB of memory"
    assert stream.asked < 8 << 20, "it reads no further than it must"


def test_a_name_in_a_message_is_printable_and_short() -> None:
    with pytest.raises(UnsafeLayer) as caught:
        ingest(archive(long_name(b"../\x1b[31m\n" + b"x" * 3000), header(b"f")))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("wrong", [{"depth": 257}, {"depth": 0}, {"name_bytes": 256}, {"entries": 0}])
def test_limits_have_bounds(wrong: dict[str, int]) -> None:
    with pytest.raises(InvalidInput):
        LayerLimits(**wrong)


def test_setuid_is_kept() -> None:
    tree = ingest(archive(header(b"su", mode=b"0004755\0"))).tree
    assert entry_at(tree, "su").mode == stat.S_IFREG | stat.S_ISUID | 0o755
