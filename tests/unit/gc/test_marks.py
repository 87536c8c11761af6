"""The set of marked objects, read from catalogs by SQL."""

from __future__ import annotations

import random
import sqlite3

import pytest

from publisher.cvmfs import codec
from publisher.cvmfs.builder import Stamp, build
from publisher.cvmfs.cuts import CutLimits
from publisher.cvmfs.entry import Directory, Entry
from publisher.cvmfs.hash import HASH_SIZE, ContentHash, ObjectKind
from publisher.cvmfs.row import Flags
from publisher.errors import RepositoryDamaged
from publisher.gc.marks import Marks
from tests.support.memory_store import MemoryStore
from tests.support.sample_tree import chunked, directory, everything, regular

ROOM = 1 << 20


def database(store: MemoryStore, tree: Directory) -> tuple[ContentHash, bytes]:
    built = build(store, b"/x", tree, Stamp(1, 1), CutLimits()).reference.content
    return built, codec.decompress(store.get(built, ObjectKind.CATALOG), 1 << 30)


def changed(data: bytes, statements: str) -> bytes:
    connection = sqlite3.connect(":memory:")
    connection.deserialize(data)
    connection.executescript(statements)
    return connection.serialize()


def test_all_of_a_catalog_is_marked_and_nothing_else() -> None:
    store = MemoryStore()
    tree = everything(store)
    stranger = regular(store, b"not in the tree").content
    content, data = database(store, tree)
    marks = Marks(ROOM)
    links = marks.add_catalog(content, data)
    wanted = {(entry.content, ObjectKind.DATA) for _, entry in tree.walk() if entry.content}
    wanted |= {(chunk.content, ObjectKind.CHUNK) for _, entry in tree.walk() for chunk in entry.chunks}
    assert all(marks.holds(found, kind) for found, kind in wanted)
    assert marks.holds(content, ObjectKind.CATALOG)
    assert stranger is not None
    assert not marks.holds(stranger, ObjectKind.DATA)
    assert not any(marks.holds(found, ObjectKind.CERTIFICATE) for found, _ in wanted)
    pieces = sum(len(entry.chunks) for _, entry in tree.walk())
    assert links.rows == sum(1 for _ in tree.walk()) + 2 + pieces  # the directory itself and the marker file, and the chunks
    assert (links.nested, links.previous) == ((), None)


def test_objects_of_external_files_are_spared_as_cvmfs_server_does() -> None:
    store = MemoryStore()
    tree = directory()
    tree.children[b"file"], tree.children[b"large"] = whole, pieces = regular(store, b"x"), chunked(store, [b"y", b"z"])
    content, data = database(store, tree)
    marks = Marks(ROOM)
    marks.add_catalog(content, changed(data, f"UPDATE catalog SET flags = flags | {Flags.EXTERNAL:d} WHERE name <> ''"))
    assert whole.content is not None
    assert marks.holds(whole.content, ObjectKind.DATA)
    assert all(marks.holds(chunk.content, ObjectKind.CHUNK) for chunk in pieces.chunks)


def test_files_are_not_chunks() -> None:
    store = MemoryStore()
    tree = directory()
    tree.children[b"file"] = whole = regular(store, b"the same bytes")
    other = directory()
    other.children[b"file"] = pieces = chunked(store, [b"some other bytes", b"and more"])
    marks = Marks(ROOM)
    for each in (tree, other):
        marks.add_catalog(*database(store, each))
    assert whole.content is not None
    assert marks.holds(whole.content, ObjectKind.DATA)
    assert not marks.holds(whole.content, ObjectKind.CHUNK)
    assert marks.holds(pieces.chunks[0].content, ObjectKind.CHUNK)
    assert not marks.holds(pieces.chunks[0].content, ObjectKind.DATA)


def test_links_are_read() -> None:
    store = MemoryStore()
    content, data = database(store, directory())
    first, second, third = (ContentHash.of(text) for text in (b"1", b"2", b"3"))
    statements = f"""INSERT INTO nested_catalogs VALUES ('/x/a', '{first}', 1), ('/x/b', '{second}', 1);
        INSERT INTO properties VALUES ('previous_revision', '{third}')"""
    links = Marks(ROOM).add_catalog(content, changed(data, statements))
    assert (set(links.nested), links.previous) == ({first, second}, third)
    statements = f"INSERT INTO properties VALUES ('previous_revision', '{ContentHash(bytes(HASH_SIZE))}')"
    assert Marks(ROOM).add_catalog(content, changed(data, statements)).previous is None


@pytest.mark.parametrize(
    "statements",
    [
        "UPDATE catalog SET hash = x'00' WHERE name = 'file'",
        "UPDATE catalog SET hash = 'twenty letters of text' WHERE name = 'file'",
        "UPDATE catalog SET flags = 'none' WHERE name = 'file'",
        "INSERT INTO chunks VALUES (1, 2, 0, 1, NULL)",
        "INSERT INTO nested_catalogs VALUES ('/x/a', 'no hash', 1)",
        "INSERT INTO properties VALUES ('previous_revision', 'no hash')",
        "DROP TABLE chunks",
    ],
)
def test_a_catalog_that_cannot_be_understood_is_refused(statements: str) -> None:
    """What is not marked is deleted: there is no guessing."""
    store = MemoryStore()
    tree = directory()
    tree.children[b"file"] = regular(store, b"file")
    content, data = database(store, tree)
    with pytest.raises(RepositoryDamaged, match=str(content)):
        Marks(ROOM).add_catalog(content, changed(data, statements))


def test_what_is_no_database_is_refused() -> None:
    with pytest.raises(RepositoryDamaged):
        Marks(ROOM).add_catalog(ContentHash.of(b"x"), b"not a database" * 1000)


def test_more_than_fits_in_memory() -> None:
    """Ten times over the limit of 100 KiB, in catalogs that overlap."""
    source, store = random.Random(1), MemoryStore()
    digests = [ContentHash(source.randbytes(HASH_SIZE)) for _ in range(30_000)]
    marks = Marks(100 << 10)
    for start in range(0, 30_000, 5_000):
        tree = directory()
        for number, content in enumerate(digests[max(start - 2_000, 0) : start + 5_000]):
            tree.children[b"%d" % number] = Entry(mode=0o100644, size=1, content=content)
        marks.add_catalog(*database(store, tree))
        assert marks.holds(digests[start], ObjectKind.DATA)
    assert all(marks.holds(content, ObjectKind.DATA) for content in digests)
    assert not any(marks.holds(ContentHash(source.randbytes(HASH_SIZE)), ObjectKind.DATA) for _ in range(1000))
