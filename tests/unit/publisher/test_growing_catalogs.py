"""Catalogs that many small publications let grow: split while that helps, and cheap to change where it does not."""

from __future__ import annotations

from pathlib import Path

from publisher.cvmfs.cuts import GrowthLimits, has_outgrown
from publisher.cvmfs.hash import ObjectKind
from publisher.repository import Repository
from publisher.transaction import Transaction
from tests.support.repositories import new_repository, problems, reopened

LIMITS = GrowthLimits(entries=100, worth=10, nested=20)


def _links(repository: Repository, directory: bytes, numbers: range, growth: GrowthLimits = LIMITS) -> None:
    with Transaction(repository, growth=growth) as transaction:
        for number in numbers:
            transaction.put_symlink(directory + b"/%d" % number, b"target")
        transaction.commit()


def _catalogs(repository: Repository) -> dict[bytes, int]:
    """Rows by the path of the catalog."""
    snapshot = repository.reader().snapshot
    return {catalog.path: catalog.statistics.own.entries for catalog, _ in snapshot.catalogs()}


def test_the_largest_directories_become_catalogs(tmp_path: Path) -> None:
    repository, _ = new_repository(tmp_path)
    for name, count in ((b"hub/large", 60), (b"hub/middle", 30), (b"hub/small", 5)):
        _links(repository, name, range(count))
    assert set(_catalogs(repository)) == {b""}
    _links(repository, b"hub/other/deep", range(30))
    catalogs = _catalogs(repository)
    assert b"/hub/large" in catalogs
    assert sum(catalogs.values()) > 120
    assert max(catalogs.values()) <= 62
    assert len(repository.reader().listing(b"hub/large")) == 61  # with the marker of its catalog
    assert problems(repository) == []


def test_a_directory_that_alone_is_too_large_is_split_from_what_is_around_it(tmp_path: Path) -> None:
    repository, _ = new_repository(tmp_path)
    _links(repository, b"a/b/c", range(150))
    _links(repository, b"a/b/c", range(150, 300))
    assert _catalogs(repository) == {b"": 4, b"/a/b/c": 302}
    assert problems(repository) == []


def test_trees_of_tiny_directories_stay_together(tmp_path: Path) -> None:
    repository, _ = new_repository(tmp_path)
    with Transaction(repository, growth=LIMITS) as transaction:
        for number in range(80):
            transaction.put_symlink(b"hub/user%d/image" % number, b"target")
        transaction.commit()
    assert set(_catalogs(repository)) == {b"", b"/hub"}


def test_a_catalog_names_no_more_others_than_it_may(tmp_path: Path) -> None:
    repository, _ = new_repository(tmp_path)
    for number in range(30):
        _links(repository, b"hub/user%d" % number, range(12 + number % 2), GrowthLimits(entries=100, worth=10, nested=6))
    snapshot = repository.reader().snapshot
    assert max(len(catalog.nested()) for catalog, _ in snapshot.catalogs()) == 6
    assert problems(repository) == []


def test_what_cannot_be_split_is_not_looked_at_again_each_time() -> None:
    limits = GrowthLimits(entries=1000)
    looked_at = [count for count in range(1000, 10_000) if has_outgrown(count, count + 1, limits)]
    assert len(looked_at) < 12
    assert looked_at[0] == 1000
    assert not has_outgrown(5000, 4000, limits)


def test_catalogs_in_memory_are_not_fetched_again(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    _links(repository, b"a/b", range(300))
    store.gets.clear()
    _links(repository, b"a/b", range(300, 301))
    assert [key for key in store.gets if key[1] is ObjectKind.CATALOG] == []
    _links(reopened(repository, tmp_path), b"a/b", range(301, 302))
    assert len([key for key in store.gets if key[1] is ObjectKind.CATALOG]) == 2
    _links(repository, b"a/b", range(302, 303))
    assert len(repository.reader().listing(b"a/b")) == 304
    assert problems(repository) == []


def test_a_transaction_that_is_left_leaves_no_trace_in_memory(tmp_path: Path) -> None:
    repository, _ = new_repository(tmp_path)
    _links(repository, b"a/b", range(3))
    with Transaction(repository) as transaction:
        transaction.put_symlink(b"a/b/lost", b"target")
        transaction.make_directory(b"also-lost")
    _links(repository, b"a/b", range(3, 4))
    assert set(repository.reader().listing(b"a/b")) == {b"0", b"1", b"2", b"3"}
    assert set(repository.reader().listing()) == {b"a"}
    assert problems(repository) == []
