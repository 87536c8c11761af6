from __future__ import annotations

import stat
from pathlib import Path

import pytest

from mirror.errors import InvalidInput, NotFound
from publisher.cvmfs.cuts import CutLimits
from publisher.cvmfs.entry import Directory, Entry
from publisher.cvmfs.hash import ObjectKind
from publisher.cvmfs.history import TRUNK, Tag
from publisher.errors import LeaseLost, PublishError
from publisher.repository import Repository, Step
from publisher.transaction import Transaction
from tests.support.repositories import Clock, new_repository, problems, reopened
from tests.support.sample_tree import MTIME, directory, everything, facts, link, regular
from tests.support.tampering import tamper


def catalogs(repository: Repository) -> list[bytes]:
    return [catalog.path for catalog, _ in repository.reader().snapshot.catalogs()]


def links(repository: Repository, path: bytes) -> int:
    found = repository.reader().snapshot.locate(path)
    assert found is not None
    return found.row.link_count


def test_graft_reads_back_identical(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    tree = everything(store)
    with Transaction(repository) as transaction:
        transaction.graft(b".layers/ab/abcd/layerfs", tree)
        revision = transaction.commit()
    reader = repository.reader()
    assert (revision.revision, revision.root_hash) == (2, reader.manifest.root)
    assert facts(reader.tree(b".layers/ab/abcd/layerfs")) == facts(tree)
    assert reader.read(b"/.layers/ab/abcd/layerfs/files/hello.txt") == b"hello\n"
    assert len(reader.read(b"/.layers/ab/abcd/layerfs/files/chunked")) == 170_003
    assert catalogs(repository) == [b"", b"/.layers/ab/abcd/layerfs"]
    assert problems(repository) == []


def test_large_trees_are_cut(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    tree = everything(store)
    with Transaction(repository, limits=CutLimits(most=14, fewest=4)) as transaction:
        transaction.graft(b"image", tree)
        transaction.commit()
    assert facts(repository.reader().tree(b"image")) == facts(tree)
    assert len(catalogs(repository)) > 4
    assert problems(repository) == []


def test_graft_replaces_whatever_was_there(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    with Transaction(repository) as transaction:
        transaction.graft(b"a/b", everything(store))
        transaction.put_file(b"a/c", regular(store, b"c"))
        transaction.make_directory(b"a/d/e/f")
        transaction.commit()
    small = directory()
    small.children[b"only"] = regular(store, b"only")
    with Transaction(repository) as transaction:
        for name in (b"a/b", b"a/c", b"a/d"):
            transaction.graft(name, small)
        transaction.commit()
    reader = repository.reader()
    assert [facts(reader.tree(name)) == facts(small) for name in (b"a/b", b"a/c", b"a/d")] == [True] * 3
    assert links(repository, b"a") == 5
    assert problems(repository) == []


def test_only_root_catalogs_name_their_predecessors(tmp_path: Path) -> None:
    """Replicas do not forgive a nested one that was collected."""
    repository, store = new_repository(tmp_path)
    tree = directory()
    tree.children[b"file"] = regular(store, b"text")
    hashes = []
    for name in (b"x", b"x/below", b"x"):
        with Transaction(repository) as transaction:
            transaction.graft(name, tree)
            transaction.commit()
        hashes.append({catalog.path: (catalog, content) for catalog, content in repository.reader().snapshot.catalogs()})
    assert [set(catalogs) for catalogs in hashes] == [{b"", b"/x"}, {b"", b"/x", b"/x/below"}, {b"", b"/x"}]
    assert [catalog.previous for catalogs in hashes for path, (catalog, _) in catalogs.items() if path] == [None] * 4
    assert [catalogs[b""][0].previous for catalogs in hashes[1:]] == [catalogs[b""][1] for catalogs in hashes[:-1]]
    tamper(repository, b"/x", f"INSERT INTO properties VALUES ('previous_revision', '{hashes[0][b'/x'][1]}')")
    assert repository.reader().snapshot.nested(repository.reader().snapshot.root.nested()[0]).previous is not None
    with Transaction(repository) as transaction:
        transaction.put_symlink(b"x/link", b"target")
        transaction.commit()
    assert repository.reader().snapshot.nested(repository.reader().snapshot.root.nested()[0]).previous is None


def test_files_links_and_directories(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    with Transaction(repository) as transaction:
        transaction.put_file(b"docs/readme", regular(store, b"read me"))
        transaction.put_symlink(b"docker.io/library/debian:12", b"../../.flat/ab/abcd")
        transaction.make_directory(b"odd", Entry(mode=stat.S_IFDIR | 0o1777, uid=7, mtime=-5, xattrs=((b"user.a", b"b"),)))
        transaction.make_directory(b"odd")
        assert transaction.lookup(b"docs/readme") is not None
        assert transaction.exists(b"docker.io")
        assert not transaction.exists(b"docker.io/other")
        transaction.commit()
    reader = repository.reader()
    assert reader.read(b"docs/readme") == b"read me"
    found = reader.lookup(b"docker.io/library/debian:12")
    assert found is not None
    assert found.symlink == b"../../.flat/ab/abcd"
    odd = reader.lookup(b"odd")
    assert odd is not None
    assert (odd.mode, odd.uid, odd.mtime, odd.xattrs) == (stat.S_IFDIR | 0o1777, 7, -5, ((b"user.a", b"b"),))
    assert problems(repository) == []


def test_changing_a_directory_that_is_a_nested_catalog_changes_both_its_rows(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    with Transaction(repository) as transaction:
        transaction.graft(b"x", everything(store))
        transaction.commit()
    with Transaction(repository) as transaction:
        transaction.make_directory(b"x", Entry(mode=stat.S_IFDIR | 0o700, uid=5, mtime=9))
        transaction.make_directory(b"x/one/more")
        transaction.commit()
    found = repository.reader().lookup(b"x")
    assert found is not None
    assert (found.mode, found.uid) == (stat.S_IFDIR | 0o700, 5)
    assert problems(repository) == []


def test_existing_directories_become_catalogs(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    with Transaction(repository) as transaction:
        transaction.graft(b"a/b/c/inner", everything(store))
        transaction.put_file(b"a/b/c/file", regular(store, b"1"))
        transaction.put_file(b"a/b/other", regular(store, b"2"))
        transaction.commit()
    before = facts(repository.reader().tree())
    with Transaction(repository) as transaction:
        transaction.make_catalog(b"a/b")
        transaction.make_catalog(b"a/b/c")
        transaction.make_catalog(b"a/b")
        transaction.make_catalog(b"new/one")
        transaction.commit()
    assert catalogs(repository) == [b"", b"/a/b", b"/a/b/c", b"/a/b/c/inner", b"/new/one"]
    after = facts(repository.reader().tree())
    assert {path: after[path] for path in before} == before
    assert problems(repository) == []


def test_hard_links_move_to_a_new_catalog_together(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    with Transaction(repository) as transaction:
        transaction.graft(b"x", everything(store))
        transaction.make_catalog(b"x/hard")
        transaction.commit()
    listing = repository.reader().listing(b"x/hard")
    assert listing[b"a"] is listing[b"b"] is listing[b"c"]
    assert problems(repository) == []


def test_breaking_up_hard_links(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    with Transaction(repository) as transaction:
        transaction.graft(b"x", everything(store))
        transaction.remove(b"x/hard/a")
        transaction.put_file(b"x/hard/x", regular(store, b"no longer the same"))
        transaction.put_symlink(b"x/hard/p", b"elsewhere")
        transaction.commit()
    assert (links(repository, b"x/hard/b"), links(repository, b"x/hard/y"), links(repository, b"x/hard/q")) == (2, 1, 1)
    assert problems(repository) == []


def test_removing(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    with Transaction(repository) as transaction:
        transaction.graft(b"x/one", everything(store))
        transaction.graft(b"x/two", everything(store))
        transaction.make_catalog(b"x")
        transaction.commit()
    assert repository.reader().snapshot.root.statistics.subtree.regular > 40
    repository = reopened(repository, tmp_path)
    store.gets.clear()
    with Transaction(repository) as transaction:
        assert transaction.remove(b"x/one")
        assert not transaction.remove(b"x/one")
        transaction.commit()
    assert len([key for key in store.gets if key[1] is ObjectKind.CATALOG]) == 3
    assert problems(repository) == []
    with Transaction(repository) as transaction:
        assert transaction.remove(b"x")
        transaction.commit()
    assert repository.reader().listing() == {}
    assert repository.reader().snapshot.root.statistics.total.entries == 1
    assert problems(repository) == []


def test_editing_inside_a_tree_that_was_just_grafted_or_is_then_removed(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    with Transaction(repository) as transaction:
        transaction.graft(b"x", everything(store))
        transaction.put_file(b"x/files/added", regular(store, b"added"))
        transaction.graft(b"x/deep/inside", everything(store))
        transaction.graft(b"y", everything(store))
        transaction.put_file(b"y/added", regular(store, b"added"))
        transaction.make_catalog(b"y/names")
        transaction.remove(b"y")
        transaction.graft(b"z", everything(store))
        transaction.put_file(b"z/added", regular(store, b"added"))
        transaction.graft(b"z", everything(store))
        transaction.commit()
    reader = repository.reader()
    assert set(reader.listing()) == {b"x", b"z"}
    assert facts(reader.tree(b"x/deep/inside")) == facts(everything(store)) == facts(reader.tree(b"z"))
    assert problems(repository) == []


def test_marker_files_of_an_image_are_not_the_repositorys(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    tree = directory()
    tree.children = {b".cvmfscatalog": directory(), b"sub": directory(), b"file": regular(store, b"1")}
    sub = tree.children[b"sub"]
    assert isinstance(sub, Directory)
    sub.children[b".cvmfscatalog"] = regular(store, b"planted")
    with Transaction(repository) as transaction:
        transaction.graft(b"x", tree)
        with pytest.raises(InvalidInput):
            transaction.put_file(b"x/sub/.cvmfscatalog", regular(store, b"planted"))
        transaction.commit()
    assert set(repository.reader().tree(b"x").children) == {b"sub", b"file"}
    assert problems(repository) == []


def test_what_the_format_cannot_hold_is_refused_and_spoils_nothing(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    bad_entries = {
        b"no content": Entry(mode=stat.S_IFREG | 0o644),
        b"no target": link(b""),
        b"no type": Entry(mode=0o644),
        b"owner": Entry(mode=stat.S_IFIFO, uid=4294967295),
        b"time": Entry(mode=stat.S_IFIFO, mtime_ns=1_000_000_000),
        b"directory": Entry(mode=stat.S_IFDIR),
        b"a/b": Entry(mode=stat.S_IFIFO),
        b"..": Entry(mode=stat.S_IFIFO),
    }
    with Transaction(repository) as transaction:
        transaction.graft(b"good", everything(store))
        for name, entry in bad_entries.items():
            tree = directory()
            tree.children[name] = entry
            with pytest.raises(PublishError, match="/good"):
                transaction.graft(b"good", tree)
        with pytest.raises(PublishError, match="/good"):
            transaction.graft(b"good", Directory(Entry(mode=stat.S_IFIFO)))
        transaction.commit()
    assert facts(repository.reader().tree(b"good")) == facts(everything(store))
    assert problems(repository) == []


def test_what_is_in_the_way_is_named(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    with Transaction(repository) as transaction:
        transaction.put_file(b"file", regular(store, b"1"))
        transaction.make_directory(b"dir")
        with pytest.raises(PublishError, match="/file is no directory"):
            transaction.put_file(b"file/below", regular(store, b"2"))
        with pytest.raises(PublishError, match="/file is no directory"):
            transaction.graft(b"file/below", everything(store))
        with pytest.raises(PublishError, match="/file is no directory"):
            transaction.make_catalog(b"file")
        with pytest.raises(PublishError, match="/dir is a directory"):
            transaction.put_symlink(b"dir", b"x")
        for call in (transaction.remove, transaction.make_catalog):
            with pytest.raises(InvalidInput):
                call(b"")
        with pytest.raises(InvalidInput):
            transaction.make_directory(b"a/../b")
        transaction.commit()
    assert set(repository.reader().listing()) == {b"file", b"dir"}
    assert problems(repository) == []


def test_without_changes_nothing_is_published(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    readme = regular(store, b"read me")
    with Transaction(repository) as transaction:
        transaction.put_symlink(b"a", b"b")
        transaction.put_file(b"readme", readme)
        transaction.make_catalog(b"c")
        transaction.commit()
    files = dict(store.files)
    with Transaction(repository) as transaction:
        transaction.put_symlink(b"a", b"b")
        transaction.put_file(b"readme", readme)
        transaction.make_catalog(b"c")
        transaction.make_directory(b"c")
        assert not transaction.remove(b"nothing")
        assert not transaction.changed
        assert transaction.commit().revision == 2
    assert store.files == files


def test_a_commit_that_was_stopped_can_be_tried_again(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)

    def stop(step: Step) -> None:
        if step is Step.ANNOUNCE_REFLOG:
            raise LeaseLost("the lease went to another server")

    with Transaction(repository) as transaction:
        transaction.make_catalog(b"a/b/c")
        transaction.put_file(b"a/b/c/file", regular(store, b"1"))
        with pytest.raises(LeaseLost):
            transaction.commit(stop)
        assert repository.reader().manifest.revision == 1
        transaction.make_catalog(b"a/b")
        transaction.commit()
    assert repository.reader().read(b"a/b/c/file") == b"1"
    assert problems(repository) == []


def test_leaving_without_a_commit_changes_nothing(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    files = dict(store.files)
    with Transaction(repository) as transaction:
        transaction.graft(b"x", everything(store))
    assert store.files == files
    assert repository.reader().listing() == {}


def test_objects_are_flushed_before_the_manifest_names_them(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)

    def on_step(step: Step) -> None:
        if step is Step.REFLOG:
            assert store.flushed == set(store.contents)

    with Transaction(repository) as transaction:
        transaction.graft(b"x", everything(store))
        transaction.commit(on_step)
    assert store.flushed == set(store.contents)


def test_revision_and_times_only_grow(tmp_path: Path) -> None:
    clock = Clock()
    repository, _ = new_repository(tmp_path, clock=clock)
    seen = []
    for number, step in enumerate((100, -1000, 5000)):
        clock.now += step
        with Transaction(repository) as transaction:
            transaction.put_symlink(b"x", b"%d" % number)
            manifest = transaction.commit().manifest
        root = repository.reader().snapshot.root
        assert (root.revision, root.last_modified) == (manifest.revision, manifest.timestamp)
        seen.append((manifest.revision, manifest.timestamp))
        assert problems(repository) == []
    assert seen == sorted(seen)


def test_named_snapshots(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    with Transaction(repository) as transaction:
        transaction.put_file(b"f", regular(store, b"first"))
        transaction.tag("first", "the first one")
        first = transaction.commit()
    with Transaction(repository) as transaction:
        transaction.put_file(b"f", regular(store, b"second"))
        transaction.tag(TRUNK)
        transaction.commit()
    with Transaction(repository) as transaction:
        transaction.put_file(b"f", regular(store, b"third"))
        third = transaction.commit()
    reader = repository.reader()
    history = reader.history()
    assert history is not None
    tags = history.tags()
    assert set(tags) == {"first", "trunk", "trunk-previous"}
    size = first.manifest.catalog_size
    assert size is not None
    assert tags["first"] == Tag("first", first.root_hash, 2, first.manifest.timestamp, size, "the first one")
    assert (tags["trunk"].root, tags["trunk-previous"].revision) == (third.root_hash, 3)
    assert reader.at(tags["first"].root, tags["first"].size).read(b"f") == b"first"
    assert problems(repository) == []
    with Transaction(repository) as transaction:
        for name in tags:
            transaction.untag(name)
        with pytest.raises(InvalidInput):
            transaction.tag("with blank")
    with Transaction(repository) as transaction:
        for name in tags:
            transaction.untag(name)
        assert transaction.commit().manifest.history is None
    assert repository.reader().history() is None
    assert problems(repository) == []


def test_reading_what_is_not_there(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    with Transaction(repository) as transaction:
        transaction.graft(b"x", everything(store))
        transaction.commit()
    reader = repository.reader()
    assert reader.lookup(b"x/none/at/all") is None
    for call in (reader.listing, reader.tree, reader.read):
        with pytest.raises(NotFound):
            call(b"x/none")
    with pytest.raises(NotFound):
        reader.listing(b"x/files/hello.txt")
    with pytest.raises(InvalidInput):
        reader.read(b"x/files")
    assert not reader.refresh()
    with Transaction(repository) as transaction:
        transaction.remove(b"x")
        transaction.commit()
    assert reader.lookup(b"x/files") is not None
    assert reader.refresh()
    assert reader.lookup(b"x/files") is None


def test_only_catalogs_on_the_path_are_touched(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    with Transaction(repository) as transaction:
        for number in range(20):
            transaction.make_catalog(b"top%d" % number)
            for inner in range(5):
                transaction.make_catalog(b"top%d/inner%d" % (number, inner))
        transaction.commit()
    repository = reopened(repository, tmp_path)
    store.gets.clear()
    store.puts.clear()
    with Transaction(repository) as transaction:
        transaction.put_symlink(b"top7/inner3/link", b"x")
        transaction.commit()
    assert len([key for key in store.gets if key[1] is ObjectKind.CATALOG]) == 3
    assert len(store.puts) == 3
    assert problems(repository) == []


def test_much_editing_keeps_catalogs_dense(tmp_path: Path) -> None:
    repository, _ = new_repository(tmp_path)
    with Transaction(repository) as transaction:
        for number in range(2000):
            transaction.put_symlink(b"link%d" % number, b"x")
        full = transaction.commit().manifest.catalog_size
    with Transaction(repository) as transaction:
        for number in range(1900):
            transaction.remove(b"link%d" % number)
        small = transaction.commit().manifest.catalog_size
    assert full is not None
    assert small is not None
    assert small < full / 4
    assert len(repository.reader().listing()) == 100
    assert problems(repository) == []


def test_paths_as_deep_as_the_kernel_allows(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    path = b"/d" * 2000
    with Transaction(repository) as transaction:
        transaction.put_file(path + b"/file", regular(store, b"deep", mtime=MTIME))
        transaction.make_catalog(b"/d" * 1000)
        transaction.commit()
    assert repository.reader().read(path + b"/file") == b"deep"
    assert problems(repository) == []
