"""Each way in which a repository can be wrong is found and named."""

from __future__ import annotations

from pathlib import Path

import pytest

from publisher.check import check
from publisher.cvmfs import codec
from publisher.cvmfs.builder import Stamp, store_metadata
from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.cvmfs.history import History, Tag
from publisher.cvmfs.manifest import MANIFEST_NAME
from publisher.cvmfs.path import path_key
from publisher.cvmfs.reader import LAST_SNAPSHOT_NAME
from publisher.cvmfs.reflog import REFLOG_NAME, ReferenceType, Reflog
from publisher.repository import NewRoot, Repository
from publisher.transaction import Transaction
from tests.support.memory_store import MemoryStore
from tests.support.repositories import new_repository, problems
from tests.support.sample_tree import everything
from tests.support.tampering import at, tamper


def sound(tmp_path: Path) -> tuple[Repository, MemoryStore]:
    repository, store = new_repository(tmp_path)
    with Transaction(repository) as transaction:
        transaction.graft(b"x", everything(store))
        transaction.commit()
    assert problems(repository) == []
    return repository, store


def test_a_replica_has_a_reference_log_that_only_it_can_check(tmp_path: Path) -> None:
    repository, store = sound(tmp_path)
    own = Reflog.empty(repository.fqrn).serialise()
    store.files[REFLOG_NAME] = own
    assert "does not have the checksum" in problems(repository)[0]
    store.files[LAST_SNAPSHOT_NAME] = b"Mon Nov 23 09:22:29 UTC 2026\n"
    assert problems(repository) == []
    found = check(repository.reader(), contains=store.contains, reflog_checksum=ContentHash.of(own))
    assert "does not know the catalog" in str(found[0])


X = b"/x"
FILE = at(b"/x/files/hello.txt")
CHUNKED = at(b"/x/files/chunked")


@pytest.mark.parametrize(
    ("where", "statements", "expected"),
    [
        (X, f"UPDATE catalog SET hash = NULL {FILE}", "/x/files/hello.txt: it is a regular file without content"),
        (X, f"UPDATE catalog SET flags = 12 {FILE}", "the flags 0xc do not fit the mode"),
        (X, f"UPDATE catalog SET flags = flags | 14336 {FILE}", "compression that this version does not know"),
        (X, f"UPDATE catalog SET flags = flags | 1792 {FILE}", "hash algorithm that this version does not know"),
        (X, f"UPDATE catalog SET hardlinks = 2 {FILE}", "link count 2 but no hard-link group"),
        (X, f"UPDATE catalog SET name = 'other' {FILE}", "key is not the hash of its path"),
        (X, f"UPDATE catalog SET name = 'a/b' {FILE}", "cannot be a file's name"),
        (X, f"UPDATE catalog SET symlink = 'x' {FILE}", "has a target but is no symbolic link"),
        (X, f"UPDATE catalog SET xattr = X'0102' {FILE}", "extended attributes are cut"),
        (X, f"UPDATE catalog SET flags = flags | 64 {FILE}", "its chunks hold 0 bytes of 6"),
        (X, f"UPDATE catalog SET flags = flags | 64 {at(b'/x/links/link0')}", "chunked but no regular file"),
        (X, f"UPDATE catalog SET hash = X'{'00' * 20}' {at(b'/x/links/link0')}", "has content although it is no regular file"),
        (X, f"UPDATE catalog SET symlink = '' {at(b'/x/links/link0')}", "it has no target"),
        (X, f"UPDATE catalog SET flags = 33 {at(b'/x/files')}", "root of a nested catalog in the midst"),
        (X, f"UPDATE catalog SET flags = 3 {at(b'/x/files')}", "has entries in the parent catalog too"),
        (X, f"UPDATE catalog SET flags = 3 {at(b'/x/opaque/inside')}", "nested catalog is not named in the catalog"),
        (X, f"UPDATE catalog SET hardlinks = 9 {at(b'/x/hard')}", "has 1 sub-directories but the link count 9"),
        (X, f"UPDATE catalog SET hardlinks = hardlinks + 1 {at(b'/x/hard/a')}", "group of 3 names has the link count 4"),
        (X, f"UPDATE catalog SET mtime = 1 {at(b'/x/hard/a')}", "differ in what they say"),
        (X, f"UPDATE catalog SET hardlinks = (1 << 32) | 1 {FILE}", "reaches over several directories"),
        (X, f"UPDATE catalog SET parent_1 = 5 {FILE}", "1 rows cannot be reached"),
        (X, f"DELETE FROM catalog {at(b'/x/.cvmfscatalog')}", "lacks its marker file"),
        (X, f"DELETE FROM catalog {at(b'/x')}", "lacks the row of its own root directory"),
        (X, f"UPDATE catalog SET uid = 77 {at(b'/x')}", "rows in the nested catalog and in its parent differ"),
        (X, f"UPDATE catalog SET flags = 1 {at(b'/x')}", "rows in the nested catalog and in its parent differ"),
        (X, f"UPDATE chunks SET offset = offset + 1 {CHUNKED} AND offset > 80000", "a gap, an overlap"),
        (X, f"DELETE FROM chunks {CHUNKED} AND offset > 80000", "its chunks hold 170000 bytes of 170003"),
        (X, f"UPDATE chunks SET md5path_1 = 1 {CHUNKED}", "chunks that belong to no chunked file"),
        (X, "UPDATE chunks SET hash = X'00'", "cells of a wrong type in its table chunks"),
        (X, f"UPDATE catalog SET mode = 'text' {FILE}", "cells of a wrong type in its table catalog"),
        (X, "UPDATE statistics SET value = value + 1 WHERE counter = 'self_regular'", "the counter self_regular says"),
        (X, "UPDATE statistics SET value = 5 WHERE counter = 'subtree_dir'", "the counter subtree_dir says 5, but it is 0"),
        (X, "DELETE FROM statistics WHERE counter = 'self_xattr'", "lacks the counter 'self_xattr'"),
        (X, "UPDATE properties SET value = '/y' WHERE key = 'root_prefix'", "says that it belongs to /y"),
        (X, "DROP TABLE nested_catalogs", "the catalog at /x is damaged"),
        (b"", "UPDATE statistics SET value = value + 1 WHERE counter = 'subtree_file_size'", "counter subtree_file_size says"),
        (b"", "UPDATE nested_catalogs SET size = size + 1", "bytes, but"),
        (b"", "UPDATE nested_catalogs SET path = '/y'", "names a nested catalog where there is no mountpoint"),
        (b"", f"UPDATE nested_catalogs SET sha1 = '{'0' * 40}'", f"catalog {'0' * 40} is missing"),
        (b"", "UPDATE nested_catalogs SET sha1 = 'junk'", "by a broken hash"),
        (b"", f"UPDATE catalog SET name = 'root' {at(b'')}", "has a parent, a name or a flag"),
        (b"", f"UPDATE properties SET value = '{2**40}' WHERE key = 'last_modified'", "older than its root catalog"),
    ],
)  # fmt: skip
def test_broken_catalogs(tmp_path: Path, where: bytes, statements: str, expected: str) -> None:
    repository, _ = sound(tmp_path)
    tamper(repository, where, statements)
    assert expected in "\n".join(problems(repository))


def test_abandoned_marker(tmp_path: Path) -> None:
    repository, _ = sound(tmp_path)
    with Transaction(repository) as transaction:
        transaction.make_catalog(b"x/files")
        transaction.commit()
    tamper(repository, b"", f"UPDATE catalog SET flags = 1 {at(b'/x')}; DELETE FROM nested_catalogs")
    marker = f"1, 2, {path_key(X)[0]}, {path_key(X)[1]}, 1, X'{'00' * 20}', 0, 33188, 0, 0, 4, '.cvmfscatalog', '', 0, 0, NULL"
    tamper(repository, b"", f"INSERT INTO catalog SELECT {marker}")
    assert "abandoned .cvmfscatalog" in "\n".join(problems(repository))


@pytest.mark.parametrize("data", [False, True])
def test_missing_objects(tmp_path: Path, data: bool) -> None:
    repository, store = sound(tmp_path)
    victims = [key for key in store.contents if key[1] in {ObjectKind.DATA, ObjectKind.CHUNK}]
    for victim in victims:
        stored = store.contents.pop(victim)
        found = problems(repository, data=data)
        assert len(found) == 1
        assert victim[0].object_path(victim[1]) in found[0]
        assert "restore the object" in found[0]
        store.contents[victim] = stored


def test_damaged_content_is_found_by_reading_it(tmp_path: Path) -> None:
    repository, store = sound(tmp_path)
    entry = repository.reader().lookup(b"x/files/hello.txt")
    assert entry is not None
    assert entry.content is not None
    store.contents[entry.content, ObjectKind.DATA] = codec.compress(b"HELLO\n")
    assert problems(repository, data=False) == []
    assert "/x/files/hello.txt: the data object" in problems(repository)[0]


def test_content_of_another_size_is_found(tmp_path: Path) -> None:
    repository, _ = sound(tmp_path)
    tamper(
        repository,
        X,
        f"UPDATE catalog SET size = 7 {FILE}; UPDATE statistics SET value = value + 1 WHERE counter = 'self_file_size'",
    )
    assert "its content has 6 bytes, not 7" in "\n".join(problems(repository))


def test_reference_log_that_lacks_the_current_revision(tmp_path: Path) -> None:
    repository, store = sound(tmp_path)
    manifest = repository.manifest()
    log = repository.reflog()
    log.remove(manifest.root)
    log.add(manifest.certificate, ReferenceType.HISTORY, 5)
    store.files[REFLOG_NAME] = log.serialise()
    found = "\n".join(problems(repository))
    assert "does not have the checksum" in found
    checksum = ContentHash.of(store.files[REFLOG_NAME])
    found = "\n".join(map(str, check(repository.reader(), reflog_checksum=checksum)))
    assert f"does not know the catalog {manifest.root}" in found
    assert f"does not know the certificate {manifest.certificate}" in found
    store.files[REFLOG_NAME] = b"junk"
    assert "checksum" in "\n".join(problems(repository))


def test_foreign_reference_logs_and_histories_are_refused() -> None:
    with pytest.raises(Exception, match="not of the repository"):
        Reflog(Reflog.empty("a.example.org").serialise(), "b.example.org")
    with pytest.raises(Exception, match="not of the repository"):
        History(History.empty("a.example.org").serialise(None), "b.example.org")
    with pytest.raises(Exception, match=r"not an SQLite database|damaged"):
        Reflog(b"junk" * 500, "a.example.org")


def test_named_snapshots_that_lead_nowhere(tmp_path: Path) -> None:
    repository, store = sound(tmp_path)
    base = repository.manifest()
    size = base.catalog_size
    assert size is not None
    history = History.empty(repository.fqrn)
    history.put(Tag("gone", ContentHash.of(b"gone"), 1, 1, 16384))
    history.put(Tag("liar", base.root, 77, 1, size))
    history.put(Tag("stray", base.root, base.revision, 1, size, "", "branch"))
    content = store_metadata(store, history.serialise(None), ObjectKind.HISTORY)
    repository.publish(NewRoot(base.root, size, Stamp(base.revision, base.timestamp), content), repository.reflog(), base)
    found = "\n".join(problems(repository))
    assert "'gone' cannot be read" in found
    assert "'liar' says another revision" in found
    assert "'stray' is on the unknown branch 'branch'" in found


def test_manifest_and_catalog_that_disagree(tmp_path: Path) -> None:
    repository, store = sound(tmp_path)
    base = repository.manifest()
    size = base.catalog_size
    assert size is not None
    repository.publish(NewRoot(base.root, size, Stamp(99, base.timestamp), None), repository.reflog(), base)
    assert "the manifest says revision 99, its root catalog 2" in "\n".join(problems(repository))
    assert MANIFEST_NAME in store.files
