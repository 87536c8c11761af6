"""Which blobs go first when room is wanted, and how much of them. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import IntEnum

from mirror.oci.digest import Digest


class Standing(IntEnum):
    """Who would miss a blob; the lowest goes first."""

    HELD = 0
    """A CVMFS repository holds the layer, unpacked."""
    LOOSE = 1
    """Nothing known needs it."""
    LIVE = 2
    """A manifest that was asked for lately names it."""
    DOCUMENT = 3
    """Small, as manifests and configs are: much is lost without it, and little won."""


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """A blob in the store: size in bytes; last use in Unix seconds, some minutes inexact."""

    digest: Digest
    size: int
    last_use: float


@dataclass(frozen=True, slots=True)
class EvictionPolicy:
    """Bounds of eviction; bytes and seconds."""

    max_bytes: int | None = None
    """Of all blobs together; None: whatever the disk has room for."""
    low_share: float = 0.9
    """Once it begins it goes on until the blobs have this share of `max_bytes`."""
    floor_bytes: int = 4 << 30
    headroom_bytes: int = 1 << 30
    """It begins with less than floor and headroom free on the disk, and goes on until there is floor and twice the headroom."""
    spared_seconds: float = 900.0
    """What was used within this time stays: somebody may be about to read it."""
    document_bytes: int = 64 << 10
    """Up to this size a blob counts as a document."""
    sample: int = 20_000
    """Blobs among which the ones to go are chosen; all of them in a smaller store."""
    batch: int = 200
    """Blobs deleted between two looks at what else there is to do."""
    look_seconds: float = 10.0
    """How often it is looked whether there is room."""
    patience_seconds: float = 5.0
    """How long a transfer waits for room before it goes on without being kept."""

    def excess(self, used: int, free: int) -> int:
        """Bytes that should go now: `used` by blobs, `free` on the disk; 0 if all is well."""
        over = 0
        if self.max_bytes is not None and used > self.max_bytes:
            over = used - int(self.max_bytes * self.low_share)
        if free < self.floor_bytes + self.headroom_bytes:
            over = max(over, self.floor_bytes + 2 * self.headroom_bytes - free)
        return over

    def in_order(self, blobs: Iterable[StoredBlob], held: Collection[Digest], live: Collection[Digest]) -> list[StoredBlob]:
        """First those that go first: by standing, then by last use."""

        def rank(blob: StoredBlob) -> tuple[Standing, float]:
            if blob.size <= self.document_bytes:
                return Standing.DOCUMENT, blob.last_use
            if blob.digest in held:
                return Standing.HELD, blob.last_use
            return (Standing.LIVE if blob.digest in live else Standing.LOOSE), blob.last_use

        return sorted(blobs, key=rank)
