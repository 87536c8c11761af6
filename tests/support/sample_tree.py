"""Trees with every kind of object that a layer can hold."""

from __future__ import annotations

import os
import random
import stat

from publisher.cvmfs import codec
from publisher.cvmfs.entry import Chunk, Compression, Directory, Entry
from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.objects.store import ObjectStore

MTIME = 1_700_000_000


def directory(mode: int = 0o755, mtime: int = MTIME, **facts: object) -> Directory:
    return Directory(Entry(mode=stat.S_IFDIR | mode, mtime=mtime, **facts))  # type: ignore[arg-type]


def put_content(store: ObjectStore, data: bytes, kind: ObjectKind = ObjectKind.DATA) -> ContentHash:
    stored = codec.compress(data)
    content = ContentHash.of(stored)
    store.put(content, kind, stored)
    return content


def regular(store: ObjectStore, data: bytes, mode: int = 0o644, **facts: object) -> Entry:
    values: dict[str, object] = {"mtime": MTIME, **facts}
    return Entry(mode=stat.S_IFREG | mode, size=len(data), content=put_content(store, data), **values)  # type: ignore[arg-type]


def chunked(store: ObjectStore, pieces: list[bytes], **facts: object) -> Entry:
    chunks = []
    offset = 0
    for piece in pieces:
        chunks.append(Chunk(offset, len(piece), put_content(store, piece, ObjectKind.CHUNK)))
        offset += len(piece)
    return Entry(mode=stat.S_IFREG | 0o644, mtime=MTIME, size=offset, chunks=tuple(chunks), **facts)  # type: ignore[arg-type]


def link(target: bytes, mtime: int = MTIME) -> Entry:
    return Entry(mode=stat.S_IFLNK | 0o777, mtime=mtime, symlink=target)


def everything(store: ObjectStore) -> Directory:
    """One directory with all kinds of objects, names, times, owners, links and attributes."""
    top = directory(mtime_ns=5)
    files = top.children[b"files"] = directory()
    files.children = {
        b"hello.txt": regular(store, b"hello\n"),
        b"empty": regular(store, b""),
        b"setuid": regular(store, b"#!/bin/sh\n", 0o4755),
        b"sticky": regular(store, b"s", 0o3640),
        b"nobody": regular(store, b"n", 0, uid=4294967294, gid=100000),
        b"before-1970": regular(store, b"old", mtime=-86_400 * 365 * 50, mtime_ns=999_999_999),
        b"after-2038": regular(store, b"new", mtime=4_102_444_800, mtime_ns=1),
        b"chunked": chunked(store, [random.Random(1).randbytes(70_000), bytes(100_000), b"end"]),
        b"raw": _raw(store, b"stored without compression"),
        b"attributes": regular(
            store,
            b"x",
            xattrs=(
                (b"security.capability", b"\x01\x00\x00\x02\x00\x20" + bytes(14)),
                (b"user.empty", b""),
                (b"user." + b"k" * 250, b"1"),
                (b"user.long", b"v" * 255),
            ),
        ),
    }
    names = top.children[b"names"] = directory()
    for name in (
        b"sp ace",
        b"new\nline",
        b"quote'\"",
        "Grüße-日本語".encode(),
        b"latin1-\xe9\xff",
        b"n" * 255,
        b"-dash",
        b"a;b&c|d$e",
        b"%41",
    ):
        names.children[name] = regular(store, b"name " + name)
    links = top.children[b"links"] = directory()
    for number, target in enumerate(
        (b"../files/hello.txt", b"/etc/passwd", b"does/not/exist", b"/opt/$(HOME)/x", b"$(A:-b)", b"$(:-$)(", b"$HOME $$ ${X}",
         b"$(open", b"$($(X))", b"d/" * 500 + b"end", b"latin1-\xe9")
    ):  # fmt: skip
        links.children[b"link%d" % number] = link(target)
    hard = top.children[b"hard"] = directory()
    shared, pipe, symbolic = regular(store, b"shared", uid=7), Entry(mode=stat.S_IFIFO | 0o640, mtime=MTIME), link(b"a")
    big = chunked(store, [b"1" * 10_000, b"2" * 10_000])
    hard.children = {
        b"a": shared,
        b"b": shared,
        b"c": shared,
        b"p": pipe,
        b"q": pipe,
        b"s": symbolic,
        b"t": symbolic,
        b"x": big,
        b"y": big,
    }
    across = hard.children[b"across"] = directory()
    across.children[b"a"] = shared
    special = top.children[b"special"] = directory()
    special.children = {
        b"fifo": Entry(mode=stat.S_IFIFO | 0o644, mtime=MTIME),
        b"socket": Entry(mode=stat.S_IFSOCK | 0o755, mtime=MTIME),
        b"null": Entry(mode=stat.S_IFCHR | 0o666, mtime=MTIME, rdev=os.makedev(1, 3)),
        b"bigminor": Entry(mode=stat.S_IFBLK | 0o600, mtime=MTIME, rdev=os.makedev(240, 70_000)),
        b"whiteout": Entry(mode=stat.S_IFCHR, mtime=MTIME),
    }
    opaque = top.children[b"opaque"] = directory(xattrs=((b"trusted.overlay.opaque", b"y"), (b"user.overlay.opaque", b"y")))
    opaque.children[b"inside"] = directory(0o2775, uid=1000, gid=1000)
    return top


def _raw(store: ObjectStore, data: bytes) -> Entry:
    content = ContentHash.of(data)
    store.put(content, ObjectKind.DATA, data)
    return Entry(mode=stat.S_IFREG | 0o644, mtime=MTIME, size=len(data), content=content, compression=Compression.NONE)


def facts(tree: Directory) -> dict[bytes, tuple[object, ...]]:
    """What there is to compare: everything but identity, plus which names of one directory share their entry."""
    result: dict[bytes, tuple[object, ...]] = {b"": _entry_facts(tree.entry, 0)}
    pending = [(b"", tree)]
    while pending:
        prefix, place = pending.pop()
        first: dict[int, bytes] = {}
        for name, child in place.children.items():
            entry = child.entry if isinstance(child, Directory) else child
            result[prefix + name] = _entry_facts(entry, min(n for n, c in place.children.items() if c is child))
            first.setdefault(id(entry), name)
            if isinstance(child, Directory):
                pending.append((prefix + name + b"/", child))
    return result


def _entry_facts(entry: Entry, group: object) -> tuple[object, ...]:
    return (
        entry.mode, entry.uid, entry.gid, entry.mtime, entry.mtime_ns, entry.size, entry.content, entry.chunks, entry.compression,
        entry.symlink, entry.rdev, entry.xattrs, group,
    )  # fmt: skip
