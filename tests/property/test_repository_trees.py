"""Random trees survive the way through a repository; random sequences of changes keep it sound and equal to a model."""

from __future__ import annotations

import stat
import tempfile
from dataclasses import replace
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from publisher.cvmfs.cuts import CutLimits
from publisher.cvmfs.entry import Chunk, Compression, Directory, Entry
from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.images.tree_digest import digest_of, first_difference
from publisher.repository import Repository
from publisher.transaction import Transaction
from tests.support.memory_store import MemoryStore
from tests.support.repositories import new_repository, problems
from tests.support.sample_tree import facts, put_content

NAMES = st.one_of(
    st.sampled_from([b"a", b"b", b"c", b"d", b"..."]),
    st.binary(min_size=1, max_size=255).filter(
        lambda name: b"/" not in name and b"\0" not in name and name not in {b".", b"..", b".cvmfscatalog"}
    ),
)
SECONDS = st.integers(-(2**62), 2**62)
METADATA = st.builds(
    Entry,
    mode=st.just(0),
    uid=st.integers(0, 4294967294),
    gid=st.integers(0, 4294967294),
    mtime=SECONDS,
    mtime_ns=st.integers(0, 999_999_999),
    xattrs=st.dictionaries(
        st.binary(min_size=1, max_size=30).filter(lambda name: b"\0" not in name), st.binary(max_size=30), max_size=3
    ).map(lambda pairs: tuple(sorted(pairs.items()))),
)
PERMISSIONS = st.integers(0, 0o7777)


class Contents:
    """Puts what a drawn file holds into the store when the tree is used."""

    def __init__(self) -> None:
        self.store = MemoryStore()

    def whole(self, data: bytes) -> ContentHash:
        return put_content(self.store, data)

    def raw(self, data: bytes) -> ContentHash:
        content = ContentHash.of(data)
        self.store.put(content, ObjectKind.DATA, data)
        return content

    def pieces(self, pieces: list[bytes]) -> tuple[Chunk, ...]:
        chunks, offset = [], 0
        for piece in pieces:
            chunks.append(Chunk(offset, len(piece), put_content(self.store, piece, ObjectKind.CHUNK)))
            offset += len(piece)
        return tuple(chunks)


CONTENTS = Contents()


@st.composite
def files(draw: st.DrawFn) -> Entry:
    common, permissions = draw(METADATA), draw(PERMISSIONS)
    kind = draw(st.sampled_from(["whole", "raw", "chunked", "symlink", "fifo", "socket", "char", "block"]))
    if kind in {"whole", "raw"}:
        data = draw(st.binary(max_size=40))
        packed = kind == "whole"
        content = CONTENTS.whole(data) if packed else CONTENTS.raw(data)
        compression = Compression.ZLIB if packed else Compression.NONE
        return replace(common, mode=stat.S_IFREG | permissions, size=len(data), content=content, compression=compression)
    if kind == "chunked":
        pieces = draw(st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=4))
        return replace(common, mode=stat.S_IFREG | permissions, size=sum(map(len, pieces)), chunks=CONTENTS.pieces(pieces))
    if kind == "symlink":
        text = st.one_of(
            st.binary(min_size=1, max_size=60),
            st.lists(st.sampled_from([b"$(", b")", b":-", b"$", b"x"]), min_size=1).map(b"".join),
        )
        return replace(common, mode=stat.S_IFLNK | 0o777, symlink=draw(text.filter(lambda target: b"\0" not in target)))
    if kind in {"char", "block"}:
        device = stat.S_IFCHR if kind == "char" else stat.S_IFBLK
        return replace(common, mode=device | permissions, rdev=draw(st.integers(0, 2**40)))
    return replace(common, mode=(stat.S_IFIFO if kind == "fifo" else stat.S_IFSOCK) | permissions)


@st.composite
def directories(draw: st.DrawFn, depth: int = 3) -> Directory:
    made = Directory(replace(draw(METADATA), mode=stat.S_IFDIR | draw(PERMISSIONS)))
    pool = draw(st.lists(files(), max_size=4))
    for name in draw(st.lists(NAMES, max_size=6, unique=True)):
        if depth and draw(st.booleans()):
            made.children[name] = draw(directories(depth - 1))
        elif pool:
            made.children[name] = draw(st.sampled_from(pool))
    return made


LIMITS = st.builds(CutLimits, most=st.integers(3, 40), fewest=st.integers(1, 10))


def prepared(directory: str) -> Repository:
    repository, store = new_repository(Path(directory))
    store.contents.update(CONTENTS.store.contents)
    return repository


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(directories(), LIMITS)
def test_random_trees_survive(tree: Directory, limits: CutLimits) -> None:
    with tempfile.TemporaryDirectory() as directory:
        repository = prepared(directory)
        with Transaction(repository, limits=limits) as transaction:
            transaction.graft(b"some/where", tree)
            transaction.commit()
        found = repository.reader().tree(b"some/where")
        assert facts(found) == facts(tree)
        assert (digest_of(found), first_difference(tree, found)) == (digest_of(tree), None)
        assert problems(repository) == []


PATHS = st.lists(st.sampled_from([b"a", b"b", b"c"]), min_size=1, max_size=3).map(b"/".join)
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("graft"), PATHS, directories(1)),
        st.tuples(st.just("put"), PATHS, files()),
        st.tuples(st.just("remove"), PATHS, st.none()),
        st.tuples(st.just("catalog"), PATHS, st.none()),
        st.tuples(st.just("directory"), PATHS, st.none()),
        st.tuples(st.just("commit"), st.just(b""), st.none()),
    ),
    min_size=1,
    max_size=14,
)


class Model:
    """What the repository should hold, in the plainest form: nested dictionaries."""

    def __init__(self) -> None:
        self.root = Directory(Entry(mode=stat.S_IFDIR | 0o755))

    def apply(self, operation: str, path: bytes, value: Directory | Entry | None) -> bool:
        """Whether the operation is possible; then the model has it."""
        *above, name = path.split(b"/")
        place = self.root
        if operation == "remove":
            for part in above:
                inner = place.children.get(part)
                if not isinstance(inner, Directory):
                    return True
                place = inner
            place.children.pop(name, None)
            return True
        for part in above:
            inner = place.children.setdefault(part, Directory(Entry(mode=stat.S_IFDIR | 0o755)))
            if not isinstance(inner, Directory):
                return False
            place = inner
        present = place.children.get(name)
        if operation == "put":
            if isinstance(present, Directory) or not isinstance(value, Entry):
                return False
            place.children[name] = replace(value)
        elif operation == "graft":
            assert isinstance(value, Directory)
            place.children[name] = copied(value)
        elif present is None:
            place.children[name] = Directory(Entry(mode=stat.S_IFDIR | 0o755))
        else:
            return isinstance(present, Directory)
        return True


def copied(tree: Directory) -> Directory:
    return Directory(
        tree.entry, {name: copied(child) if isinstance(child, Directory) else child for name, child in tree.children.items()}
    )


def comparable(tree: Directory) -> dict[bytes, object]:
    """Facts without times and modes of directories, which transactions make up for parents."""
    return {
        path: value if not stat.S_ISDIR(value[0]) else "directory"
        for path, value in facts(tree).items()
        if isinstance(value[0], int)
    }


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(OPERATIONS, LIMITS)
def test_random_changes_keep_the_repository_sound(
    operations: list[tuple[str, bytes, Directory | Entry | None]], limits: CutLimits
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        repository, model = prepared(directory), Model()
        transaction = Transaction(repository, limits=limits).__enter__()
        try:
            for operation, path, value in operations:
                if operation == "commit":
                    transaction.commit()
                    transaction.__exit__(None, None, None)
                    assert problems(repository) == []
                    assert comparable(repository.reader().tree()) == comparable(model.root)
                    transaction = Transaction(repository, limits=limits).__enter__()
                    continue
                possible = Model()
                possible.root = copied(model.root)
                if possible.apply(operation, path, value):
                    model = possible
                    perform(transaction, operation, path, value)
            transaction.commit()
        finally:
            transaction.__exit__(None, None, None)
        assert comparable(repository.reader().tree()) == comparable(model.root)
        assert problems(repository) == []


def perform(transaction: Transaction, operation: str, path: bytes, value: Directory | Entry | None) -> None:
    if isinstance(value, Directory):
        transaction.graft(path, value)
    elif isinstance(value, Entry):
        transaction.put_file(path, value)
    elif operation == "remove":
        transaction.remove(path)
    elif operation == "catalog":
        transaction.make_catalog(path)
    else:
        transaction.make_directory(path)
