"""Bytes that are not those of the object that was asked for."""

from __future__ import annotations

from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.errors import RepositoryDamaged


class WrongContent(RepositoryDamaged):
    """The source sent bytes that do not have the hash of what was asked for."""


def verify(data: bytes, content: ContentHash, kind: ObjectKind) -> None:
    """Refuse bytes that are not what was asked for. Raises WrongContent."""
    if ContentHash.of(data, content.algorithm) != content:
        raise wrong(content, kind)


def wrong(content: ContentHash, kind: ObjectKind) -> WrongContent:
    """What to say of an object whose bytes are others."""
    return WrongContent(f"the source sent other bytes than those of the object {content.object_path(kind)}: their hash differs")
