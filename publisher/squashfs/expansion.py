"""How much a squashfs may become."""

from __future__ import annotations

from publisher.errors import UnsafeLayer
from publisher.layers.limits import LayerLimits


class Expansion:
    """Adds up bytes that come out of a squashfs."""

    def __init__(self, limits: LayerLimits, size: int) -> None:
        """size: of the squashfs itself, in bytes."""
        self._limits = limits
        self._size = size
        self._expanded = 0

    def add(self, size: int) -> None:
        """Count so many bytes more. Raises UnsafeLayer beyond a limit."""
        limits = self._limits
        self._expanded += size
        if self._expanded > limits.expanded_bytes:
            raise UnsafeLayer(f"the squashfs expands to more than the {limits.expanded_bytes} bytes that are allowed")
        if self._expanded > limits.ratio_from and self._expanded > limits.ratio * self._size:
            raise UnsafeLayer(f"the squashfs expands to more than {limits.ratio} times its size")
