"""Trees laid over what a repository has: what stays, what changes, and that all catalogs stay exact."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from mirror.errors import InvalidInput
from publisher.cvmfs.cuts import CutLimits
from publisher.cvmfs.entry import Directory, Entry
from publisher.errors import PublishError
from publisher.layers.tree import IMPLIED
from publisher.overlay import lay_over
from publisher.repository import Repository
from publisher.transaction import Transaction
from tests.support.repositories import NOW, new_repository, problems, reopened
from tests.support.sample_tree import directory, everything, facts, link, regular

LATER = int(NOW) + 7


def _lay(repository: Repository, path: bytes, tree: Directory, limits: CutLimits | None = None) -> None:
    with Transaction(repository, limits=limits) as transaction:
        lay_over(transaction, path, tree, LATER)
        transaction.commit()


def test_a_tree_where_nothing_was_is_the_tree(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    tree = everything(store)
    _lay(repository, b"opt/software", tree)
    assert facts(repository.reader().tree(b"opt/software")) == facts(tree)
    assert len(list(repository.reader().snapshot.catalogs())) == 1
    assert problems(repository) == []


def test_directories_that_nobody_described_are_as_old_as_they_are(tmp_path: Path) -> None:
    repository, _ = new_repository(tmp_path)
    tree = Directory(IMPLIED, {b"implied": Directory(IMPLIED, {b"described": directory()})})
    described = directory().entry.mtime
    _lay(repository, b"x", tree)
    _lay(repository, b"x", Directory(IMPLIED, {b"implied": Directory(IMPLIED)}))
    shown = {path: (entry.mtime, entry.mtime_ns) for path, entry in repository.reader().tree(b"x").walk()}
    assert shown == {b"implied": (LATER, 0), b"implied/described": (described, directory().entry.mtime_ns)}


def test_laying_a_tree_twice_changes_nothing_that_users_see(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    tree = everything(store)
    _lay(repository, b"x", tree)
    _lay(reopened(repository, tmp_path), b"x", tree)
    assert facts(repository.reader().tree(b"x")) == facts(tree)
    assert problems(repository) == []


def test_what_has_other_names_stays(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    first, second = directory(), directory(0o700, mtime=5)
    first.children = {b"a": regular(store, b"1"), b"sub": directory(0o711)}
    second.children = {b"b": regular(store, b"2"), b"sub": Directory(IMPLIED, {b"c": link(b"x")})}
    _lay(repository, b"base", first)
    _lay(repository, b"base", second)
    reader = repository.reader()
    assert set(reader.listing(b"base")) == {b"a", b"b", b"sub"}
    base, sub = reader.lookup(b"base"), reader.lookup(b"base/sub")
    assert base is not None
    assert sub is not None
    assert (base.mode, base.mtime) == (stat.S_IFDIR | 0o700, 5)
    assert sub.mode == stat.S_IFDIR | 0o711
    assert problems(repository) == []


def test_other_kinds_are_replaced_with_all_below_them(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    first, second = directory(), directory()
    inner = directory()
    inner.children = {b"deep": directory(), b"file": regular(store, b"1")}
    first.children = {b"was-directory": inner, b"was-file": regular(store, b"2"), b"link": link(b"was-directory")}
    second.children = {b"was-directory": regular(store, b"3"), b"was-file": inner, b"link": directory()}
    _lay(repository, b"", first)
    with Transaction(repository) as transaction:
        transaction.make_catalog(b"was-directory")
        transaction.commit()
    _lay(repository, b"", second)
    reader = repository.reader()
    assert reader.read(b"was-directory") == b"3"
    assert set(reader.listing(b"was-file")) == {b"deep", b"file"}
    assert reader.listing(b"link") == {}
    assert problems(repository) == []


def test_the_root_keeps_its_own_attributes(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    tree = directory(0o700)
    tree.children = {b"a": regular(store, b"1")}
    _lay(repository, b"", tree)
    root = repository.reader().lookup(b"")
    assert root is not None
    assert root.mode == stat.S_IFDIR | 0o755


def test_hard_links_join_no_group_that_is_there(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    for names in ((b"a", b"b"), (b"c", b"d", b"e"), (b"b", b"c")):
        shared = regular(store, b"".join(names))
        tree = directory()
        tree.children = dict.fromkeys(names, shared)
        _lay(repository, b"links", tree)
    listing = repository.reader().listing(b"links")
    assert listing[b"b"] is listing[b"c"]
    assert listing[b"d"] is listing[b"e"]
    assert len({id(entry) for entry in listing.values()}) == 3
    assert problems(repository) == []


def test_a_tree_that_is_too_large_for_one_catalog_is_cut(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    tree = everything(store)
    _lay(repository, b"x", tree, CutLimits(most=20, fewest=5))
    assert len(list(repository.reader().snapshot.catalogs())) > 2
    assert facts(repository.reader().tree(b"x")) == facts(tree)
    assert problems(repository) == []


def test_what_the_format_cannot_hold_is_refused(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    with Transaction(repository) as transaction:
        with pytest.raises(InvalidInput, match="cannot be put as a file"):
            transaction.put_files(b"x", {b".cvmfscatalog": regular(store, b"")})
        with pytest.raises(InvalidInput, match="cannot be a file's name"):
            transaction.put_files(b"x", {b"..": regular(store, b"")})
        with pytest.raises(InvalidInput, match="without content"):
            transaction.put_files(b"x", {b"a": Entry(mode=stat.S_IFREG)})
        transaction.put_tree(b"y", directory())
        with pytest.raises(PublishError, match="remove it first"):
            transaction.put_tree(b"y", directory())
