"""A digest over a tree: equal for equal trees, another one for any change, which is then found."""

from __future__ import annotations

import stat
from dataclasses import replace
from typing import Any

import pytest

from publisher.cvmfs.entry import Chunk, Compression, Directory, Entry
from publisher.cvmfs.hash import ContentHash
from publisher.images.tree_digest import digest_of, first_difference

CONTENT = ContentHash.of(b"content")


def tree(*, order: int = 1) -> Directory:
    """order: of the names as they were put in."""
    file = Entry(mode=stat.S_IFREG | 0o644, uid=1, gid=2, mtime=3, mtime_ns=4, size=7, content=CONTENT)
    link = Entry(mode=stat.S_IFLNK | 0o777, symlink=b"file")
    etc = Directory(Entry(mode=stat.S_IFDIR | 0o755, mtime=9), {b"passwd": replace(file), b"shadow": link})
    names: dict[bytes, Directory | Entry] = {b"file": file, b"same": file, b"etc": etc, b"link": replace(link)}
    return Directory(Entry(mode=stat.S_IFDIR | 0o755), dict(list(names.items())[::order]))


def test_the_order_of_names_does_not_matter() -> None:
    assert digest_of(tree()) == digest_of(tree(order=-1))
    assert digest_of(tree()).entries == 6
    assert first_difference(tree(), tree(order=-1)) is None


@pytest.mark.parametrize(
    "change",
    [
        {"mode": stat.S_IFREG | 0o600},
        {"uid": 0},
        {"gid": 0},
        {"mtime": 0},
        {"mtime_ns": 0},
        {"size": 8},
        {"content": ContentHash.of(b"other")},
        {"content": None, "chunks": (Chunk(0, 7, CONTENT),)},
        {"compression": Compression.NONE},
        {"xattrs": ((b"user.x", b""),)},
        {"rdev": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_any_change_of_an_object_is_seen_and_found(change: dict[str, Any]) -> None:
    changed = tree()
    etc = changed.children[b"etc"]
    assert isinstance(etc, Directory)
    entry = etc.children[b"passwd"]
    assert isinstance(entry, Entry)
    etc.children[b"passwd"] = replace(entry, **change)
    assert digest_of(changed).value != digest_of(tree()).value
    assert first_difference(tree(), changed) == b"etc/passwd"


def test_names_that_lack_or_are_too_many_are_found() -> None:
    changed = tree()
    del changed.children[b"link"]
    assert (digest_of(changed).entries, first_difference(tree(), changed)) == (5, b"link")
    assert first_difference(changed, tree()) == b"link"
    changed.children[b"zz"] = Directory(Entry(mode=stat.S_IFDIR))
    assert first_difference(tree(), changed) == b"link"


def test_hard_links_of_one_directory_are_seen() -> None:
    changed = tree()
    file = changed.children[b"file"]
    assert isinstance(file, Entry)
    changed.children[b"same"] = replace(file)
    assert digest_of(changed) != digest_of(tree())
    assert first_difference(tree(), changed) == b"file"


def test_the_root_counts() -> None:
    changed = tree()
    changed.entry = replace(changed.entry, mode=stat.S_IFDIR | 0o700)
    assert first_difference(tree(), changed) == b""
    assert digest_of(changed) != digest_of(tree())


def test_no_text_can_pass_for_another() -> None:
    def with_target(name: bytes, target: bytes) -> Directory:
        return Directory(Entry(mode=stat.S_IFDIR), {name: Entry(mode=stat.S_IFLNK, symlink=target)})

    assert digest_of(with_target(b"a", b"b\0c")) != digest_of(with_target(b"a\0b", b"c"))
