"""Looking through the blobs on disk, a directory at a time: a store of a million takes a while, and nobody waits for it."""

from __future__ import annotations

import contextlib
import heapq
import os
from collections.abc import Iterator
from pathlib import Path

from mirror.oci.digest import ALGORITHMS, Digest, is_digest
from mirror.store.eviction import StoredBlob
from mirror.store.layout import StoreLayout


def shelves(layout: StoreLayout) -> list[Path]:
    """Directories that hold blobs, those of one algorithm after the other."""
    found: list[Path] = []
    for algorithm in ALGORITHMS:
        with contextlib.suppress(FileNotFoundError):
            found += sorted(path for path in (layout.blobs / algorithm).iterdir() if path.is_dir())
    return found


def blobs_on(shelf: Path) -> Iterator[StoredBlob]:
    """What one of the directories holds. Blocking. Raises OSError."""
    algorithm = shelf.parent.name
    with os.scandir(shelf) as entries:
        for entry in entries:
            if is_digest(algorithm, entry.name):
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    yield StoredBlob(Digest(algorithm, entry.name), status.st_size, max(status.st_atime, status.st_mtime))


class Census:
    """Adds up what it is shown, and keeps the longest unused of it: documents and others apart, for there may be many of them."""

    def __init__(self, keep: int, document_bytes: int) -> None:
        """keep: how many of either kind."""
        self.bytes = 0
        self.count = 0
        self._keep = keep
        self._document_bytes = document_bytes
        self._documents: list[StoredBlob] = []
        self._others: list[StoredBlob] = []

    @property
    def oldest(self) -> list[StoredBlob]:
        """The longest unused of both kinds, in no particular order."""
        return [*self._shortened(self._others), *self._shortened(self._documents)]

    def look(self, shelf: Path) -> None:
        """Add what a directory holds. Blocking. Raises OSError."""
        for blob in blobs_on(shelf):
            self.bytes += blob.size
            self.count += 1
            (self._documents if blob.size <= self._document_bytes else self._others).append(blob)
        for kind in (self._documents, self._others):
            if len(kind) > 2 * self._keep:
                kind[:] = self._shortened(kind)

    def _shortened(self, blobs: list[StoredBlob]) -> list[StoredBlob]:
        return heapq.nsmallest(self._keep, blobs, key=lambda blob: blob.last_use) if len(blobs) > self._keep else blobs
