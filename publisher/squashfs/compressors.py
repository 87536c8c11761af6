"""What expands one block, by the superblock's number of its compressor. Never more comes out than is asked for."""

from __future__ import annotations

import lzma
import sys
from collections.abc import Callable
from typing import TypeAlias

import lz4.block  # type: ignore[import-untyped]
from isal import isal_zlib

from publisher.errors import BrokenLayer

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Expand: TypeAlias = Callable[[bytes, int], bytes]
"""Takes a stored block and the most bytes that it may become. Raises BrokenLayer."""

_MEMORY = 64 << 20
"""Bytes that xz and lzma may take; blocks of a megabyte need ten."""
_ZSTD_WINDOW = 23
"""A power of two; blocks of a megabyte need 20."""


def expander(compressor: int) -> Expand:
    """What expands blocks of this compressor. Raises BrokenLayer, which names it, for one that cannot be read."""
    if compressor in _REFUSED:
        raise BrokenLayer(f"the squashfs is compressed with {_REFUSED[compressor]}, which cannot be unpacked; {_KNOWN} can")
    if compressor not in _EXPANDERS:
        raise BrokenLayer(f"the squashfs has an unknown compressor (number {compressor}); {_KNOWN} can be unpacked")
    name, expand, failures = _EXPANDERS[compressor]

    def guarded(stored: bytes, limit: int) -> bytes:
        try:
            data = expand(stored, limit)
        except failures as error:
            raise BrokenLayer(f"a {name} block of the squashfs is damaged: {error}") from error
        if len(data) > limit:
            raise BrokenLayer(f"a {name} block of the squashfs expands to more than the {limit} bytes that it may have")
        return data

    return guarded


def _gzip(stored: bytes, limit: int) -> bytes:
    return isal_zlib.decompressobj().decompress(stored, limit + 1)


def _lzma(stored: bytes, limit: int) -> bytes:
    return lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_MEMORY).decompress(stored, limit + 1)


def _xz(stored: bytes, limit: int) -> bytes:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY).decompress(stored, limit + 1)


def _lz4(stored: bytes, limit: int) -> bytes:
    data: bytes = lz4.block.decompress(stored, uncompressed_size=limit)
    return data


def _zstd(stored: bytes, limit: int) -> bytes:
    options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW}
    data: bytes = zstd.ZstdDecompressor(options=options).decompress(stored, limit + 1)
    return data


_GZIP_ERROR: type[Exception] = isal_zlib.error  # type: ignore[assignment]  # its stub declares an instance
_EXPANDERS: dict[int, tuple[str, Expand, tuple[type[Exception], ...]]] = {
    1: ("gzip", _gzip, (_GZIP_ERROR,)),
    2: ("lzma", _lzma, (lzma.LZMAError, EOFError)),
    4: ("xz", _xz, (lzma.LZMAError, EOFError)),
    5: ("lz4", _lz4, (lz4.block.LZ4BlockError,)),
    6: ("zstd", _zstd, (zstd.ZstdError, EOFError)),
}
_REFUSED = {3: "lzo"}
_KNOWN = "gzip, lzma, xz, lz4 and zstd"
