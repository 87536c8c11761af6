"""The extended attributes of one row as the blob that a catalog holds. Repository format, section 4.4."""

from __future__ import annotations

from collections.abc import Iterable

from publisher.errors import RepositoryDamaged

Xattrs = tuple[tuple[bytes, bytes], ...]
"""Names and values, sorted by name."""

_VERSION = 1
_LIMIT = 255


def representable(xattrs: Iterable[tuple[bytes, bytes]]) -> Xattrs:
    """What the format can hold: names of 1 to 255 bytes without zero, values up to 255 bytes, the first 255 by name."""
    fitting = (pair for pair in xattrs if 0 < len(pair[0]) <= _LIMIT and len(pair[1]) <= _LIMIT and b"\0" not in pair[0])
    return tuple(sorted(fitting)[:_LIMIT])


def encode(xattrs: Xattrs) -> bytes | None:
    """The blob of representable attributes; None, which is SQL NULL, if there are none."""
    if not xattrs:
        return None
    blob = bytearray((_VERSION, len(xattrs)))
    for name, value in sorted(xattrs):
        blob += bytes((len(name), len(value))) + name + value
    return bytes(blob)


def decode(blob: bytes | None) -> Xattrs:
    """The attributes in a blob or NULL. Raises RepositoryDamaged if it is cut or of an unknown version."""
    if not blob:
        return ()
    if len(blob) < 2 or blob[0] != _VERSION:
        raise RepositoryDamaged(
            "a catalog row's extended attributes are of an unknown version; its catalog must be published anew"
        )
    position = 2
    xattrs = []
    for _ in range(blob[1]):
        if position + 2 > len(blob):
            break
        name_end = position + 2 + blob[position]
        value_end = name_end + blob[position + 1]
        xattrs.append((blob[position + 2 : name_end], blob[name_end:value_end]))
        position = value_end
    if position != len(blob) or len(xattrs) != blob[1]:
        raise RepositoryDamaged("a catalog row's extended attributes are cut or too long; its catalog must be published anew")
    return tuple(sorted(xattrs))
