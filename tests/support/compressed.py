"""Archives as layers have them compressed, in forms that not every tool here can make."""

from __future__ import annotations

import gzip
import sys

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def zstandard(data: bytes, **parameters: int) -> bytes:
    wanted = parameters or {"checksum_flag": 1}
    options: dict[int, int] = {getattr(zstd.CompressionParameter, name): value for name, value in wanted.items()}
    return zstd.compress(data, options=options)


def skippable(payload: bytes, number: int = 0) -> bytes:
    return bytes((0x50 + number,)) + b"\x2a\x4d\x18" + len(payload).to_bytes(4, "little") + payload


INDEX = skippable(zstandard(b'{"version": 1}'))
FOOTER = skippable(b"GnUlInUx" * 8)
EMPTY_MEMBER = b"\x1f\x8b\x08\x04" + bytes(5) + b"\xff\x1a\x00SG\x16\x00" + b"0" * 22 + b"\x01\x00\x00\xff\xff" + bytes(8)


def chunked(tar: bytes) -> bytes:
    """As zstd:chunked has it: frames that can be read each on its own, then the index and a footer in skippable frames."""
    return b"".join(zstandard(tar[at : at + 700]) for at in range(0, len(tar), 700)) + INDEX + FOOTER


def estargz(tar: bytes) -> bytes:
    """As eStargz has it: a member a piece, and an empty one with a footer in its extra field."""
    return b"".join(gzip.compress(tar[at : at + 700]) for at in range(0, len(tar), 700)) + EMPTY_MEMBER
