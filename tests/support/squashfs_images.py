"""squashfs images byte by byte, for what no tool would make; and any of them unpacked into memory."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from publisher.cvmfs.entry import Directory
from publisher.layers.limits import LayerLimits
from publisher.layers.policy import LayerPolicy
from publisher.objects.compress import DEFAULT_COMPRESSOR, compressor
from publisher.objects.pipeline import Pipeline, PipelineLimits
from publisher.squashfs.ingest import SquashFsResult, ingest_squashfs
from publisher.squashfs.source import Section
from tests.support.layers import content_of, entry_at
from tests.support.memory_store import MemoryStore

NONE = (1 << 32) - 1
NO_TABLE = (1 << 64) - 1
BLOCK = 4096
STORED = 1 << 24
_METADATA = 8192
ROOT_SIZE = 32
"""Bytes of a plain directory's inode."""


class MemoryBytes:
    """Bytes in memory as a source."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def read_at(self, offset: int, size: int) -> bytes:
        return self._data[offset : offset + size]


@dataclass(frozen=True)
class Unpacked:
    result: SquashFsResult
    store: MemoryStore

    @property
    def tree(self) -> Directory:
        return self.result.tree

    def read(self, path: str) -> bytes:
        return content_of(self.store, entry_at(self.tree, path))


def unpack_squashfs(
    data: bytes,
    *,
    limits: LayerLimits | None = None,
    policy: LayerPolicy | None = None,
    store: MemoryStore | None = None,
    pipeline: Pipeline | None = None,
) -> Unpacked:
    """pipeline: one that is open already, of this store."""
    store = store or MemoryStore()
    source = Section(MemoryBytes(data), 0, len(data))
    if pipeline is not None:
        return Unpacked(ingest_squashfs(source, pipeline, limits or LayerLimits(), policy or LayerPolicy(), _nothing), store)
    with Pipeline(store, compressor(DEFAULT_COMPRESSOR), PipelineLimits()) as own:
        return Unpacked(ingest_squashfs(source, own, limits or LayerLimits(), policy or LayerPolicy(), _nothing), store)


def common(kind: int, mode: int = 0o644, owner: int = 0) -> bytes:
    return struct.pack("<HHHHII", kind, mode, owner, owner, 1_700_000_000, 1)


def directory(listing_at: int, listing_size: int, owner: int = 0) -> bytes:
    """listing_at: byte of the directory table, in its first block."""
    return common(1, 0o755, owner) + struct.pack("<IIHHI", 0, 2, listing_size + 3, listing_at, 1)


def file(size: int, start: int = 96, blocks: Sequence[int] = (), fragment: int = NONE, offset: int = 0) -> bytes:
    return common(2) + struct.pack("<IIII", start, fragment, offset, size) + struct.pack(f"<{len(blocks)}I", *blocks)


def large_file(size: int, blocks: Sequence[int] = (), *, start: int = 96, xattrs: int = NONE) -> bytes:
    return common(9) + struct.pack("<QQQIIII", start, size, 0, 1, NONE, 0, xattrs) + struct.pack(f"<{len(blocks)}I", *blocks)


def symlink(target: bytes, size: int | None = None) -> bytes:
    return common(3, 0o777) + struct.pack("<II", 1, len(target) if size is None else size) + target


def listing(*entries: tuple[bytes, int]) -> bytes:
    """Names with the references of their inodes, each in a run of its own."""
    return b"".join(
        struct.pack("<III", 0, reference >> 16, 1) + struct.pack("<HhHH", reference & 0xFFFF, 0, 2, len(name) - 1) + name
        for name, reference in entries
    )


def stored_blocks(table: bytes) -> bytes:
    """Metadata blocks that are not compressed."""
    pieces = [table[at : at + _METADATA] for at in range(0, len(table), _METADATA)]
    return b"".join(struct.pack("<H", 0x8000 | len(piece)) + piece for piece in pieces)


def reference(offset: int) -> int:
    """Of the inode at this byte of the inode table."""
    return (offset // _METADATA * (_METADATA + 2)) << 16 | offset % _METADATA


def image(
    inodes: bytes,
    listings: bytes,
    *,
    root: int = 0,
    data: bytes = b"",
    ids: Sequence[int] = (0,),
    fragments: Sequence[tuple[int, int]] = (),
    xattrs: tuple[bytes, Sequence[tuple[int, int]]] | None = None,
    compressor_number: int = 1,
    block_size: int = BLOCK,
    version: tuple[int, int] = (4, 0),
) -> bytes:
    """root: reference of its inode. xattrs: names and values as stored; of each set where it begins and how many it has."""
    body = bytearray(96) + data

    def put(block: bytes) -> int:
        at = len(body)
        body.extend(block)
        return at

    def put_lookup(records: bytes, head: bytes = b"") -> int:
        """Blocks of records, then where each block is, behind a head; where that begins."""
        first = put(stored_blocks(records))
        pointers = [first + at * (_METADATA + 2) for at in range(-(-len(records) // _METADATA))]
        return put(head + struct.pack(f"<{len(pointers)}Q", *pointers))

    inode_table = put(stored_blocks(inodes))
    directory_table = put(stored_blocks(listings))
    fragment_table = put_lookup(b"".join(struct.pack("<QII", start, size, 0) for start, size in fragments))
    id_table = put_lookup(struct.pack(f"<{len(ids)}I", *ids))
    xattr_table = NO_TABLE
    if xattrs is not None:
        pairs, sets = xattrs
        pairs_at = put(stored_blocks(pairs))
        records = b"".join(struct.pack("<QII", start, count, 0) for start, count in sets)
        xattr_table = put_lookup(records, struct.pack("<QII", pairs_at, len(sets), 0))
    tables = (id_table, xattr_table, inode_table, directory_table, fragment_table, NO_TABLE)
    numbers = (
        0x73717368,
        1,
        0,
        block_size,
        len(fragments),
        compressor_number,
        block_size.bit_length() - 1,
        0,
        len(ids),
        *version,
    )
    body[:96] = struct.pack("<IIIIIHHHHHHQQ6Q", *numbers, root, len(body), *tables)
    return bytes(body)


def of_one(name: bytes, inode: bytes, **more: object) -> bytes:
    """A root with one thing in it."""
    names = listing((name, reference(ROOT_SIZE)))
    return image(directory(0, len(names)) + inode, names, **more)  # type: ignore[arg-type]


def _nothing() -> None:
    """Progress that nobody waits for."""
