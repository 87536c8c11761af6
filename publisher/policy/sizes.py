"""Bounds of one image, looked at as soon as each number is known. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from mirror.oci.manifest import ImageManifest
from publisher.errors import AgainstPolicy

_MEND = "publish a smaller image, or ask this mirror's operator for a higher limit"


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """An image that goes beyond one of these is refused. Its layers have limits of their own (`layers.limits`)."""

    layers: int = 200
    compressed_bytes: int = 32 << 30
    """Of config and layers, as the manifest says; a layer that is named twice counts twice."""
    expanded_bytes: int = 128 << 30
    """Of all layers' uncompressed archives together."""
    entries: int = 3_000_000
    """Of all layers' trees together."""

    def check_manifest(self, manifest: ImageManifest) -> None:
        """Look at what the manifest says. Raises AgainstPolicy."""
        _check("layers", len(manifest.layers), self.layers, "layers")
        _check("compressed_bytes", compressed_size(manifest), self.compressed_bytes, "bytes to fetch")


def compressed_size(manifest: ImageManifest) -> int:
    """Bytes of all that an image's manifest names."""
    return sum(blob.size for blob in manifest.references)


class Measure:
    """Adds up an image's layers while they are unpacked."""

    def __init__(self, limits: ImageLimits) -> None:
        self._limits = limits
        self._size = 0
        self._entries = 0

    def add(self, size: int, entries: int) -> None:
        """One more layer: bytes of its uncompressed archive, entries of its tree. Raises AgainstPolicy beyond a limit."""
        self._size += size
        self._entries += entries
        _check("expanded_bytes", self._size, self._limits.expanded_bytes, "unpacked bytes")
        _check("entries", self._entries, self._limits.entries, "files and directories")


def _check(limit: str, found: int, allowed: int, what: str) -> None:
    if found > allowed:
        raise AgainstPolicy(f"the image has at least {found} {what}, and the limit '{limit}' is {allowed}; {_MEND}")
