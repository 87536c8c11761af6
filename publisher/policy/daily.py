"""How much of one upstream repository is published within a day. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

DAY = 86_400.0
"""Seconds. Any 24 hours, not the calendar's: so no midnight lets two days' amounts through at once."""


@dataclass(frozen=True, slots=True)
class Published:
    """An image that counts: when (Unix seconds), and the bytes of its blobs."""

    at: float
    size: int


@dataclass(frozen=True, slots=True)
class DailyLimits:
    """New images of one upstream repository, and bytes of their blobs, in any 24 hours."""

    images: int = 1000
    compressed_bytes: int = 1 << 40

    def wait(self, published: Sequence[Published], size: int, now: float) -> float:
        """Seconds until there is room for one more image; 0 if there is now.

        published: images of that repository, in any order; those of more than a day ago do not matter. An image that is larger
        than a day's amount has room when nothing else was published.
        """
        recent = sorted((image for image in published if image.at > now - DAY), key=lambda image: image.at)
        images, total = len(recent), sum(image.size for image in recent)
        wait = 0.0
        for image in recent:
            if images < self.images and total + size <= self.compressed_bytes:
                break
            images, total = images - 1, total - image.size
            wait = image.at + DAY - now
        return max(wait, 0.0)
