"""Images made of all kinds of archives, as raw layers; and an OCI layout that has them, for other tools to unpack."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.layers import archive, header, padded, pax
from tests.support.registry_client import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST
from tests.support.tool import run

Layers = tuple[bytes, ...]
"""Uncompressed archives, lowest first."""

_TIME = b"14524770400\0"
_CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
_REAL_FORMATS = {"v7": ["--exclude=fifo"], "oldgnu": [], "gnu": [], "ustar": [], "posix": []}
_SPARSE_FORMATS = {"gnu": ["--format=gnu"]} | {
    f"pax {version}": ["--format=posix", f"--sparse-version={version}"] for version in ("0.0", "0.1", "1.0")
}


def folder(name: bytes, mode: bytes = b"0000755\0", *, uid: bytes = b"", gid: bytes = b"") -> bytes:
    return header(name, b"5", mode=mode, uid=uid, gid=gid, mtime=_TIME)


def text(name: bytes, content: bytes = b"", **fields: bytes) -> bytes:
    return header(name, size=len(content), mtime=_TIME, **fields) + padded(content)


def soft(name: bytes, target: bytes) -> bytes:
    return header(name, b"2", link=target, mtime=_TIME, mode=b"0000777\0")


def hard(name: bytes, target: bytes) -> bytes:
    return header(name, b"1", link=target, mtime=_TIME)


def gone(name: bytes) -> bytes:
    """A deletion mark for a path."""
    parent, slash, last = name.rpartition(b"/")
    return text(parent + slash + b".wh." + last)


def opaque(directory: bytes) -> bytes:
    return text(directory + b"/.wh..wh..opq" if directory else b".wh..wh..opq")


BASE = archive(
    folder(b"./", b"0000751\0"),
    folder(b"etc"),
    text(b"etc/passwd", b"root"),
    text(b"etc/group", b"wheel"),
    folder(b"etc/conf.d", b"0000750\0"),
    text(b"etc/conf.d/a", b"a"),
    folder(b"etc/conf.d/deep"),
    text(b"etc/conf.d/deep/b", b"b"),
    soft(b"etc/link", b"passwd"),
    folder(b"usr"),
    folder(b"usr/bin"),
    text(b"usr/bin/tool", b"tool", mode=b"0004755\0"),
    soft(b"bin", b"usr/bin"),
)
_A, _B = text(b"d/a", b"upper a"), text(b"d/b", b"upper b")
_LOWER = archive(folder(b"d"), text(b"d/old", b"old"), folder(b"d/sub"), text(b"d/sub/old", b"old"), text(b"keep", b"k"))

HAND_MADE: dict[str, Layers] = {
    "file over directory": (BASE, archive(text(b"etc/conf.d", b"now a file"))),
    "directory over file": (BASE, archive(folder(b"etc/group", b"0000700\0"), text(b"etc/group/inside", b"x"))),
    "file over link": (BASE, archive(text(b"bin", b"no link any more"))),
    "directory over link": (BASE, archive(folder(b"bin"), text(b"bin/own", b"own"))),
    "link over directory": (BASE, archive(soft(b"etc/conf.d", b"/usr"))),
    "link over file": (BASE, archive(soft(b"etc/passwd", b"group"))),
    "there and back": (BASE, archive(text(b"etc/conf.d", b"file")), archive(folder(b"etc/conf.d"), text(b"etc/conf.d/c", b"c"))),
    "types change in one layer": (
        archive(folder(b"x"), text(b"x/a", b"a"), text(b"x", b"file"), text(b"y", b"file"), folder(b"y"), text(b"y/b", b"b")),
    ),
    "attributes only": (BASE, archive(folder(b"etc/conf.d", b"0000555\0", uid=b"0000012\0", gid=b"0000034\0"))),
    "hard link in a layer": (archive(text(b"a", b"one"), hard(b"b", b"a"), hard(b"c", b"./b"), hard(b"e", b"/a")),),
    "hard link into a lower layer": (BASE, archive(folder(b"etc"), hard(b"etc/shadow", b"etc/passwd"))),
    "hard link of a hard link below": (
        BASE,
        archive(folder(b"etc"), hard(b"etc/shadow", b"etc/passwd")),
        archive(folder(b"etc"), hard(b"etc/third", b"etc/shadow"), gone(b"etc/passwd")),
    ),
    "hard link to a symbolic link": (BASE, archive(folder(b"etc"), hard(b"etc/same", b"etc/link"))),
    "hard link, then its target anew": (
        BASE,
        archive(folder(b"etc"), hard(b"etc/h", b"etc/passwd"), text(b"etc/passwd", b"new")),
    ),
    "hard link over a directory": (BASE, archive(folder(b"etc"), hard(b"etc/conf.d", b"etc/group"))),
    "hard link with attributes of its own": (
        archive(text(b"a", b"one", mode=b"0000640\0"), header(b"b", b"1", link=b"a", mode=b"0000755\0", uid=b"0000007\0")),
    ),
    "whiteout of a file": (BASE, archive(folder(b"etc"), gone(b"etc/passwd"), gone(b"etc/link"))),
    "whiteout of a tree": (BASE, archive(gone(b"etc"), gone(b"bin"))),
    "whiteout of nothing": (BASE, archive(folder(b"etc"), gone(b"etc/never"), gone(b"never"))),
    "whiteout, next layer brings it back": (BASE, archive(gone(b"etc")), archive(folder(b"etc"), text(b"etc/new", b"n"))),
    "whiteout before the entry": (BASE, archive(folder(b"etc"), gone(b"etc/passwd"), text(b"etc/passwd", b"new"))),
    "whiteout behind the entry": (BASE, archive(folder(b"etc"), text(b"etc/passwd", b"new"), gone(b"etc/passwd"))),
    "whiteout before a new tree": (BASE, archive(gone(b"etc"), folder(b"etc"), text(b"etc/new", b"n"))),
    "whiteout of a tree and of what is in it": (BASE, archive(gone(b"etc/conf.d"), gone(b"etc"), gone(b"etc/conf.d/deep/b"))),
    "whiteout in an opaque directory": (_LOWER, archive(folder(b"d"), gone(b"d/old"), opaque(b"d"), _A)),
    "opaque and whiteout of the same directory": (_LOWER, archive(gone(b"d"), folder(b"d"), opaque(b"d"), _A)),
    "whiteout of what the layer brought only": (archive(folder(b"d"), text(b"d/x", b"x"), gone(b"d/x")),),
    "opaque before its siblings": (_LOWER, archive(folder(b"d"), opaque(b"d"), _A, _B)),
    "opaque between its siblings": (_LOWER, archive(folder(b"d"), _A, opaque(b"d"), _B)),
    "opaque behind its siblings": (_LOWER, archive(folder(b"d"), _A, _B, opaque(b"d"))),
    "opaque before the directory itself": (_LOWER, archive(opaque(b"d"), folder(b"d", b"0000700\0"), _A)),
    "opaque without the directory": (_LOWER, archive(opaque(b"d"))),
    "opaque below opaque": (
        _LOWER,
        archive(folder(b"d"), opaque(b"d"), folder(b"d/sub"), opaque(b"d/sub"), text(b"d/sub/n", b"n")),
    ),
    "opaque root": (_LOWER, archive(folder(b"./"), opaque(b""), text(b"only", b"o"))),
    "opaque, then another layer": (
        _LOWER,
        archive(folder(b"d"), opaque(b"d"), _A),
        archive(folder(b"d"), text(b"d/later", b"l")),
    ),
    "opaque of what is a file below": (BASE, archive(folder(b"etc/group"), opaque(b"etc/group"), text(b"etc/group/x", b"x"))),
    "opaque keeps what the layer has deeper": (
        _LOWER,
        archive(folder(b"d"), folder(b"d/sub"), text(b"d/sub/n", b"n"), opaque(b"d")),
    ),
    "duplicates": (
        archive(text(b"f", b"one"), folder(b"d", b"0000700\0"), text(b"f", b"two"), folder(b"d"), text(b"f", b"three")),
    ),
    "duplicate behind a hard link": (archive(text(b"f", b"one"), hard(b"l", b"f"), text(b"f", b"two")),),
    "missing parents": (archive(text(b"a/b/c", b"c"), folder(b"a/b/d")),),
    "missing parents that are below": (BASE, archive(text(b"etc/conf.d/deep/new", b"n"))),
    "through a link of the same layer": (
        archive(folder(b"usr"), soft(b"lib", b"usr"), text(b"lib/x", b"x"), hard(b"h", b"lib/x")),
    ),
    "through a link of a lower layer": (BASE, archive(text(b"bin/new", b"n"))),
    "hard link through a link of a lower layer": (BASE, archive(hard(b"tool", b"bin/tool"))),
    "whiteout through a link of a lower layer": (BASE, archive(gone(b"bin/tool"))),
    "names": (
        archive(
            text(b"/absolute", b"1"),
            text(b"./././dot", b"2"),
            folder(b"./"),
            folder(b"x"),
            folder(b"x//y///"),
            text(b"x/./y/z", b"3"),
            text(b"caf\xe9\xff", b"4"),
            text(b"new\nline\\ \t'\"", b"5"),
            text(b"n" * 99, b"6"),
            soft(b"odd", b"$(x) ../..//\xff"),
            folder(b"..."),
        ),
    ),
    "times": (
        archive(
            pax([(b"mtime", b"1700000000.123456789")]) + header(b"ns", size=0),
            pax([(b"mtime", b"-1.5")]) + header(b"before 1970"),
            pax([(b"mtime", b"1700000000.5"), (b"atime", b"5"), (b"ctime", b"6")]) + header(b"dir", b"5", mode=b"0000755\0"),
            pax([(b"mtime", b"4000000000.000000001")]) + header(b"dir/2096"),
            pax([(b"mtime", b"1600000000.25")]) + header(b"link", b"2", link=b"ns", mode=b"0000777\0"),
        ),
    ),
    "owners": (
        archive(
            pax([(b"uid", b"70000"), (b"gid", b"4000000000"), (b"uname", b"me")]) + text(b"pax"),
            text(b"octal", uid=b"7777777\0", gid=b"0001750\0"),
            text(b"base-256", uid=b"\x80" + (3_000_000).to_bytes(7, "big")),
            header(b"link", b"2", link=b"x", uid=b"0000012\0", gid=b"0000013\0", mode=b"0000777\0", mtime=_TIME),
        ),
    ),
    "modes": (
        archive(
            *(text(b"f%04o" % mode, b"x", mode=b"000%04o\0" % mode) for mode in (0, 0o44, 0o400, 0o644, 0o2755, 0o4711, 0o7777)),
            *(folder(b"d%04o" % mode, b"000%04o\0" % mode) for mode in (0, 0o555, 0o1777, 0o2775)),
        ),
    ),
    "attributes": (
        archive(
            pax(
                [
                    (b"SCHILY.xattr.user.a", b"1"),
                    (b"SCHILY.xattr.user.empty", b""),
                    (b"SCHILY.xattr.security.capability", _CAPABILITY),
                ]
            )
            + text(b"f", b"x"),
            pax([(b"SCHILY.xattr.user.d", b"\x00\xff=\n"), (b"SCHILY.xattr.trusted.x", b"t")]) + folder(b"d"),
        ),
        archive(folder(b"d"), pax([(b"SCHILY.xattr.user.b", b"2")]) + text(b"f", b"y")),
    ),
    "special files": (
        archive(
            header(b"fifo", b"6", mtime=_TIME, mode=b"0000600\0"),
            header(b"null", b"3", mtime=_TIME),
            header(b"sda", b"4", mtime=_TIME),
            hard(b"zero", b"null"),
            text(b"after", b"x"),
        ),
    ),
    "devices over other things": (
        _LOWER,
        archive(folder(b"./"), text(b"f", b"f"), *(header(name, b"3", mtime=_TIME) for name in (b"keep", b"d", b"f", b"new"))),
    ),
    "device 0/0 is no deletion": (_LOWER, archive(folder(b"d"), header(b"d/x", b"3", mtime=_TIME))),
    "global headers": (
        archive(
            pax([(b"comment", b"0123456789abcdef")], b"g"),
            text(b"a", b"a"),
            pax([(b"uid", b"7"), (b"path", b"evil")], b"g"),
            text(b"b", b"b"),
        ),
    ),
    "old directories": (archive(header(b"dir/", b"\0", magic=bytes(8), mode=b"0000755\0", mtime=_TIME), text(b"dir/f", b"f")),),
    "contiguous file": (archive(header(b"seven", b"7", 3, mtime=_TIME), padded(b"abc")),),
    "aufs leftovers": (archive(folder(b"d"), folder(b".wh..wh.plnk"), text(b".wh..wh.aufs"), text(b"d/f", b"f")),),
    "no end": (archive(text(b"f", b"abc"))[:-1024],),
    "rubbish behind the end": (archive(text(b"f", b"abc")) + text(b"hidden", b"no"),),
    "an empty layer": (BASE, archive(), bytes(10240), BASE),
    "the same layer twice": (BASE, BASE),
    "the same layer twice around a deletion": (BASE, archive(gone(b"etc")), BASE),
    "127 layers": tuple(
        archive(
            folder(b"etc"),
            text(b"etc/n%03d" % number, b"%d" % number),
            text(b"same", b"%d" % number),
            gone(b"etc/n%03d" % (number - number % 7)),
        )
        for number in range(127)
    ),
    "names of catalogs": (archive(text(b".cvmfscatalog"), folder(b"d"), text(b"d/.cvmfsdirtab", b"x"), text(b"d/f", b"f")),),
    "whiteout where nobody has a directory": (BASE, archive(folder(b"./"), gone(b"no/such/x"), gone(b"etc/passwd/x"))),
    "opaque where nobody has a directory": (BASE, archive(folder(b"./"), opaque(b"no/such"))),
    "leaves the root": (archive(text(b"../up", b"x"), text(b"f", b"f")),),
    "hard link to nothing": (archive(hard(b"l", b"gone")),),
    "hard link to what is deleted": (BASE, archive(gone(b"etc/passwd"), hard(b"l", b"etc/passwd"))),
    "hard link to what comes later": (archive(hard(b"l", b"f"), text(b"f", b"f")),),
    "below a file": (archive(text(b"f", b"f"), text(b"f/x", b"x")),),
    "a damaged header": (archive(text(b"f", b"f"))[:700] + b"rubbish" * 200,),
    "stargz": (archive(text(b".no.prefetch.landmark", b"\xf0"), text(b"f", b"f"), text(b"stargz.index.json", b"{}")),),
}


def packed_by_gnu_tar(directory: Path) -> dict[str, Layers]:
    """Real files, packed in every form that GNU tar knows. directory: empty, on a file system that has holes."""
    source = directory / "source"
    (source / "deep" / "er").mkdir(parents=True)
    (source / "file").write_bytes(b"content" * 1000)
    (source / "deep" / "er" / "empty").touch()
    (source / "deep" / "link").symlink_to("../file")
    os.link(source / "file", source / "deep" / "hard")
    os.mkfifo(source / "fifo")
    with (source / "holes").open("wb") as file:
        for at in range(0, 6 << 20, 1 << 20):
            file.seek(at)
            file.write(b"island" * 700)
        file.truncate(7 << 20)
    for path in (source / "deep" / "er", source / "deep" / "link", source / "file", source / "holes", source / "deep", source):
        os.utime(path, ns=(0, 1_600_000_000_123_456_789), follow_symlinks=False)
    plain = {name: ["--exclude=holes", f"--format={name}", *more] for name, more in _REAL_FORMATS.items()}
    zoo: dict[str, Layers] = {f"GNU tar, {name}": (_tar(source, *options),) for name, options in plain.items()}
    zoo |= {f"GNU tar, sparse, {name}": (_tar(source, "--sparse", *form),) for name, form in _SPARSE_FORMATS.items()}
    (source / ("long" * 60)).mkdir()
    (source / ("long" * 60) / ("name" * 60)).symlink_to("t" * 300)
    return zoo | {f"GNU tar, long names, {name}": (_tar(source, f"--format={name}"),) for name in ("gnu", "posix")}


def _tar(source: Path, *options: str) -> bytes:
    target = source.parent / "tar"
    run(["tar", "--sort=name", "--owner=1000", "--group=100", *options, "-C", source, "-cf", target, "."])
    return target.read_bytes()


def write_layout(layout: Path, images: Mapping[str, Sequence[bytes]]) -> list[str]:
    """An OCI layout of these images, each layer as it is; their tags, in the same order."""
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(media_type: str, data: bytes) -> dict[str, object]:
        name = hashlib.sha256(data).hexdigest()
        (blobs / name).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{name}", "size": len(data)}

    tags = [f"image-{number}" for number in range(len(images))]
    manifests = []
    for tag, layers in zip(tags, images.values(), strict=True):
        diff_ids = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
        config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
        manifest = {
            "schemaVersion": 2,
            "config": put(OCI_CONFIG, json.dumps(config).encode()),
            "layers": [put(OCI_LAYER, layer) for layer in layers],
        }
        descriptor = put(OCI_MANIFEST, json.dumps(manifest).encode())
        manifests.append({**descriptor, "annotations": {"org.opencontainers.image.ref.name": tag}})
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": manifests}))
    return tags
