"""Blocks and records of tar headers, read without I/O.

Sources: POSIX pax, section "ustar Interchange Format"; GNU tar manual, appendix D.

Python's tarfile is not used here for three reasons: it takes a damaged header for the end of the archive and says nothing, its
patterns for extended headers take quadratic time in releases that are still in use (CVE-2024-6232), and sizes below zero lead it
backwards for ever (CVE-2025-8194).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from struct import Struct

from publisher.errors import BrokenLayer

BLOCK = 512

_FIELDS = Struct("100s 8s 8s 8s 12s 12s 8s 1s 100s")
"""Name, mode, uid, gid, size, modification time, checksum, type flag, name of a link."""
_BLANK_CHECKSUM = 8 * 0x20
"""The field counts as blanks."""
_ZEROS = bytes(BLOCK)
_POSIX_MAGIC = b"ustar\0"
_GNU_MAGIC = b"ustar  \0"
_RECORD_LENGTH = re.compile(rb"([0-9]{1,19}) ", re.ASCII)
_TIME = re.compile(rb"(-?)([0-9]{1,19})(?:\.([0-9]*))?", re.ASCII)
_DIGITS = re.compile(rb"-?[0-9]{1,19}", re.ASCII)


class Kind(Enum):
    """The type flag of a header; kinds that nobody puts into layers are not here."""

    FILE = b"0"
    HARD_LINK = b"1"
    SYMLINK = b"2"
    CHARACTER_DEVICE = b"3"
    BLOCK_DEVICE = b"4"
    DIRECTORY = b"5"
    FIFO = b"6"
    GNU_SPARSE = b"S"
    GNU_LONG_NAME = b"L"
    GNU_LONG_LINK = b"K"
    PAX = b"x"
    PAX_GLOBAL = b"g"


_KINDS = {kind.value: kind for kind in Kind} | {b"\0": Kind.FILE, b"7": Kind.FILE, b"X": Kind.PAX}
_WITH_DATA = (Kind.FILE, Kind.GNU_SPARSE, Kind.GNU_LONG_NAME, Kind.GNU_LONG_LINK, Kind.PAX, Kind.PAX_GLOBAL)


@dataclass(slots=True)
class Header:
    """One header block; names still as they came."""

    kind: Kind
    name: bytes
    link: bytes
    mode: int
    uid: int
    gid: int
    size: int
    """Bytes of data that follow, before padding; 0 for kinds that have none, whatever the field says."""
    mtime: int
    old_style: bool
    """Type flag NUL: a name that ends with `/` is a directory."""
    sparse: tuple[tuple[int, int], ...] = ()
    """Of GNU_SPARSE: offset and length of the pieces that have data, as far as this block tells."""
    sparse_continues: bool = False
    sparse_size: int = 0
    """Of GNU_SPARSE: bytes of the file with its holes."""


def is_end(block: bytes) -> bool:
    """Whether this is a block of zeros, which ends an archive."""
    return block == _ZEROS


def parse_header(block: bytes) -> Header:
    """Read a block of 512 bytes that is not zero. Raises BrokenLayer."""
    name, mode, uid, gid, size, mtime, checksum, flag, link = _FIELDS.unpack_from(block)
    stored = checksum.strip(b" \0").lstrip(b"0")
    computed = sum(block) - sum(checksum) + _BLANK_CHECKSUM
    if stored != b"%o" % computed and stored != b"%o" % _signed_sum(block):
        raise BrokenLayer("no tar header where one is expected: its checksum is wrong")
    kind = _KINDS.get(flag)
    if kind is None:
        raise BrokenLayer(f"a member has the type {flag!r}, which no layer can have")
    name = _text(name)
    if block.startswith(_POSIX_MAGIC, 257) and block[345]:
        name = _text(block[345:500]) + b"/" + name
    header = Header(
        kind=kind,
        name=name,
        link=_text(link),
        mode=_number(mode),
        uid=_number(uid),
        gid=_number(gid),
        size=_number(size) if kind in _WITH_DATA else 0,
        mtime=_number(mtime),
        old_style=flag == b"\0",
    )
    if header.size < 0:
        raise BrokenLayer("a member has a negative size")
    if kind is Kind.GNU_SPARSE:
        if not block.startswith(_GNU_MAGIC, 257):
            raise BrokenLayer("a sparse file's header is not GNU tar's")
        header.sparse = _sparse_pieces(block[386:482])
        header.sparse_continues = block[482] != 0
        header.sparse_size = _number(block[483:495])
    return header


def parse_sparse_block(block: bytes) -> tuple[tuple[tuple[int, int], ...], bool]:
    """The pieces in a block that continues a GNU sparse header, and whether yet another block does. Raises BrokenLayer."""
    return _sparse_pieces(block[:504]), block[504] != 0


def parse_pax(payload: bytes) -> list[tuple[bytes, bytes]]:
    """The records of an extended header in their order: `<length> <keyword>=<value>` and a newline each. Raises BrokenLayer."""
    records = []
    at = 0
    while at < len(payload):
        length = _RECORD_LENGTH.match(payload, at)
        end = at + int(length[1]) if length else 0
        if length is None or not length.end() < end <= len(payload) or payload[end - 1] != 0x0A:
            raise BrokenLayer("an extended header has a record of a wrong length")
        keyword, equals, value = payload[length.end() : end - 1].partition(b"=")
        if not equals or not keyword or b"\0" in keyword:
            raise BrokenLayer("an extended header has a record without a keyword")
        records.append((keyword, value))
        at = end
    return records


def parse_pax_number(value: bytes) -> int:
    """A decimal number of an extended header. Raises BrokenLayer."""
    if not _DIGITS.fullmatch(value):
        raise BrokenLayer("an extended header has something else where a number is expected")
    return int(value)


def parse_pax_time(value: bytes) -> tuple[int, int]:
    """Seconds, rounded down, and nanoseconds of a decimal time; digits beyond the ninth are cut. Raises BrokenLayer."""
    match = _TIME.fullmatch(value)
    if match is None:
        raise BrokenLayer("an extended header has something else where a time is expected")
    seconds, nanoseconds = int(match[2]), int((match[3] or b"")[:9].ljust(9, b"0"))
    if not match[1]:
        return seconds, nanoseconds
    return (-seconds - 1, 1_000_000_000 - nanoseconds) if nanoseconds else (-seconds, 0)


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _number(field: bytes) -> int:
    """Octal text, or, if the first bit is set, a two's complement number in the remaining ones (GNU base-256)."""
    if field[0] & 0x80:
        bits = 8 * len(field) - 1
        value = int.from_bytes(field, "big") & ((1 << bits) - 1)
        return value - (1 << bits) if value >> (bits - 1) else value
    text = field.strip(b" \0")
    if not text:
        return 0
    if not text.isdigit():
        text = text.partition(b"\0")[0].rstrip(b" ")
        if not text.isdigit():
            raise BrokenLayer("a tar header has something else where a number is expected")
    try:
        return int(text, 8)
    except ValueError as error:
        raise BrokenLayer("a tar header has something else where a number is expected") from error


def _signed_sum(block: bytes) -> int:
    """The checksum as some old systems computed it, with signed characters."""
    return sum(byte - 256 if byte > 127 else byte for byte in block[:148] + b" " * 8 + block[156:])


def _sparse_pieces(field: bytes) -> tuple[tuple[int, int], ...]:
    pieces = []
    for at in range(0, len(field) - 23, 24):
        if not field[at]:
            break
        pieces.append((_number(field[at : at + 12]), _number(field[at + 12 : at + 24])))
    return tuple(pieces)
