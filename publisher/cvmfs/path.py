"""Paths inside a repository and their keys.

A path is bytes, absolute and without trailing slash, such as `/usr/bin/env`; the root is the empty string. That is what catalogs
hash and store (repository format, section 0, rule 3). Callers may leave the first slash out.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Collection

from mirror.errors import InvalidInput

PathKey = tuple[int, int]
"""Columns md5path_1 and md5path_2: the path's MD5 as two little-endian signed 64-bit integers."""

ROOT = b""
NO_PARENT: PathKey = (0, 0)
"""Parent key of the root directory of a repository."""

_IMPOSSIBLE = frozenset({b"", b".", b".."})

NAME_MAX = 255
PATH_MAX = 4095

_unpack = struct.Struct("<qq").unpack


def path_key(path: bytes) -> PathKey:
    """Key of a path in the form of this module."""
    first, second = _unpack(hashlib.md5(path, usedforsecurity=False).digest())
    return first, second


def parent_key(path: bytes) -> PathKey:
    """Key of the directory that holds the path; of the root, the reserved pair of zeroes."""
    return path_key(parent(path)) if path else NO_PARENT


def parent(path: bytes) -> bytes:
    """Path of the directory that holds the path; the root's is the root."""
    return path.rpartition(b"/")[0]


def basename(path: bytes) -> bytes:
    """Last component; empty for the root."""
    return path.rpartition(b"/")[2]


def ancestors(path: bytes) -> list[bytes]:
    """The root, then every directory on the way to the path, then the path itself."""
    result = [ROOT]
    position = 0
    while path and (position := path.find(b"/", position + 1)) != -1:
        result.append(path[:position])
    if path:
        result.append(path)
    return result


def is_below(path: bytes, directory: bytes) -> bool:
    """Whether the path lies inside the directory; a directory is not below itself."""
    return path.startswith(directory + b"/")


def check_name(name: bytes) -> None:
    """Refuse what cannot be a file's name. Raises InvalidInput."""
    if b"/" in name or b"\0" in name or name in _IMPOSSIBLE or len(name) > NAME_MAX:
        raise InvalidInput(
            f"{name[:80]!r} cannot be a file's name: one to {NAME_MAX} bytes without '/' and zero, not '.' or '..'"
        )


def check_names(names: Collection[bytes]) -> None:
    """Refuse a directory's names if one cannot be a file's name; much faster than one by one. Raises InvalidInput."""
    joined = b"/".join(names)
    if (
        b"\0" in joined
        or joined.count(b"/") >= max(len(names), 1)
        or not _IMPOSSIBLE.isdisjoint(names)
        or max(map(len, names), default=0) > NAME_MAX
    ):
        for name in names:
            check_name(name)


def normalise(path: bytes) -> bytes:
    """The one form of a path that a caller gives with or without its first slash. Raises InvalidInput."""
    relative = path.removeprefix(b"/")
    if not relative:
        return ROOT
    if len(relative) >= PATH_MAX:
        raise InvalidInput(f"the path {relative[:80]!r}... is longer than {PATH_MAX} bytes")
    for name in relative.split(b"/"):
        check_name(name)
    return b"/" + relative


def show(path: bytes) -> str:
    """The path as messages show it."""
    return path.decode("utf-8", "backslashreplace") or "/"
