"""squashfs images that squashfs-tools made, compared with the archive or directory that they were made of."""

from __future__ import annotations

import io
import stat
import sysconfig
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from publisher.cvmfs.entry import Directory
from publisher.layers.policy import LayerPolicy
from tests.support.comparison import published
from tests.support.layers import content_of, entry_at, header, ingest
from tests.support.memory_store import MemoryStore
from tests.support.sif_images import squashfs
from tests.support.squashfs_images import Unpacked, unpack_squashfs
from tests.support.tool import run
from tests.support.unpacked import Found, walk

COMPRESSORS = ("gzip", "lzma", "xz", "lz4", "zstd")
MTIME = 1_700_000_000


def _members() -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    def member(name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", **facts: object) -> tuple[tarfile.TarInfo, bytes]:
        info = tarfile.TarInfo(name)
        info.type, info.size, info.mtime = kind, len(content), MTIME
        for fact, value in facts.items():
            setattr(info, fact, value)
        return info, content

    def xattrs(**values: str) -> dict[str, str]:
        return {f"SCHILY.xattr.{name.replace('__', '.')}": value for name, value in values.items()}

    noise = bytes((i * i * 31 + i // 255) & 0xFF for i in range(300_001))
    yield member("etc", tarfile.DIRTYPE, mode=0o1777, uid=3, gid=4)
    yield member("etc/passwd", content=b"root:x:0:0\n", uid=4_294_967_294, gid=70_000)
    yield member("etc/empty", mode=0o000)
    yield member("etc/su", content=b"#!/bin/sh\n", mode=0o4755)
    yield member("etc/hard", tarfile.LNKTYPE, linkname="etc/passwd")
    yield member("elsewhere", tarfile.DIRTYPE, mode=0o700)
    yield member("elsewhere/hard", tarfile.LNKTYPE, linkname="etc/passwd")
    yield member("elsewhere/link", tarfile.SYMTYPE, linkname="../../$(odd) target", mode=0o777)
    yield member("elsewhere/fifo", tarfile.FIFOTYPE, mode=0o600)
    yield member("elsewhere/null", tarfile.CHRTYPE, devmajor=1, devminor=3)
    yield member("elsewhere/disk", tarfile.BLKTYPE, devmajor=8)
    yield member("marked", tarfile.DIRTYPE, mode=0o755, pax_headers=xattrs(user__of_a_directory="yes"))
    yield member("marked/one", content=b"1", pax_headers=xattrs(user__note="a note", user__long="v" * 200))
    yield member("marked/two", content=b"2", pax_headers=xattrs(user__note="a note", trusted__hidden="x"))
    yield member("marked/able", content=b"3", pax_headers=xattrs(security__capability="c" * 20))
    yield member("marked/.cvmfscatalog", content=b"")
    yield member("marked/.wh.kept", content=b"an ordinary name here")
    yield member("noise", content=noise)
    yield member("noise-again", content=noise)
    yield member("a-block", content=noise[:131_072])
    yield member("blocks", content=noise[:262_144])
    yield member("holes", content=bytes(400_000) + b"end" + bytes(300_000))
    yield member("only-a-hole", content=bytes(262_144))
    yield member("\u00e5ngstr\u00f6m \u2603\n" + "n" * 200, content=b"odd name")
    deep = "deep" + "/d" * 60
    for depth in range(1, 62):
        yield member("/".join(deep.split("/")[:depth]), tarfile.DIRTYPE, mode=0o755)
    yield member(f"{deep}/bottom", content=b"bottom")
    yield member("many", tarfile.DIRTYPE, mode=0o755)
    for number in range(1500):
        yield member(f"many/{number:04}-{'x' * (number % 60)}", content=b"%d" % (number % 700), uid=number % 9)


@pytest.fixture(scope="module")
def archive() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, content in _members():
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def _facts(tree: Directory, store: MemoryStore) -> dict[str, Found]:
    found = published(tree, lambda entry: [content_of(store, entry)])
    first: dict[int, str] = {}
    return {path: replace(one, inode=hash(first.setdefault(one.inode, path))) for path, one in sorted(found.items())}


@pytest.mark.parametrize("name", COMPRESSORS)
def test_it_is_what_the_reader_of_layers_makes_of_the_same_archive(archive: bytes, tmp_path: Path, name: str) -> None:
    unpacked = unpack_squashfs(squashfs(archive, tmp_path, "-comp", name))
    _same_as_archive(unpacked, archive)


@pytest.mark.parametrize(
    "options",
    [
        ("-b", "4096"),
        ("-b", "1048576"),
        ("-no-fragments",),
        ("-always-use-fragments",),
        ("-no-duplicates", "-no-exports"),
        ("-noI", "-noId", "-noD", "-noF", "-noX"),
        ("-comp", "xz", "-Xbcj", "x86", "-Xdict-size", "8K"),
        ("-comp", "lz4", "-Xhc"),
        ("-comp", "zstd", "-Xcompression-level", "22", "-b", "1048576"),
        ("-comp", "gzip", "-Xcompression-level", "1", "-Xstrategy", "huffman_only"),
    ],
    ids=" ".join,
)
def test_it_is_the_same_with_all_options(archive: bytes, tmp_path: Path, options: tuple[str, ...]) -> None:
    _same_as_archive(unpack_squashfs(squashfs(archive, tmp_path, *options)), archive)


def _same_as_archive(unpacked: Unpacked, archive: bytes) -> None:
    """Up to `.wh.`, which is a deletion in a layer and an ordinary name here."""
    layer = ingest(archive)
    ours, theirs = _facts(unpacked.tree, unpacked.store), _facts(layer.tree, layer.store)
    assert unpacked.read("marked/.wh.kept") == b"an ordinary name here"
    del ours["marked/.wh.kept"], theirs["marked/kept"]
    assert len(ours) > 1500
    assert ours == theirs
    assert (unpacked.tree.entry.mode, unpacked.tree.entry.uid) == (stat.S_IFDIR | 0o755, 0)
    assert unpacked.result.entries == layer.result.entries == len(ours) + 1
    assert unpacked.result.notes == layer.result.notes
    assert unpacked.result.notes.devices_dropped == 2


def test_what_is_kept_is_the_policys_choice(archive: bytes, tmp_path: Path) -> None:
    policy = LayerPolicy(setuid=False, capabilities=True)
    unpacked = unpack_squashfs(squashfs(archive, tmp_path), policy=policy)
    assert stat.S_IMODE(entry_at(unpacked.tree, "etc/su").mode) == 0o755
    assert entry_at(unpacked.tree, "marked/able").xattrs == ((b"security.capability", b"c" * 20),)
    assert (unpacked.result.notes.setuid_dropped, unpacked.result.notes.capabilities_kept) == (1, 1)


def test_a_compressor_that_cannot_be_read_is_refused_by_name(archive: bytes, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="compressed with lzo, which cannot be unpacked; gzip, lzma, xz, lz4 and zstd can"):
        unpack_squashfs(squashfs(archive, tmp_path, "-comp", "lzo"))


def test_it_is_what_unsquashfs_unpacks(tmp_path: Path) -> None:
    """Of a directory on this machine that has some hundred files of all sizes."""
    source, made, target = Path(sysconfig.get_path("stdlib")) / "encodings", tmp_path / "made.sqfs", tmp_path / "unpacked"
    run(["mksquashfs", source, made, "-quiet", "-no-progress", "-processors", "1", "-xattrs"])
    run(["unsquashfs", "-quiet", "-no-progress", "-dest", target, made])
    unpacked = unpack_squashfs(made.read_bytes())
    ours = _plain(published(unpacked.tree, lambda entry: [content_of(unpacked.store, entry)]).values())
    assert len(ours) > 100
    assert ours == _plain(found for found in walk(target) if found.path)


def _plain(objects: Iterable[Found]) -> list[Found]:
    """Without what only root can restore on a disk, and without identities."""
    plain = [replace(found, uid=0, gid=0, inode=0, xattrs={}) for found in objects]
    return sorted(plain, key=lambda found: found.path)


def test_more_inodes_than_sixteen_bits_count(tmp_path: Path) -> None:
    count = (1 << 16) + 500
    names = [f"{number % 1000:03}/{number:06}" for number in range(count)]
    template = header(b"000/000000", b"2", link=b"target", mtime=b"00000000007\0")
    directories = [header(b"%03d/" % number, b"5", mode=b"0000755\0") for number in range(1000)]
    links = [_renamed(template, name.encode()) for name in names]
    tree = unpack_squashfs(squashfs(b"".join([*directories, *links]) + bytes(1024), tmp_path)).tree
    found = [path.decode() for path, entry in tree.walk() if entry.symlink == b"target"]
    assert sorted(found) == sorted(names)


def _renamed(template: bytes, name: bytes) -> bytes:
    block = bytearray(template)
    block[: len(name)] = name
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def test_files_of_the_same_content_are_read_once(archive: bytes, tmp_path: Path) -> None:
    unpacked = unpack_squashfs(squashfs(archive, tmp_path))
    one, two = entry_at(unpacked.tree, "noise"), entry_at(unpacked.tree, "noise-again")
    assert one is not two
    assert one.content == two.content
