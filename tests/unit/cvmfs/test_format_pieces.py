from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.errors import InvalidInput
from publisher.cvmfs import codec, symlink, xattr
from publisher.cvmfs.entry import Compression
from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.cvmfs.objects import ReadLimits, VerifiedObjects
from publisher.cvmfs.path import NO_PARENT, ancestors, basename, check_names, is_below, normalise, parent, parent_key, path_key
from publisher.cvmfs.statistics import Counters, Statistics
from publisher.errors import RepositoryDamaged
from tests.support.memory_store import MemoryStore

NAMES = st.binary(min_size=1, max_size=255).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in {b".", b".."}
)


def test_key_of_the_root_is_the_one_of_every_repository() -> None:
    assert path_key(b"") == (338333539836370388, 9098107892288553193)
    assert path_key(b"/nested") == (135610778579351371, -4043869090301518462)
    assert parent_key(b"") == NO_PARENT
    assert parent_key(b"/nested") == path_key(b"")


def test_paths() -> None:
    assert normalise(b"a/b") == normalise(b"/a/b") == b"/a/b"
    assert normalise(b"/") == normalise(b"") == b""
    assert ancestors(b"/a/b") == [b"", b"/a", b"/a/b"]
    assert ancestors(b"") == [b""]
    assert (parent(b"/a/b"), basename(b"/a/b"), parent(b"/a")) == (b"/a", b"b", b"")
    assert is_below(b"/a/b", b"/a")
    assert not is_below(b"/ab", b"/a")
    assert not is_below(b"/a", b"/a")


@pytest.mark.parametrize("path", [b"a//b", b"/a/", b"a/./b", b"../a", b"a\0b", b"n" * 256, b"x/" * 2048 + b"x"])
def test_impossible_paths_are_refused(path: bytes) -> None:
    with pytest.raises(InvalidInput):
        normalise(path)


@given(st.lists(NAMES))
def test_possible_names_pass(names: list[bytes]) -> None:
    check_names(names)


@given(st.lists(NAMES), st.sampled_from([b"", b".", b"..", b"a/b", b"a\0", b"/", b"n" * 256]), st.data())
def test_one_impossible_name_among_many_is_found(names: list[bytes], bad: bytes, data: st.DataObject) -> None:
    names.insert(data.draw(st.integers(0, len(names))), bad)
    with pytest.raises(InvalidInput):
        check_names(names)


@given(st.binary())
def test_symbolic_links_survive_the_clients_expansion(target: bytes) -> None:
    assert symlink.unescape(symlink.escape(target)) == target


@given(st.lists(st.sampled_from([b"$(", b")", b":-", b"$", b"(", b"X", b"/"])).map(b"".join))
def test_symbolic_links_made_of_dangerous_parts(target: bytes) -> None:
    assert symlink.unescape(symlink.escape(target)) == target


def test_expansion_is_the_clients() -> None:
    assert symlink.escape(b"/opt/$(HOME)/x") == b"/opt/$(:-$)(HOME)/x"
    assert symlink.unescape(b"x-$(UNSET:-dflt)-y") == b"x-dflt-y"
    assert symlink.unescape(b"x-$(UNSET)-y$(open") == b"x--y$(open"
    assert symlink.unescape(b"$$NAME ${NAME}") == b"$$NAME ${NAME}"


@given(st.dictionaries(st.binary(min_size=1, max_size=255).filter(lambda name: b"\0" not in name), st.binary(max_size=255)))
def test_xattrs_survive_the_round_trip(attributes: dict[bytes, bytes]) -> None:
    pairs = tuple(sorted(attributes.items()))
    assert xattr.representable(pairs) == pairs
    assert xattr.decode(xattr.encode(pairs)) == pairs


def test_unrepresentable_xattrs_are_left_out() -> None:
    pairs = ((b"", b"x"), (b"user.a", b"v" * 256), (b"user.b", b"ok"), (b"u\0ser", b"x"), (b"k" * 256, b"x"))
    assert xattr.representable(pairs) == ((b"user.b", b"ok"),)
    assert len(xattr.representable([(b"user.%d" % number, b"") for number in range(300)])) == 255
    assert xattr.encode(()) is None


@given(st.binary(min_size=1, max_size=40))
def test_foreign_xattr_blobs_are_read_or_refused(blob: bytes) -> None:
    try:
        pairs = xattr.decode(blob)
    except RepositoryDamaged:
        return
    assert len(pairs) == blob[1]


@given(st.binary(max_size=5000), st.sampled_from([codec.compress, codec.compress_like_reference]))
def test_metadata_objects_survive_the_round_trip(content: bytes, pack: object) -> None:
    assert callable(pack)
    assert codec.decompress(pack(content), len(content)) == content


def test_damaged_and_oversized_objects_are_refused() -> None:
    stored = codec.compress(bytes(100_000))
    for bad in (b"", b"junk" * 10, stored[:-1], stored[:20], stored + b"x"):
        with pytest.raises(RepositoryDamaged):
            codec.decompress(bad, 100_000)
    with pytest.raises(RepositoryDamaged, match="larger than"):
        codec.decompress(stored, 99_999)
    with pytest.raises(RepositoryDamaged, match="not 100001"):
        codec.expand(stored, Compression.ZLIB, 100_001)
    with pytest.raises(RepositoryDamaged, match="not 3"):
        codec.expand(b"abcd", Compression.NONE, 3)


@pytest.mark.parametrize("size", [10, (16 << 20) + 10])
def test_what_is_stored_as_it_is_is_checked_also_in_pieces(size: int) -> None:
    store = MemoryStore()
    stored = bytes(size - 1) + b"."
    content = ContentHash.of(stored)
    check = VerifiedObjects(store, ReadLimits()).check_data
    with pytest.raises(RepositoryDamaged, match="missing"):
        check(content, ObjectKind.DATA, Compression.NONE, size)
    store.put(content, ObjectKind.DATA, stored)
    check(content, ObjectKind.DATA, Compression.NONE, size)
    with pytest.raises(RepositoryDamaged, match=f"{size} bytes, not {size + 1}"):
        check(content, ObjectKind.DATA, Compression.NONE, size + 1)
    store.contents[content, ObjectKind.DATA] = bytes(size)
    with pytest.raises(RepositoryDamaged, match="another hash"):
        check(content, ObjectKind.DATA, Compression.NONE, size)


def test_statistics_need_every_counter() -> None:
    statistics = Statistics(Counters(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12), Counters(dir=1))
    rows = dict(statistics.rows())
    assert len(rows) == 24
    assert Statistics.parse(rows) == statistics
    assert statistics.total - statistics.subtree == statistics.own
    del rows["subtree_external_file_size"]
    with pytest.raises(RepositoryDamaged, match="subtree_external_file_size"):
        Statistics.parse(rows)
