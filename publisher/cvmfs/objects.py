"""Objects, fetched and verified: nothing leaves here whose bytes do not have the hash that was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mirror.errors import NotFound
from publisher.cvmfs import codec
from publisher.cvmfs.entry import Compression, Entry
from publisher.cvmfs.hash import ContentHash, ContentHasher, ObjectKind
from publisher.errors import RepositoryDamaged
from publisher.objects.store import ObjectSource

_NAMES = {
    ObjectKind.DATA: "data object",
    ObjectKind.CHUNK: "chunk",
    ObjectKind.CATALOG: "catalog",
    ObjectKind.HISTORY: "history",
    ObjectKind.CERTIFICATE: "certificate",
    ObjectKind.METAINFO: "meta-info",
}

_WHOLE = 16 << 20
"""Bytes of an object that is rather read at once."""


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """What a reader accepts from a repository."""

    metadata_bytes: int = 1 << 30
    """Largest uncompressed catalog or history."""
    cached_catalogs: int = 64
    """Catalogs that a snapshot keeps open."""


class VerifiedObjects:
    """An object source whose content is checked against its hashes and its stated sizes."""

    def __init__(self, source: ObjectSource, limits: ReadLimits) -> None:
        self._source = source
        self._limits = limits

    def stored(self, content: ContentHash, kind: ObjectKind) -> bytes:
        """The object as it is stored. Raises RepositoryDamaged if it is missing or is not what its name says, Unavailable."""
        try:
            stored = self._source.get(content, kind)
        except NotFound as error:
            raise _wrong(content, kind, f"is missing: {error}") from error
        if ContentHash.of(stored, content.algorithm) != content:
            raise _wrong(content, kind, "is damaged: its bytes have another hash")
        return stored

    def metadata(self, content: ContentHash, kind: ObjectKind, size: int | None = None) -> bytes:
        """Uncompressed catalog, history, certificate or meta-info; size in bytes, if something promises one.

        Raises RepositoryDamaged, Unavailable.
        """
        limit = self._limits.metadata_bytes if size is None else min(size, self._limits.metadata_bytes)
        stored = self.stored(content, kind)
        try:
            data = codec.decompress(stored, limit)
        except RepositoryDamaged as error:
            raise _wrong(content, kind, f"cannot be read: {error}") from error
        if size is not None and len(data) != size:
            raise _wrong(content, kind, f"has {len(data)} bytes, but {size} are promised")
        return data

    def data(self, content: ContentHash, kind: ObjectKind, compression: Compression, size: int) -> bytes:
        """Content of a file in one piece, or of one chunk, of exactly `size` bytes. Raises RepositoryDamaged, Unavailable."""
        stored = self.stored(content, kind)
        try:
            return codec.expand(stored, compression, size)
        except RepositoryDamaged as error:
            raise _wrong(content, kind, f"cannot be read: {error}") from error

    def check_data(self, content: ContentHash, kind: ObjectKind, compression: Compression, size: int) -> None:
        """See that `data` would give the content; a large object that is stored as it is, such as a packed layer, in pieces.

        Raises RepositoryDamaged, Unavailable.
        """
        if compression is not Compression.NONE or size <= _WHOLE:
            self.data(content, kind, compression, size)
            return
        hasher, found = ContentHasher(content.algorithm), 0
        try:
            for piece in self._source.pieces(content, kind):
                hasher.update(piece)
                found += len(piece)
        except NotFound as error:
            raise _wrong(content, kind, f"is missing: {error}") from error
        if hasher.result() != content:
            raise _wrong(content, kind, "is damaged: its bytes have another hash")
        if found != size:
            raise _wrong(content, kind, f"cannot be read: its content has {found} bytes, not {size}")

    def content(self, entry: Entry) -> Iterator[bytes]:
        """Content of a regular file, piece by piece. Raises RepositoryDamaged, Unavailable."""
        if entry.content is not None:
            yield self.data(entry.content, ObjectKind.DATA, entry.compression, entry.size)
        for chunk in entry.chunks:
            yield self.data(chunk.content, ObjectKind.CHUNK, entry.compression, chunk.size)


def _wrong(content: ContentHash, kind: ObjectKind, what: str) -> RepositoryDamaged:
    return RepositoryDamaged(f"the {_NAMES[kind]} {content} {what}", content.object_path(kind))
