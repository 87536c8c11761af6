"""The Range header. Pure. Source: RFC 9110, sections 14.1 and 14.2 (one range of bytes; all else may be ignored)."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ONE_RANGE = re.compile(r"bytes[ \t]*=[ \t]*([0-9]{0,19})[ \t]*-[ \t]*([0-9]{0,19})[ \t]*", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes from `start` to `end` (exclusive) of a whole of `total`."""

    start: int
    end: int
    total: int

    @property
    def content_range(self) -> str:
        """The value of Content-Range that goes with it."""
        return f"bytes {self.start}-{self.end - 1}/{self.total}"


class RangeNotSatisfiable(Exception):
    """The range lies outside the whole (status 416)."""


def parse_range(header: str | None, total: int) -> ByteRange | None:
    """The one range that is asked for; None if the whole is to be sent.

    Ignored, as the standard allows or demands: no header, other units, several ranges, what breaks the grammar, any range of
    nothing. Raises RangeNotSatisfiable.
    """
    match = _ONE_RANGE.fullmatch(header or "")
    if match is None or total == 0:
        return None
    first, last = match.groups()
    if not first:
        if not last:
            return None
        length = int(last)
        if length == 0:
            raise RangeNotSatisfiable
        return ByteRange(max(total - length, 0), total, total)
    start = int(first)
    if last and int(last) < start:
        return None
    if start >= total:
        raise RangeNotSatisfiable
    return ByteRange(start, min(int(last) + 1, total) if last else total, total)
