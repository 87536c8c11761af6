"""Packed layers: the blob of a layer, as registries serve it, kept in a repository as one object that any web server gives out.

The object is the blob byte for byte: neither compressed again nor cut into chunks (repository format, sections 2.1 and 2.2), so
that a registry client can be sent to `<web server>/cvmfs/<fqrn>/data/<ab>/<hex>` for it.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import BinaryIO

import structlog

from mirror.errors import Unavailable
from mirror.oci.manifest import Descriptor
from publisher.cvmfs.entry import Compression, Entry
from publisher.cvmfs.hash import ContentHash, ContentHasher, HashAlgorithm, ObjectKind
from publisher.objects.store import ObjectStore
from publisher.replicate.files import local_failures

log = structlog.get_logger()

_DIRECTORY = "packed"
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class PackedLayer:
    """A blob that is an object of a repository; size in bytes."""

    content: ContentHash
    size: int

    @classmethod
    def of(cls, entry: Entry | None) -> PackedLayer | None:
        """What a file of a repository is such an object of, if it is one."""
        if entry is None or entry.content is None or entry.compression is not Compression.NONE:
            return None
        return cls(entry.content, entry.size)

    @property
    def object(self) -> str:
        """Path of the object below the repository's root."""
        return self.content.object_path(ObjectKind.DATA)

    def entry(self, now: float) -> Entry:
        """The file that names the object. now: Unix seconds."""
        return Entry(
            mode=stat.S_IFREG | 0o644, mtime=int(now), size=self.size, content=self.content, compression=Compression.NONE
        )


class PackedLayers:
    """Puts blobs into the store of one repository. Blocking; safe for several threads."""

    def __init__(self, store: ObjectStore, spool: Path, largest: int) -> None:
        """spool: the repository's spool directory, through which blobs pass; what a publisher that died left there is removed.

        largest: bytes of the largest blob that is kept. Raises StorageFull, Unavailable.
        """
        self._store = store
        self._largest = largest
        self._directory = spool / _DIRECTORY
        with local_failures(self._directory):
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for left in self._directory.iterdir():
                left.unlink()

    def keep(self, blob: Path, layer: Descriptor, is_stopped: Callable[[], bool] = lambda: False) -> PackedLayer | None:
        """Store a blob, verified once more on the way; None if it is too large, or no longer in the mirror's store.

        None, too, if the file is damaged. blob: its file in the mirror's store, which stays as it is.
        Raises StorageFull, Unavailable.
        """
        if layer.size > self._largest:
            log.info("layer_not_packed", digest=str(layer.digest), size=layer.size, largest=self._largest)
            return None
        try:
            source = blob.open("rb", buffering=0)
        except FileNotFoundError:
            log.info("layer_not_packed", digest=str(layer.digest), reason="the blob was evicted from the cache")
            return None
        with source, local_failures(self._directory):
            descriptor, name = tempfile.mkstemp(dir=self._directory)
            copy = Path(name)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    content = _copy(source, file, layer, is_stopped)
                if content is None:
                    mend = "remove it, so that it is fetched again"
                    log.error("blob_damaged", file=str(blob), digest=str(layer.digest), mend=mend)
                    return None
                self._store.put_file(content, ObjectKind.DATA, copy)
            finally:
                copy.unlink(missing_ok=True)
        return PackedLayer(content, layer.size)


def _copy(source: FileIO, copy: BinaryIO, layer: Descriptor, is_stopped: Callable[[], bool]) -> ContentHash | None:
    """The hash of the copy; None if it is not the layer's blob. Raises OSError, Unavailable if it is stopped."""
    promised, stored = layer.digest.hasher(), ContentHasher(HashAlgorithm.SHA1)
    size = 0
    while piece := source.read(_PIECE):
        if is_stopped():
            raise Unavailable("the publisher is stopping; the layer is kept when it runs again")
        promised.update(piece)
        stored.update(piece)
        size += len(piece)
        copy.write(piece)
    return stored.result() if size == layer.size and promised.hexdigest() == layer.digest.hex else None
