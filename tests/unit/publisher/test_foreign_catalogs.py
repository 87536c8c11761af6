"""What CernVM-FS's own tools may have put into a repository, and we never write."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from publisher.cvmfs.row import Flags
from publisher.errors import RepositoryDamaged
from publisher.transaction import Transaction
from tests.support.repositories import new_repository, problems
from tests.support.sample_tree import regular
from tests.support.tampering import at, tamper


def test_hidden_objects_are_not_listed_but_can_be_looked_up(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    with Transaction(repository) as transaction:
        transaction.put_file(b"shown", regular(store, b"1"))
        transaction.put_file(b"hidden", regular(store, b"2"))
        transaction.commit()
    tamper(repository, b"", f"UPDATE catalog SET flags = flags | {Flags.HIDDEN} {at(b'/hidden')}")
    reader = repository.reader()
    assert set(reader.listing()) == set(reader.tree().children) == {b"shown"}
    assert [path for path, _ in reader.walk()] == [b"shown"]
    assert reader.read(b"hidden") == b"2"
    assert problems(repository) == []


def test_bind_mountpoints_are_shown_as_empty_directories(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    with Transaction(repository) as transaction:
        transaction.make_directory(b"bound")
        transaction.put_file(b"file", regular(store, b"1"))
        transaction.commit()
    row = f"INSERT INTO bind_mountpoints VALUES ('/bound', '{repository.manifest().root}', 16384)"
    tamper(repository, b"", f"UPDATE catalog SET flags = flags | {Flags.BIND_MOUNTPOINT} {at(b'/bound')}; {row}")
    reader = repository.reader()
    assert reader.listing(b"bound") == {}
    assert {path for path, _ in reader.walk()} == {b"bound", b"file"}
    assert {path for path, _ in reader.tree().walk()} == {b"bound", b"file"}
    assert problems(repository) == []


def test_impossible_names_stop_the_reader(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    with Transaction(repository) as transaction:
        transaction.put_file(b"file", regular(store, b"1"))
        transaction.commit()
    tamper(repository, b"", f"UPDATE catalog SET name = '../../etc/passwd' {at(b'/file')}")
    reader = repository.reader()
    for call in (reader.listing, reader.tree, lambda: list(reader.walk())):
        with pytest.raises(RepositoryDamaged, match="impossible name"):
            call()


def test_a_catalog_without_its_root_directory_is_not_built_upon(tmp_path: Path) -> None:
    repository, _ = new_repository(tmp_path)
    tamper(repository, b"", f"DELETE FROM catalog {at(b'')}")
    with pytest.raises(RepositoryDamaged, match="lacks its root directory"):
        Transaction(repository).__enter__()


def test_taking_over_the_named_snapshots_of_the_server_tools(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    for text in (b"1", b"2", b"3"):
        with Transaction(repository) as transaction:
            transaction.put_file(b"file", regular(store, text))
            if text == b"1":
                transaction.tag("trunk")
            transaction.commit()
    history = repository.reader().history()
    assert history is not None
    tags = history.tags()
    assert (tags["trunk"].revision, tags["trunk-previous"].revision) == (4, 3)
    found = repository.reader().lookup(b"file")
    assert found is not None
    assert stat.S_ISREG(found.mode)
