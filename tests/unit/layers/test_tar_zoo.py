"""Archives of every kind that tools write, and what is read from them."""

from __future__ import annotations

import gzip
import io
import stat
import tarfile

import pytest

from publisher.objects.pipeline import PipelineLimits
from tests.support.layers import archive, content_of, directory_at, entry_at, header, ingest, padded, paths, pax


def written(format_: int, *members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=format_, errors="surrogateescape") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def info(name: str, kind: bytes = tarfile.REGTYPE, **facts: object) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = kind
    for fact, value in facts.items():
        setattr(member, fact, value)
    return member


@pytest.mark.parametrize("format_", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("packed", [False, True])
def test_every_kind_of_member_in_every_format(format_: int, packed: bool) -> None:
    tar = written(
        format_,
        (info("./", tarfile.DIRTYPE, mode=0o711, mtime=7), b""),
        (info("./a", tarfile.DIRTYPE, mode=0o1777, uid=3, gid=4, mtime=1_600_000_000), b""),
        (info("./a/file", mode=0o4755, uid=1000, gid=100, mtime=1_700_000_000), b"content\n"),
        (info("./a/empty"), b""),
        (info("./a/link", tarfile.SYMTYPE, linkname="../../$(odd) target", mode=0o777), b""),
        (info("./a/hard", tarfile.LNKTYPE, linkname="./a/file"), b""),
        (info("./b/hard", tarfile.LNKTYPE, linkname="/a/file"), b""),
        (info("./a/fifo", tarfile.FIFOTYPE, mode=0o600), b""),
    )
    layer = ingest(gzip.compress(tar) if packed else tar, tar=tar)
    assert paths(layer.tree) == ["a", "a/empty", "a/fifo", "a/file", "a/hard", "a/link", "b", "b/hard"]
    assert (layer.tree.entry.mode, layer.tree.entry.mtime) == (stat.S_IFDIR | 0o711, 7)
    directory = entry_at(layer.tree, "a")
    assert (directory.mode, directory.uid, directory.gid, directory.mtime) == (stat.S_IFDIR | 0o1777, 3, 4, 1_600_000_000)
    file = entry_at(layer.tree, "a/file")
    assert (file.mode, file.uid, file.gid, file.mtime, file.size) == (stat.S_IFREG | 0o4755, 1000, 100, 1_700_000_000, 8)
    assert layer.read("a/file") == b"content\n"
    assert layer.read("a/empty") == b""
    assert entry_at(layer.tree, "a/hard") is file
    assert entry_at(layer.tree, "b/hard") is file
    assert entry_at(layer.tree, "a/link").symlink == b"../../$(odd) target"
    assert stat.S_ISFIFO(entry_at(layer.tree, "a/fifo").mode)
    assert (layer.result.entries, layer.result.size) == (8, len(tar))


@pytest.mark.parametrize("format_", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_targets(format_: int) -> None:
    long_name = "/".join(["d" * 200] * 5)
    tar = written(
        format_,
        (info(long_name + "/f"), b"deep"),
        (info("soft", tarfile.SYMTYPE, linkname="t" * 900), b""),
        (info("hard", tarfile.LNKTYPE, linkname=long_name + "/f"), b""),
    )
    layer = ingest(tar)
    assert layer.read(long_name + "/f") == b"deep"
    assert entry_at(layer.tree, "soft").symlink == b"t" * 900
    assert entry_at(layer.tree, "hard") is entry_at(layer.tree, long_name + "/f")


def test_ustar_prefix() -> None:
    name = "p" * 90 + "/" + "n" * 90
    assert ingest(written(tarfile.USTAR_FORMAT, (info(name), b"x"))).read(name) == b"x"


def test_a_prefix_without_posix_magic_is_no_name() -> None:
    """GNU tar keeps times there, v7 anything."""
    for magic in (b"ustar  \0", bytes(8)):
        tar = archive(header(b"file", magic=magic, prefix=b"14000000000"))
        assert paths(ingest(tar).tree) == ["file"]


def test_v7_directories_end_with_a_slash() -> None:
    tar = archive(header(b"dir/", b"\0", magic=bytes(8)), header(b"dir/f", b"\0", 3, magic=bytes(8)), padded(b"abc"))
    layer = ingest(tar)
    assert entry_at(layer.tree, "dir").is_directory
    assert layer.read("dir/f") == b"abc"


@pytest.mark.parametrize("format_", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_need_not_be_utf8(format_: int) -> None:
    raw = b"caf\xe9-\xff"
    tar = written(format_, (info(raw.decode("utf-8", "surrogateescape") * 30), b"x"))
    assert list(ingest(tar).tree.children) == [raw * 30]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"1700000000.123456789", (1_700_000_000, 123_456_789)),
        (b"1700000000.1", (1_700_000_000, 100_000_000)),
        (b"1700000000.1234567899", (1_700_000_000, 123_456_789)),
        (b"1700000000", (1_700_000_000, 0)),
        (b"5.", (5, 0)),
        (b"-1.5", (-2, 500_000_000)),
        (b"-3", (-3, 0)),
        (b"-0.000000001", (-1, 999_999_999)),
    ],
)
def test_pax_times_are_exact(text: bytes, expected: tuple[int, int]) -> None:
    entry = entry_at(ingest(archive(pax([(b"mtime", text)]), header(b"f"))).tree, "f")
    assert (entry.mtime, entry.mtime_ns) == expected


def test_pax_owners_sizes_and_taken_back_values() -> None:
    tar = archive(
        pax([(b"uid", b"4294967294"), (b"gid", b"70000"), (b"size", b"5"), (b"path", b"wrong"), (b"path", b"")]),
        header(b"f", size=0),
        padded(b"12345"),
    )
    layer = ingest(tar)
    assert (entry_at(layer.tree, "f").uid, entry_at(layer.tree, "f").gid) == (4294967294, 70000)
    assert layer.read("f") == b"12345"


def test_base_256_numbers() -> None:
    negative = (-5 & ((1 << 96) - 1)).to_bytes(12, "big")
    tar = archive(header(b"f", uid=b"\x80" + (3_000_000).to_bytes(7, "big"), mtime=negative))
    entry = entry_at(ingest(tar).tree, "f")
    assert (entry.uid, entry.mtime) == (3_000_000, -5)


def test_global_headers_change_nothing() -> None:
    tar = archive(pax([(b"comment", b"commit"), (b"uid", b"7"), (b"path", b"evil")], b"g"), header(b"f"), header(b"g"))
    tree = ingest(tar).tree
    assert paths(tree) == ["f", "g"]
    assert entry_at(tree, "f").uid == 0


def test_user_xattrs_are_kept_and_others_counted() -> None:
    tar = archive(
        pax(
            [
                (b"SCHILY.xattr.user.b", b"\x00bin\nary\xff="),
                (b"SCHILY.xattr.user.a", b""),
                (b"SCHILY.xattr.security.capability", b"\x01\x00\x00\x02"),
                (b"SCHILY.xattr.trusted.overlay.opaque", b"y"),
                (b"SCHILY.xattr.user.overlay.redirect", b"/etc"),
                (b"SCHILY.xattr.system.posix_acl_access", b"acl"),
                (b"SCHILY.xattr.user.large", b"x" * 256),
            ]
        ),
        header(b"f"),
    )
    layer = ingest(tar)
    assert entry_at(layer.tree, "f").xattrs == ((b"user.a", b""), (b"user.b", b"\x00bin\nary\xff="))
    assert (layer.result.notes.xattrs_dropped, layer.result.notes.capabilities_dropped) == (4, 1)


def test_files_are_chunked_above_the_limit() -> None:
    limits = PipelineLimits(chunk_above=1000, chunk_size=512, bytes_in_flight=8192, batch=1024)
    content = bytes(range(256)) * 10
    tar = written(tarfile.PAX_FORMAT, (info("small"), content[:1000]), (info("large"), content), (info("after"), b"x"))
    layer = ingest(tar, pipeline_limits=limits)
    assert [len(entry_at(layer.tree, name).chunks) for name in ("small", "large", "after")] == [0, 5, 0]
    assert (layer.read("small"), layer.read("large"), layer.read("after")) == (content[:1000], content, b"x")


SPARSE_DATA = b"A" * 512 + b"B" * 100
SPARSE_CONTENT = bytes(1000) + b"A" * 512 + bytes(488) + b"B" * 100 + bytes(900)


def sparse_archives() -> dict[str, bytes]:
    pieces = ((1000, 512), (2000, 100), (3000, 0))
    old = b"".join(b"%011o\0%011o\0" % piece for piece in pieces)
    extended = b"%011o\0%011o\0" % pieces[-1]
    map_10 = b"\n".join([b"3", *(b"%d\n%d" % piece for piece in pieces)]) + b"\n"
    names = [(b"GNU.sparse.name", b"sparse"), (b"GNU.sparse.realsize", b"3000")]
    numbered = [
        record
        for offset, length in pieces
        for record in ((b"GNU.sparse.offset", b"%d" % offset), (b"GNU.sparse.numbytes", b"%d" % length))
    ]
    data = padded(SPARSE_DATA)
    after = header(b"after", size=2) + padded(b"ok")
    gnu = {"magic": b"ustar  \0"}
    return {
        "gnu": archive(header(b"sparse", b"S", 612, at386=old, at482=b"\0" + b"%011o\0" % 3000, **gnu), data, after),
        "gnu, continued": archive(
            header(b"sparse", b"S", 612, at386=old[:48], at482=b"\1" + b"%011o\0" % 3000, **gnu),
            extended.ljust(512, b"\0"),
            data,
            after,
        ),
        "pax 0.0": archive(
            pax([(b"GNU.sparse.size", b"3000"), (b"GNU.sparse.numblocks", b"3"), *numbered]),
            header(b"sparse", size=612),
            data,
            after,
        ),
        "pax 0.1": archive(
            pax([(b"GNU.sparse.map", b"1000,512,2000,100,3000,0"), (b"GNU.sparse.size", b"3000"), names[0]]),
            header(b"GNUSparseFile.0/sparse", size=612),
            data,
            after,
        ),
        "pax 1.0": archive(
            pax([(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), *names]),
            header(b"GNUSparseFile.0/sparse", size=512 + 612),
            padded(map_10),
            data,
            after,
        ),
    }


@pytest.mark.parametrize("kind", sparse_archives())
def test_sparse_files_have_their_holes(kind: str) -> None:
    layer = ingest(sparse_archives()[kind])
    assert paths(layer.tree) == ["after", "sparse"]
    assert entry_at(layer.tree, "sparse").size == 3000
    assert layer.read("sparse") == SPARSE_CONTENT
    assert layer.read("after") == b"ok"


@pytest.mark.parametrize("kind", sparse_archives())
def test_sparse_files_can_be_chunked(kind: str) -> None:
    limits = PipelineLimits(chunk_above=700, chunk_size=700, bytes_in_flight=8192, batch=1024)
    layer = ingest(sparse_archives()[kind], pipeline_limits=limits)
    assert len(entry_at(layer.tree, "sparse").chunks) == 5
    assert content_of(layer.store, entry_at(layer.tree, "sparse")) == SPARSE_CONTENT


def test_gzip_members_in_a_row_with_padding() -> None:
    tar = written(tarfile.PAX_FORMAT, (info("f"), b"x" * 5000))
    packed = gzip.compress(tar[:700]) + gzip.compress(b"") + gzip.compress(tar[700:])
    assert ingest(packed + bytes(300), tar=tar).read("f") == b"x" * 5000


def test_bytes_behind_the_end_are_part_of_the_digest_only() -> None:
    tar = archive(header(b"f")) + header(b"hidden") + b"rubbish" * 1000
    layer = ingest(tar)
    assert paths(layer.tree) == ["f"]
    assert layer.result.size == len(tar)


@pytest.mark.parametrize("tar", [b"", bytes(512), bytes(1024), bytes(10240)])
def test_an_empty_layer(tar: bytes) -> None:
    layer = ingest(tar)
    assert (layer.result.entries, layer.tree.children) == (0, {})
    assert layer.tree.entry.mode == stat.S_IFDIR | 0o755


def test_an_archive_may_lack_its_end() -> None:
    assert ingest(header(b"f", size=3) + padded(b"abc")).read("f") == b"abc"


def test_progress_is_told_and_can_stop_the_work() -> None:
    tar = written(tarfile.PAX_FORMAT, *((info(f"f{number}"), bytes(1 << 20)) for number in range(20)))
    told: list[tuple[int, int]] = []
    ingest(tar, progress=lambda size, members: told.append((size, members)))
    assert told == sorted(told)
    assert len(told) == 2

    def stop(size: int, members: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        ingest(tar, progress=stop)


def test_parents_that_the_archive_lacks_are_made() -> None:
    tree = ingest(archive(header(b"a/b/c"), header(b"a/", b"5", mode=b"0000700\0"))).tree
    assert entry_at(tree, "a").mode == stat.S_IFDIR | 0o700
    assert entry_at(tree, "a/b").mode == stat.S_IFDIR | 0o755
    assert list(directory_at(tree, "a/b").children) == [b"c"]


def test_an_archive_without_its_last_padding_is_read_as_umoci_writes_it() -> None:
    tar = header(b"f", size=600) + b"x" * 600
    layer = ingest(tar)
    assert layer.read("f") == b"x" * 600
