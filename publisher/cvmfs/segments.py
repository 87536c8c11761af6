"""The stored form of a catalog that is written again and again: only what changed since the last time is compressed anew.

A directory of ten thousand names is one catalog, as the format will have it, and every new name means a new object of all of it.
Its database differs from the one before in a few pages. So the zlib stream is made of segments that know nothing of one another
(RFC 1951: each ends at a byte, by an empty stored block, and none refers back), and segments that did not change are taken from
memory.
"""

from __future__ import annotations

from isal import isal_zlib

from publisher.cvmfs import codec

_SEGMENT = 16 << 10
"""Bytes. Smaller ones compress worse (by 2 to 9 per cent at this size), larger ones mean more to compress for each change."""
_SMALL = 48 << 10
"""Bytes of a database that is compressed as a whole: that takes little time, and gives the better form."""
_LEVEL = 1
"""Of ISA-L: on databases higher ones take longer and gain nothing."""
_RAW = -15
_HEADER = b"\x78\x01"
_END = b"\x03\x00"


class SegmentedForm:
    """Remembers one catalog's database and the compressed segments of it."""

    def __init__(self) -> None:
        self._database = b""
        self._segments: list[bytes] = []

    @property
    def size(self) -> int:
        """Bytes of memory that it takes, about."""
        return len(self._database) + sum(map(len, self._segments))

    def compress(self, database: bytes) -> bytes:
        """The zlib stream of the database."""
        if len(database) <= _SMALL:
            self._database, self._segments = b"", []
            return codec.compress_quickly(database)
        before, known, after = self._database, self._segments, []
        for number, offset in enumerate(range(0, len(database), _SEGMENT)):
            segment = database[offset : offset + _SEGMENT]
            is_known = number < len(known) and before[offset : offset + _SEGMENT] == segment
            after.append(known[number] if is_known else _compressed(segment))
        self._database, self._segments = database, after
        checksum = isal_zlib.adler32(database)
        return b"".join((_HEADER, *after, _END, checksum.to_bytes(4, "big")))


def _compressed(segment: bytes) -> bytes:
    engine = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, _RAW)
    stream: bytes = engine.compress(segment) + engine.flush(isal_zlib.Z_FULL_FLUSH)
    return stream
