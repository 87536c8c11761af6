"""When a disk is too full to go on publishing, and when there is room enough again. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Watermark:
    """Two marks, so that publishing does not start and stop with every file: bytes of free space."""

    low: int
    """Below this nothing more is begun."""
    high: int
    """From this on it goes on."""

    def is_closed(self, free: int, *, was_closed: bool) -> bool:
        """Whether nothing is to be begun with so many bytes free."""
        return free < (self.high if was_closed else self.low)
