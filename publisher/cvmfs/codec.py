"""The compressed form of catalogs, histories, certificates and meta-info: always zlib. Repository format, section 2.1.

Certificates and meta-info must be compressed exactly as the reference does it, by zlib itself at level 6: when it replicates, it
keeps their names but compresses their content anew, and clients refuse a replica whose bytes then differ from the name (seen with
CernVM-FS 2.12). For catalogs and histories any zlib stream will do: those that stay are compressed by libdeflate at level 6, a
little smaller than zlib at level 6 in a third of the time; those that every publication changes, in less time (`segments`).
"""

from __future__ import annotations

import hashlib
import zlib
from typing import BinaryIO

import deflate
from isal import igzip_lib, isal_zlib

from publisher.cvmfs.entry import Compression
from publisher.errors import RepositoryDamaged

_LEVEL = 6
_PIECE = 1 << 20
_QUICK_LEVEL = 1
_REFERENCE_SAMPLE = "ef26e5f33dc132c5681784cbdc9c894ac06de5fb"
_ZLIB_ERROR: type[Exception] = igzip_lib.IsalError  # type: ignore[assignment]  # its stub declares an instance


def is_reference_zlib() -> bool:
    """Whether this interpreter's zlib yields the reference's bytes; replacements such as zlib-ng yield others."""
    sample = b"".join(b"%d-%d;" % (number, number * number % 97) for number in range(300))
    return hashlib.sha1(zlib.compress(sample, _LEVEL), usedforsecurity=False).hexdigest() == _REFERENCE_SAMPLE


def compress_like_reference(content: bytes) -> bytes:
    """The form in which a certificate or meta-info is stored."""
    return zlib.compress(content, _LEVEL)


def compress(content: bytes) -> bytes:
    """The form in which a catalog or a history is stored."""
    return bytes(deflate.zlib_compress(content, _LEVEL))


def compress_quickly(content: bytes) -> bytes:
    """The form of a catalog that will soon be replaced: a few per cent larger, in half the time."""
    return bytes(deflate.zlib_compress(content, _QUICK_LEVEL))


def decompress(stored: bytes, limit: int) -> bytes:
    """Content of a zlib object of at most `limit` bytes. Raises RepositoryDamaged if it is larger, cut, or no zlib stream."""
    engine = isal_zlib.decompressobj()
    try:
        content: bytes = engine.decompress(stored, limit + 1)
    except _ZLIB_ERROR as error:
        raise RepositoryDamaged(f"not a zlib stream: {error}") from error
    if len(content) > limit:
        raise RepositoryDamaged(f"its content is larger than the {limit} bytes that it may have")
    if not engine.eof or engine.unused_data:
        raise RepositoryDamaged("its zlib stream is cut, or has bytes behind its end")
    return content


def inflate(stored: BinaryIO, content: BinaryIO, limit: int) -> int:
    """Write the content of a zlib object to a file, piece by piece, and return its bytes, `limit` at the most.

    Raises RepositoryDamaged as `decompress`, and OSError if the file cannot be written.
    """
    engine = isal_zlib.decompressobj()
    size = 0
    while not engine.eof:
        data = engine.unconsumed_tail or stored.read(_PIECE)
        try:
            piece = engine.decompress(data, _PIECE)
        except _ZLIB_ERROR as error:
            raise RepositoryDamaged(f"not a zlib stream: {error}") from error
        size += len(piece)
        if size > limit:
            raise RepositoryDamaged(f"its content is larger than the {limit} bytes that it may have")
        if not data and not piece and not engine.eof:
            raise RepositoryDamaged("its zlib stream is cut")
        content.write(piece)
    if engine.unused_data or stored.read(1):
        raise RepositoryDamaged("its zlib stream has bytes behind its end")
    return size


def expand(stored: bytes, compression: Compression, size: int) -> bytes:
    """Content of a data object that must have exactly `size` bytes. Raises RepositoryDamaged."""
    content = decompress(stored, size) if compression is Compression.ZLIB else stored
    if len(content) != size:
        raise RepositoryDamaged(f"its content has {len(content)} bytes, not {size}")
    return content
