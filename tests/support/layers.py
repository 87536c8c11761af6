"""Layers unpacked into memory, and their trees as plain facts."""

from __future__ import annotations

import hashlib
import io
import stat
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from mirror.oci.digest import Digest
from publisher.cvmfs.entry import Directory, Entry
from publisher.cvmfs.hash import ObjectKind
from publisher.layers.ingest import LayerResult, Progress, ingest_layer
from publisher.layers.limits import LayerLimits
from publisher.layers.packed import Readable
from publisher.layers.policy import LayerPolicy
from publisher.objects.compress import DEFAULT_COMPRESSOR, compressor
from publisher.objects.pipeline import Pipeline, PipelineLimits
from tests.support.memory_store import MemoryStore

BLOCK = 512


def header(name: bytes, kind: bytes = b"0", size: int = 0, **fields: bytes) -> bytes:
    """A header block made by hand; fields: link, mode, uid, gid, size_field, mtime, magic, prefix, rest (behind offset 345)."""
    block = bytearray(BLOCK)

    def put(at: int, length: int, value: bytes) -> None:
        block[at : at + length] = value[:length].ljust(length, b"\0")

    put(0, 100, name)
    put(100, 8, fields.get("mode", b"0000644\0"))
    put(108, 8, fields.get("uid", b"0000000\0"))
    put(116, 8, fields.get("gid", b"0000000\0"))
    put(124, 12, fields.get("size_field", b"%011o\0" % size))
    put(136, 12, fields.get("mtime", b"00000000000\0"))
    put(156, 1, kind)
    put(157, 100, fields.get("link", b""))
    put(257, 8, fields.get("magic", b"ustar\x0000"))
    put(345, 155, fields.get("prefix", b""))
    for at, value in (("386", fields.get("at386", b"")), ("482", fields.get("at482", b""))):
        block[int(at) : int(at) + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def pax_record(keyword: bytes, value: bytes) -> bytes:
    body = b" " + keyword + b"=" + value + b"\n"
    length = len(body)
    while len(str(length)) + len(body) != length:
        length = len(str(length)) + len(body)
    return str(length).encode() + body


def pax(records: list[tuple[bytes, bytes]], kind: bytes = b"x") -> bytes:
    payload = b"".join(pax_record(keyword, value) for keyword, value in records)
    return header(b"pax", kind, len(payload)) + padded(payload)


def archive(*parts: bytes) -> bytes:
    return b"".join(parts) + bytes(2 * BLOCK)


@dataclass(frozen=True)
class Ingested:
    result: LayerResult
    store: MemoryStore

    @property
    def tree(self) -> Directory:
        return self.result.tree

    def read(self, path: str) -> bytes:
        return content_of(self.store, entry_at(self.tree, path))


def ingest(
    blob: bytes = b"",
    *,
    source: Readable | None = None,
    tar: bytes | None = None,
    limits: LayerLimits | None = None,
    pipeline_limits: PipelineLimits | None = None,
    lower: Directory | Callable[[], Directory] | None = None,
    progress: Progress | None = None,
    store: MemoryStore | None = None,
    policy: LayerPolicy | None = None,
) -> Ingested:
    """tar: the uncompressed archive, where `blob` is not that itself. source: gives the blob in its own way."""
    store = store or MemoryStore()
    diff_id = Digest("sha256", hashlib.sha256(blob if tar is None else tar).hexdigest())
    below = (lambda: lower) if isinstance(lower, Directory) else lower
    with Pipeline(store, compressor(DEFAULT_COMPRESSOR), pipeline_limits or PipelineLimits()) as pipeline:
        result = ingest_layer(
            source or io.BytesIO(blob),
            diff_id,
            pipeline,
            limits or LayerLimits(),
            lower=below,
            progress=progress,
            policy=policy,
        )
    return Ingested(result, store)


def entry_at(tree: Directory, path: str) -> Entry:
    node: Directory | Entry = tree
    for part in path.encode().split(b"/"):
        assert isinstance(node, Directory), f"{path}: no directory above {part!r}"
        node = node.children[part]
    return node.entry if isinstance(node, Directory) else node


def directory_at(tree: Directory, path: str) -> Directory:
    for part in path.encode().split(b"/"):
        child = tree.children[part]
        assert isinstance(child, Directory)
        tree = child
    return tree


def paths(tree: Directory) -> list[str]:
    """Every path, whiteouts marked by a leading `-`."""
    return sorted(("-" if entry.is_whiteout else "") + path.decode("utf-8", "surrogateescape") for path, entry in tree.walk())


def content_of(store: MemoryStore, entry: Entry) -> bytes:
    assert stat.S_ISREG(entry.mode)
    if entry.content is not None:
        return zlib.decompress(store.contents[entry.content, ObjectKind.DATA])
    content = bytearray()
    for chunk in entry.chunks:
        assert chunk.offset == len(content)
        content += zlib.decompress(store.contents[chunk.content, ObjectKind.CHUNK])
        assert len(content) == chunk.offset + chunk.size
    assert len(content) == entry.size
    return bytes(content)
