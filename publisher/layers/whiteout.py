"""Deletion marks: from the names that layers use to the forms that overlayfs and catalogs use.

Sources: OCI image specification, layer.md, section "Whiteouts"; overlayfs in the documentation of Linux, "whiteouts and
opaque directories".
"""

from __future__ import annotations

import stat
from dataclasses import dataclass

from publisher.cvmfs.entry import OPAQUE_XATTRS, Entry
from publisher.errors import UnsafeLayer
from publisher.layers import names

_OPAQUE = b".wh..wh..opq"
_AUFS = b".wh..wh."


@dataclass(frozen=True, slots=True)
class Whiteout:
    """A deletion in the directory `parent`: of one name, or, without a name, of all that lower layers have there."""

    parent: names.Path
    name: bytes | None


def is_aufs_internal(component: bytes) -> bool:
    """Whether this is one of aufs's own files, which old versions of docker left in layers and every tool passes over."""
    return component.startswith(_AUFS) and component != _OPAQUE


def parse(path: names.Path) -> Whiteout | None:
    """What a member of this name deletes; None for an ordinary member. Raises UnsafeLayer for a mark that names nothing."""
    if not path or not any(component.startswith(names.WHITEOUT_PREFIX) for component in path):
        return None
    *parent, mark = path
    if any(component.startswith(names.WHITEOUT_PREFIX) for component in parent):
        raise UnsafeLayer(f"member '{names.shown(path)}' lies below a deletion mark")
    if mark == _OPAQUE:
        return Whiteout(tuple(parent), None)
    name = mark.removeprefix(names.WHITEOUT_PREFIX)
    if name in (b"", b".", b".."):
        raise UnsafeLayer(f"member '{names.shown(path)}' is a deletion mark for no name")
    return Whiteout(tuple(parent), name)


def whiteout_entry() -> Entry:
    """A fresh entry that deletes the name that it stands for: character device 0/0."""
    return Entry(mode=stat.S_IFCHR)


def with_opaque(xattrs: tuple[tuple[bytes, bytes], ...]) -> tuple[tuple[bytes, bytes], ...]:
    """The extended attributes with those that make a directory opaque."""
    return tuple(sorted((*xattrs, *OPAQUE_XATTRS)))


def without_opaque(xattrs: tuple[tuple[bytes, bytes], ...]) -> tuple[tuple[bytes, bytes], ...]:
    """The extended attributes without those that make a directory opaque."""
    return tuple(pair for pair in xattrs if pair not in OPAQUE_XATTRS)
