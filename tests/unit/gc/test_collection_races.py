"""Publications and collections at the same time. Each test holds the one still where the other could hurt it."""

from __future__ import annotations

import fcntl
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from publisher.creation import create_repository
from publisher.cvmfs.builder import Stamp, store_metadata
from publisher.cvmfs.editor import CatalogEditor
from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.errors import Conflict, RepositoryDamaged
from publisher.gc.collect import collect
from publisher.gc.policy import CollectionPolicy, CollectionStep, Progress
from publisher.images.place import PreparedImage, UnpackedLayer, place_images
from publisher.objects.local import LocalObjectStore
from publisher.objects.pipeline import Pipeline
from publisher.objects.store import REFRESH_SECONDS, StoredObject
from publisher.repository import NewRoot, Repository, Revision
from publisher.transaction import Transaction
from tests.support.collecting import (
    AT_ONCE,
    DAY,
    ONE_BY_ONE,
    attached,
    collect_later,
    image,
    needed,
    objects,
    publish,
    publish_image,
    remove_image,
)
from tests.support.memory_store import MemoryStore
from tests.support.repositories import FQRN, SETTINGS, Clock, keys_of, new_repository, problems
from tests.support.sample_tree import facts

Action = Callable[[], object]


class WatchedStore(MemoryStore):
    """Lets tests act where a collection is between two of its steps; the lock is free after a listing and at a flush."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock)
        self.after_listing: Action = lambda: None
        self.at_flush: Action = lambda: None
        self.at_expiry: Action = lambda: None

    def objects(self) -> Iterator[StoredObject]:
        yield from super().objects()
        self.after_listing()

    def flush(self) -> None:
        super().flush()
        self.at_flush()

    def expire(self, content: ContentHash, kind: ObjectKind, before: float) -> bool:
        self.at_expiry()
        return super().expire(content, kind, before)


def once(number: int, action: Action) -> Action:
    """The action, at the call of this number (from 0) and no other."""
    calls = iter(range(1_000_000))
    return lambda: action() if next(calls) == number else None


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    repository, memory = new_repository(tmp_path)
    store = WatchedStore(repository.clock)
    store.contents, store.modified, store.files = memory.contents, memory.modified, memory.files
    repository = Repository(FQRN, store, repository.keys, repository.spool, clock=repository.clock)
    publish_image(repository, "other")
    return repository


@pytest.fixture
def store(repository: Repository) -> WatchedStore:
    assert isinstance(repository.store, WatchedStore)
    return repository.store


@pytest.fixture
def old(repository: Repository) -> Revision:
    """The revision that held an image, which was removed long ago."""
    revision = publish_image(repository, "image")
    remove_image(repository, "image")
    assert isinstance(repository.clock, Clock)
    repository.clock.now += 2 * DAY
    return revision


def test_the_same_image_again_while_it_is_about_to_be_deleted(repository: Repository, store: WatchedStore, old: Revision) -> None:
    """Nearly all its objects are there, not marked, and on the list already."""
    data = {key for key in needed(repository, [old.root_hash]) if key[1] is not ObjectKind.CATALOG}
    store.after_listing = once(0, lambda: publish_image(repository, "image"))
    result = collect_later(repository, 0)
    assert data <= objects(store)
    assert 0 < result.deleted.objects < result.found.objects
    assert result.revision == repository.manifest().revision == old.revision + 2
    assert problems(repository) == []


@pytest.mark.parametrize("turn", [0, 1])
def test_the_same_image_again_while_it_is_being_deleted(
    repository: Repository, store: WatchedStore, old: Revision, turn: int
) -> None:
    """After the root catalogs, and after the other catalogs."""
    store.at_flush = once(turn, lambda: publish_image(repository, "image"))
    collect_later(repository, 0, limits=ONE_BY_ONE)
    assert (old.root_hash, ObjectKind.CATALOG) not in objects(store)
    assert facts(repository.reader().tree(b"images/image")) == facts(image(MemoryStore(), "image"))
    assert problems(repository) == []


@pytest.mark.parametrize("number", range(0, 28, 3))
def test_content_put_during_the_collection_and_published_after_it(
    repository: Repository, store: WatchedStore, old: Revision, number: int
) -> None:
    """Content is put without the lock. What is there by then is spared, what is not is stored anew."""
    trees = []
    store.at_expiry = once(number, lambda: trees.append(image(store, "image")))
    collect_later(repository, 0, limits=ONE_BY_ONE)
    publish(repository, lambda transaction: transaction.graft(b"images/image", trees[0]))
    assert (old.root_hash, ObjectKind.CATALOG) not in objects(store)
    assert facts(repository.reader().tree(b"images/image")) == facts(image(MemoryStore(), "image"))
    assert problems(repository) == []


def restore(repository: Repository, old: Revision) -> None:
    """Publish an old revision's tree again, as a roll-back does. Raises RepositoryDamaged if its root catalog is gone."""
    with repository.spool.lock(0):
        base = repository.recover()
        root = CatalogEditor(repository.objects.metadata(old.root_hash, ObjectKind.CATALOG), b"", base.root)
        stamp = Stamp(base.revision + 1, int(repository.clock()))
        data = root.finish(stamp, repository.settings.ttl)
        new = NewRoot(store_metadata(repository.store, data, ObjectKind.CATALOG), len(data), stamp, base.history)
        repository.publish(new, repository.reflog(), base)


def test_an_old_revision_restored_in_time_stays_whole(repository: Repository, store: WatchedStore, old: Revision) -> None:
    store.after_listing = once(0, lambda: restore(repository, old))
    collect_later(repository, 0)
    assert facts(repository.reader().tree(b"images/image")) == facts(image(MemoryStore(), "image"))
    assert problems(repository) == []


def test_an_old_revision_cannot_be_restored_by_halves(repository: Repository, store: WatchedStore, old: Revision) -> None:
    def too_late() -> None:
        with pytest.raises(RepositoryDamaged, match="missing"):
            restore(repository, old)

    store.at_flush = too_late
    assert collect_later(repository, 0).deleted.objects
    assert problems(repository) == []


def test_a_root_catalog_that_is_there_has_all_that_it_leads_to(
    repository: Repository, store: WatchedStore, old: Revision
) -> None:
    """At any instant: it is what replicas, roll-backs and other readers of old revisions rely on."""
    roots = [reference.content for reference in repository.reflog().references().values()]
    wanted = {root: needed(repository, [root]) for root in roots if store.contains(root, ObjectKind.CATALOG)}
    assert len(wanted) == 4
    whole = []

    def look() -> None:
        present = {root for root in wanted if store.contains(root, ObjectKind.CATALOG)}
        assert all(wanted[root] <= store.contents.keys() for root in present)
        whole.append(len(present))

    store.at_expiry = look
    collect_later(repository, 0, limits=ONE_BY_ONE)
    assert whole[0] == 4
    assert whole[-1] == 1
    assert len(whole) > 20


def test_publications_wait_for_a_batch_and_no_longer(repository: Repository, store: WatchedStore, old: Revision) -> None:
    def locked(progress: Progress) -> None:
        if progress.step is CollectionStep.DELETE:
            with pytest.raises(Conflict):
                Transaction(repository, wait=0).__enter__()
        elif progress.step in {CollectionStep.MARK, CollectionStep.LIST}:
            with Transaction(repository, wait=0):
                pass

    published = []
    store.at_flush = lambda: published.append(publish(repository, lambda transaction: transaction.remove(b"nothing")))
    collect_later(repository, 0, progress=locked, limits=replace(ONE_BY_ONE, lock_hold=0.0))
    assert len(published) == 3


def test_publications_that_come_between_are_marked_at_small_cost(
    repository: Repository, store: WatchedStore, old: Revision
) -> None:
    dry = collect_later(repository, 0, dry_run=True)

    def publish_link() -> None:
        store.at_flush = lambda: None  # a publication flushes, too
        publish(repository, lambda transaction: transaction.put_symlink(b"link", b"target"))

    store.at_flush = publish_link
    result = collect_later(repository, 0)
    assert result.catalogs == dry.catalogs + 1
    assert problems(repository) == []


def test_content_that_waited_too_long_is_not_relied_on(repository: Repository, store: WatchedStore, old: Revision) -> None:
    """It was put before the grace period, and a collection came before the transaction."""
    tree, put_at = image(store, "slow"), repository.clock()
    with Transaction(repository) as transaction:
        transaction.rely_on(0.0)  # nothing was ever collected
    collect_later(repository, DAY + 60, dry_run=True)
    with Transaction(repository) as transaction:
        transaction.rely_on(put_at)
    collect_later(repository, DAY + 60)
    with Transaction(repository) as transaction:
        with pytest.raises(Conflict, match="collected"):
            transaction.rely_on(put_at)
        transaction.rely_on(put_at + REFRESH_SECONDS + 120)
    with pytest.raises(RepositoryDamaged):
        repository.objects.stored(next(entry.content for _, entry in tree.walk() if entry.content), ObjectKind.DATA)


def test_an_image_that_waited_too_long_is_not_placed(repository: Repository, store: WatchedStore, old: Revision) -> None:
    """Whatever its layers hold: nothing of it is looked at before."""
    collect_later(repository, DAY + 60)
    layer = cast("UnpackedLayer", SimpleNamespace(safe_since=repository.clock()))
    prepared = cast("PreparedImage", SimpleNamespace(layers=(layer,), safe_since=math.inf))
    with Transaction(repository) as transaction:
        with pytest.raises(Conflict, match="collected"):
            place_images(transaction, cast("Pipeline", None), [prepared], 0.0)
        assert not transaction.changed


def test_content_is_safe_whenever_it_may_be_relied_on(repository: Repository, store: WatchedStore, old: Revision) -> None:
    """Whatever the time between putting and collecting: either it is all there, or nobody may name it."""
    answers = set()
    for hours in range(20, 30):
        tree, put_at = image(store, f"slow{hours}"), repository.clock()
        collect_later(repository, hours * 3600)
        wanted = {(entry.content, ObjectKind.DATA) for _, entry in tree.walk() if entry.content}
        there = wanted <= objects(store)
        with Transaction(repository) as transaction:
            try:
                transaction.rely_on(put_at)
            except Conflict:
                answers.add((there, False))
            else:
                answers.add((there, True))
        assert isinstance(repository.clock, Clock)
        repository.clock.now += 3 * DAY
    assert answers == {(True, True), (True, False), (False, False)}


def test_the_warning_is_there_before_the_first_deletion(repository: Repository, store: WatchedStore, old: Revision) -> None:
    warned = []
    store.at_expiry = lambda: warned.append(repository.spool.swept_before())
    collect_later(repository, 0)
    now = repository.clock()
    assert min(warned) > now - DAY + REFRESH_SECONDS
    repository.spool.note_sweep(5.0)
    assert repository.spool.swept_before() == warned[0]


# The same with files, whose times the kernel keeps.


def local_repository(tmp_path: Path) -> tuple[Repository, LocalObjectStore, Revision]:
    keys_of(FQRN).save(tmp_path / "keys")
    store = LocalObjectStore(tmp_path / "storage")
    clock = Clock(time.time() - 10 * DAY)
    repository = create_repository(
        FQRN, store, keys=tmp_path / "keys", spool=tmp_path / "spool", settings=SETTINGS, clock=clock
    )  # fmt: skip
    old = publish_image(repository, "image")
    remove_image(repository, "image")
    for file in (tmp_path / "storage" / "data").rglob("*"):
        os.utime(file, (clock.now, clock.now))
    return repository, store, old


def test_putting_an_old_file_again_saves_it(tmp_path: Path) -> None:
    repository, store, old = local_repository(tmp_path)
    wanted = {key for key in needed(repository, [old.root_hash]) if key[1] is not ObjectKind.CATALOG}
    tree = image(store, "image")
    data = {(entry.content, ObjectKind.DATA) for _, entry in tree.walk() if entry.content}
    data |= {(chunk.content, ObjectKind.CHUNK) for _, entry in tree.walk() for chunk in entry.chunks}
    assert len(wanted - data) == 1  # the marker of nested catalogs
    result = collect(repository, CollectionPolicy(), now=time.time(), limits=AT_ONCE)
    assert result.young.objects == len(data)
    assert objects(store) == data | needed(repository, [repository.manifest().root]) | attached(repository)
    publish(repository, lambda transaction: transaction.graft(b"images/image", tree))
    assert problems(repository) == []


def test_putting_and_expiring_exclude_each_other(tmp_path: Path) -> None:
    """An expiry that has found the object old and not yet removed it: `put` waits, and stores it anew."""
    store = LocalObjectStore(tmp_path / "storage")
    content = ContentHash.of(b"object")
    store.put(content, ObjectKind.DATA, b"object")
    path = tmp_path / "storage" / content.object_path(ObjectKind.DATA)
    os.utime(path, (0, 0))
    answers = []
    putting = threading.Thread(target=lambda: answers.append(store.put(content, ObjectKind.DATA, b"object")))
    expiring = os.open(tmp_path / "storage" / "data", os.O_RDONLY)
    fcntl.flock(expiring, fcntl.LOCK_EX)
    putting.start()
    putting.join(0.1)
    assert putting.is_alive()
    path.unlink()
    os.close(expiring)
    putting.join(10)
    assert answers == [True]
    assert path.read_bytes() == b"object"


def test_an_expiry_waits_for_a_put_that_has_found_the_object(tmp_path: Path) -> None:
    store = LocalObjectStore(tmp_path / "storage")
    content = ContentHash.of(b"object")
    store.put(content, ObjectKind.DATA, b"object")
    path = tmp_path / "storage" / content.object_path(ObjectKind.DATA)
    os.utime(path, (0, 0))
    answers = []
    before = time.time() - 2 * REFRESH_SECONDS
    expiring = threading.Thread(target=lambda: answers.append(store.expire(content, ObjectKind.DATA, before)))
    putting = os.open(tmp_path / "storage" / "data", os.O_RDONLY)
    fcntl.flock(putting, fcntl.LOCK_SH)
    assert not store.put(content, ObjectKind.DATA, b"object"), "several may put at the same time"
    os.utime(path, (0, 0))
    expiring.start()
    expiring.join(0.1)
    assert expiring.is_alive()
    os.utime(path)
    os.close(putting)
    expiring.join(10)
    assert answers == [False]
    assert path.exists()


def test_what_put_has_found_is_never_expired(tmp_path: Path) -> None:
    """Both as fast as they can."""
    store = LocalObjectStore(tmp_path / "storage")
    content = ContentHash.of(b"object")
    path = tmp_path / "storage" / content.object_path(ObjectKind.DATA)
    stop = threading.Event()
    expired = []

    def expire() -> None:
        while not stop.is_set():
            expired.append(store.expire(content, ObjectKind.DATA, time.time() - 2 * REFRESH_SECONDS))

    thread = threading.Thread(target=expire)
    thread.start()
    try:
        for _ in range(1500):
            store.put(content, ObjectKind.DATA, b"object")
            assert path.exists()
            os.utime(path, (0, 0))
            store.put(content, ObjectKind.DATA, b"object")
            time.sleep(0)
            assert path.exists()
    finally:
        stop.set()
        thread.join()


def test_an_object_that_is_young_is_not_touched_again(tmp_path: Path) -> None:
    store = LocalObjectStore(tmp_path / "storage")
    content = ContentHash.of(b"object")
    path = tmp_path / "storage" / content.object_path(ObjectKind.DATA)
    store.put(content, ObjectKind.DATA, b"object")
    for age, renewed in ((REFRESH_SECONDS / 2, False), (REFRESH_SECONDS * 2, True)):
        then = time.time() - age
        os.utime(path, (then, then))
        assert not store.put(content, ObjectKind.DATA, b"object")
        assert (abs(path.stat().st_mtime - then) > 1) is renewed
