"""A whole tree in one digest: to see that what was written is what was meant. Pure.

Two trees have the same digest exactly if a client sees no difference: names, types, modes, owners, sizes, times, targets, device
numbers, content and chunks, extended attributes, and which names of one directory are hard links of one another (a catalog knows
of no others).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

from publisher.cvmfs.entry import Directory, Entry


@dataclass(frozen=True, slots=True)
class TreeDigest:
    """entries: of the tree, its root not counted. value: SHA-256 in hex digits over all of them and the root."""

    entries: int
    value: str


def digest_of(tree: Directory) -> TreeDigest:
    """The tree's digest."""
    hasher = hashlib.sha256()
    count = -1
    for path, facts in _records(tree):
        count += 1
        # A length in front, so that no path or target can be taken for the next record.
        record = b"%b\0%b" % (path, facts)
        hasher.update(b"%d:" % len(record))
        hasher.update(record)
    return TreeDigest(count, hasher.hexdigest())


def first_difference(expected: Directory, found: Directory) -> bytes | None:
    """The path, from the trees' root, of the first object in which they differ; None if they do not."""
    for one, other in zip_longest(_records(expected), _records(found)):
        if one != other:
            return min(record[0] for record in (one, other) if record is not None)
    return None


def _records(tree: Directory) -> Iterator[tuple[bytes, bytes]]:
    """Path and facts of every object, the root first, in one order for equal trees."""
    pending: list[tuple[bytes, Directory]] = [(b"", tree)]
    yield b"", _facts(tree.entry, b"")
    while pending:
        prefix, directory = pending.pop()
        shared = Counter(id(child) for child in directory.children.values() if isinstance(child, Entry))
        leaders: dict[int, bytes] = {}
        below: list[tuple[bytes, Directory]] = []
        for name in sorted(directory.children):
            child = directory.children[name]
            path = prefix + name
            if isinstance(child, Directory):
                yield path, _facts(child.entry, b"")
                below.append((path + b"/", child))
            else:
                leader = leaders.setdefault(id(child), name) if shared[id(child)] > 1 else b""
                yield path, _facts(child, leader)
        pending += reversed(below)


def _facts(entry: Entry, linked_to: bytes) -> bytes:
    """linked_to: the first name of this object in its directory; empty if it has no other there."""
    content = entry.content.value if entry.content is not None else b""
    parts = b"".join(b"%d+%d=%b;" % (chunk.offset, chunk.size, chunk.content.value) for chunk in entry.chunks)
    attributes = b"".join(b"%d:%b=%d:%b;" % (len(name), name, len(value), value) for name, value in entry.xattrs)
    numbers = b"%o %d %d %d %d %d %d %d" % (
        entry.mode,
        entry.uid,
        entry.gid,
        entry.mtime,
        entry.mtime_ns,
        entry.size,
        entry.rdev,
        entry.compression,
    )
    return b"\0".join((numbers, content, parts, entry.symlink, linked_to, attributes))
