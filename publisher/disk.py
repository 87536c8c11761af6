"""Room on the disks that publishing fills."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from publisher.policy.watermark import Watermark

log = structlog.get_logger()


def free_bytes(path: Path) -> int:
    """Space that is left for this user. Raises OSError."""
    figures = os.statvfs(path)
    return figures.f_bavail * figures.f_frsize


class DiskGate:
    """Closes when a disk has too little room, and opens when each has enough again."""

    def __init__(self, places: Sequence[Path], mark: Watermark, free: Callable[[Path], int] = free_bytes) -> None:
        """places: directories that exist, on the disks to look at. free: bytes left there; may raise OSError."""
        self._places = places
        self._mark = mark
        self._free = free
        self.reason: str | None = None
        """Why nothing more is to be begun; None if there is room."""

    def look(self) -> None:
        """Find out how it is now. Blocking, a few microseconds as a rule. A change is logged."""
        before, self.reason = self.reason, self._found()
        if self.reason is not None and before is None:
            log.warning("publishing_paused", reason=self.reason)
        elif self.reason is None and before is not None:
            log.warning("publishing_goes_on", after=before)

    def _found(self) -> str | None:
        was_closed = self.reason is not None
        for place in self._places:
            try:
                free = self._free(place)
            except OSError as error:
                return f"the free space of {place} cannot be told: {error.strerror}; this mirror's operator has to look"
            if self._mark.is_closed(free, was_closed=was_closed):
                # Without the figure of the moment, so that the text stays the same for all who are told.
                return (
                    f"the disk of {place} has less than {_gibibytes(self._mark.low)} free; publishing goes on by itself with "
                    f"{_gibibytes(self._mark.high)}, for which this mirror's operator can collect garbage or enlarge the disk"
                )
        return None


def _gibibytes(size: int) -> str:
    return f"{size / (1 << 30):.3g} GiB"
