"""Compressors of file content, by a name that each repository pins.

An object's name is the hash of its compressed bytes, so two compressors in one repository store the same content twice
(repository format, sections 0.20 and 2.1). All of them write zlib streams (RFC 1950), which every CVMFS client reads, and all
release the interpreter lock while they work.

Measured file by file on the 6,946 files (164 MB) of a Debian 12 base system and on the 12,031 files (286 MB) of one with Python
and numpy, on one core; the second column is stored/raw:

    zlib-6          37 MB/s  0.3830       40 MB/s  0.3728    what cvmfs_server writes, byte for byte
    libdeflate-4   144 MB/s  0.3860      146 MB/s  0.3771
    libdeflate-5   120 MB/s  0.3791      125 MB/s  0.3701    the fastest that is also smaller than zlib-6: the default
    libdeflate-6   104 MB/s  0.3774      107 MB/s  0.3683
    libdeflate-9    36 MB/s  0.3749       40 MB/s  0.3656
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import deflate

from mirror.errors import InvalidInput

DEFAULT_COMPRESSOR = "libdeflate-5"

_NAME = re.compile(r"(zlib|libdeflate)-([1-9][0-9]?)", re.ASCII)
_HIGHEST_LEVEL = {"zlib": 9, "libdeflate": 12}


@dataclass(frozen=True, slots=True)
class Compressor:
    """One way to compress; safe to use from several threads at once."""

    name: str
    compress: Callable[[bytes], bytes | bytearray]
    """Content to a complete zlib stream."""


def compressor(name: str) -> Compressor:
    """The compressor of this name: `zlib-1` to `zlib-9`, or `libdeflate-1` to `libdeflate-12`. Raises InvalidInput."""
    match = _NAME.fullmatch(name)
    if match is None or int(match[2]) > _HIGHEST_LEVEL[match[1]]:
        raise InvalidInput(f"'{name[:80]}' is not a compressor: zlib-1 to zlib-9 or libdeflate-1 to libdeflate-12 are")
    level = int(match[2])
    if match[1] == "zlib":
        return Compressor(name, partial(zlib.compress, level=level))
    return Compressor(name, partial(deflate.zlib_compress, compresslevel=level))
