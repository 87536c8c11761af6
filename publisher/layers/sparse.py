"""Sparse files: which pieces of a file have data in the archive. GNU tar manual, appendix D, sections "Storing Sparse Files"."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from publisher.errors import BrokenLayer
from publisher.layers.header import BLOCK, parse_pax_number

Pieces = tuple[tuple[int, int], ...]
"""Offset and length, in bytes, of each piece that has data; ascending."""


def paired(numbers: Sequence[bytes]) -> Pieces:
    """Offsets and lengths that stand in turn. Raises BrokenLayer."""
    if len(numbers) % 2:
        raise BrokenLayer("a sparse file's map has an offset without a length")
    values = [parse_pax_number(number) for number in numbers]
    return tuple(zip(values[::2], values[1::2], strict=True))


def read_map(read: Callable[[int], bytes], limit: int) -> tuple[Pieces, int]:
    """The map that stands before the data in PAX's sparse format 1.0, and how many bytes of whole blocks it took.

    read: gives exactly as many bytes as it is asked for. limit: bytes that the map may take. Raises BrokenLayer.
    """
    numbers: list[bytes] = []
    wanted = 1
    taken = 0
    rest = b""
    while len(numbers) < wanted:
        if taken + BLOCK > limit:
            raise BrokenLayer(f"a sparse file's map takes more than {limit} bytes")
        taken += BLOCK
        *lines, rest = (rest + read(BLOCK)).split(b"\n")
        numbers += lines
        if numbers:
            wanted = 1 + 2 * parse_pax_number(numbers[0])
    return paired(numbers[1:wanted]), taken


def check(pieces: Pieces, size: int, stored: int) -> None:
    """Raises BrokenLayer unless the pieces ascend, end within a file of `size` bytes and fill `stored` bytes of data."""
    at = 0
    for offset, length in pieces:
        if offset < at or length < 0:
            raise BrokenLayer("a sparse file's map does not ascend")
        at = offset + length
    if at > size:
        raise BrokenLayer("a sparse file's map goes beyond the file's end")
    if sum(length for _, length in pieces) != stored:
        raise BrokenLayer("a sparse file's map does not fit its data")


class SparseContent:
    """The content of a sparse file, holes filled with zeros."""

    def __init__(self, pieces: Pieces, read: Callable[[int], bytes]) -> None:
        """read: gives exactly as many of the next stored bytes as it is asked for."""
        self._pieces = iter(pieces)
        self._read = read
        self._piece = next(self._pieces, None)
        self._at = 0

    def read(self, size: int) -> bytes:
        """The next `size` bytes."""
        parts = []
        while size > 0:
            if self._piece is None:
                part = bytes(size)
            else:
                begin, length = self._piece
                end = begin + length
                if self._at >= end:
                    self._piece = next(self._pieces, None)
                    continue
                part = bytes(min(begin - self._at, size)) if self._at < begin else self._read(min(end - self._at, size))
            parts.append(part)
            self._at += len(part)
            size -= len(part)
        return b"".join(parts)
