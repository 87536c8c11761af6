"""What a garbage collection keeps and what it deletes."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirror.errors import InvalidInput
from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.cvmfs.manifest import MANIFEST_NAME
from publisher.cvmfs.reflog import ReferenceType
from publisher.errors import Conflict, PublishError, RepositoryDamaged
from publisher.gc.policy import Collected, CollectionLimits, CollectionPolicy, CollectionStep, Progress, Tally
from publisher.repository import OnStep, Repository, Step
from publisher.transaction import Transaction
from tests.support.collecting import (
    AT_ONCE,
    DAY,
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
from tests.support.repositories import Clock, new_repository, problems
from tests.support.sample_tree import facts, regular


def clock_of(repository: Repository) -> Clock:
    assert isinstance(repository.clock, Clock)
    return repository.clock


def test_a_removed_image_goes_when_its_last_readers_have_had_their_time(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    kept, gone = publish_image(repository, "kept"), publish_image(repository, "gone")
    now = remove_image(repository, "gone")
    before = objects(store)
    early = collect_later(repository, DAY - 1)
    assert (early.deleted, early.revision) == (Tally(2, early.deleted.bytes), 4)  # of what was replaced long before
    assert needed(repository, [gone.root_hash, now.root_hash]) <= objects(store)
    late = collect_later(repository, DAY + 1)
    assert objects(store) == needed(repository, [now.root_hash]) | attached(repository)
    assert early.deleted.objects + late.deleted.objects == len(before) - len(objects(store))
    assert late.deleted == late.found
    assert (kept.root_hash, ObjectKind.CATALOG) not in objects(store)
    assert facts(repository.reader().tree(b"images/kept")) == facts(image(MemoryStore(), "kept"))
    assert problems(repository) == []
    assert {reference.content for reference in repository.reflog().references().values()} == {
        now.root_hash, now.manifest.certificate
    }  # fmt: skip


def test_old_content_of_the_current_revision_stays_for_ever(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    last = publish_image(repository, "only")
    collect_later(repository, 1000 * DAY)
    assert objects(store) == needed(repository, [last.root_hash]) | attached(repository)
    again = collect_later(repository, 2000 * DAY)
    assert (again.found, again.references) == (Tally(), 0)
    assert again.kept.objects == len(store.contents)
    assert again.kept.bytes == sum(map(len, store.contents.values()))
    assert problems(repository) == []


@pytest.mark.parametrize(
    ("policy", "kept"),
    [
        (CollectionPolicy(), 1),
        (CollectionPolicy(revisions=1), 2),
        (CollectionPolicy(revisions=3), 4),
        (CollectionPolicy(revisions=100), 7),
        (CollectionPolicy(age=10 * DAY - 1), 1),
        (CollectionPolicy(age=10 * DAY), 2),  # the one before was the current one ten days ago
        (CollectionPolicy(age=10 * DAY + 99), 2),
        (CollectionPolicy(age=10 * DAY + 100), 3),
        (CollectionPolicy(age=10 * DAY + 199), 3),
        (CollectionPolicy(age=10 * DAY + 200), 4),
        (CollectionPolicy(age=10 * DAY + 200, revisions=1), 4),
        (CollectionPolicy(age=10 * DAY + 100, revisions=4), 5),
        (CollectionPolicy(grace=10 * DAY + 200), 4),
    ],
)
def test_policies(tmp_path: Path, policy: CollectionPolicy, kept: int) -> None:
    """Seven revisions, 100 seconds apart."""
    repository, store = new_repository(tmp_path)
    revisions = [repository.manifest().root]
    for number in range(3):
        revisions += [publish_image(repository, f"image{number}").root_hash, publish_link(repository, number)]
    result = collect_later(repository, 10 * DAY, policy)
    assert result.roots == kept
    assert [store.contains(root, ObjectKind.CATALOG) for root in revisions] == [False] * (7 - kept) + [True] * kept
    assert objects(store) - attached(repository) == needed(repository, revisions[-kept:])
    assert problems(repository) == []


def publish_link(repository: Repository, number: int) -> ContentHash:
    return publish(repository, lambda transaction: transaction.put_symlink(b"link%d" % number, b"target")).root_hash


def test_impossible_policies() -> None:
    for wrong in ({"revisions": -1}, {"age": -1.0}, {"grace": -1.0}):
        with pytest.raises(InvalidInput):
            CollectionPolicy(**wrong)
    for limit in ({"workers": 0}, {"batch": 0}, {"memory": 1}, {"lock_wait": -1.0}):
        with pytest.raises(InvalidInput):
            CollectionLimits(**limit)


def test_a_named_snapshot_stays_until_it_has_lost_its_name_for_long(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)

    def named(transaction: Transaction) -> None:
        transaction.graft(b"image", image(store, "named"))
        transaction.tag("release")

    snapshot = publish(repository, named)
    publish(repository, lambda transaction: transaction.remove(b"image"))
    collect_later(repository)
    assert problems(repository) == []
    assert needed(repository, [snapshot.root_hash]) <= objects(store)
    clock_of(repository).now += 20 * DAY
    last = publish(repository, lambda transaction: transaction.untag("release"))
    assert last.manifest.history is None
    collect_later(repository, DAY - 1)
    assert needed(repository, [snapshot.root_hash]) <= objects(store), "a replica may be reading the history of before"
    collect_later(repository, DAY + 1)
    assert objects(store) == needed(repository, [last.root_hash]) | attached(repository)
    assert problems(repository) == []


def test_what_no_reference_log_knows_is_found(tmp_path: Path) -> None:
    """The reference's collector would leave it for ever: content of a publication that was given up, catalogs and all."""
    repository, store = new_repository(tmp_path)
    publish_image(repository, "image")
    before = objects(store)
    with Transaction(repository) as transaction:
        transaction.graft(b"other", image(store, "other"))
        with pytest.raises(KeyboardInterrupt):
            transaction.commit(stop_at(Step.REFLOG))
    stray = objects(store) - before
    assert {kind for _, kind in stray} == {ObjectKind.DATA, ObjectKind.CHUNK, ObjectKind.CATALOG}
    young = collect_later(repository, DAY - 101)
    assert young.young.objects == len(stray)
    assert stray <= objects(store)
    collect_later(repository, DAY + 101)
    assert not stray & objects(store)
    assert problems(repository) == []


def stop_at(wanted: Step) -> OnStep:
    def on_step(step: Step) -> None:
        if step is wanted:
            raise KeyboardInterrupt

    return on_step


def test_a_publisher_that_died_does_not_cut_short_the_time_of_the_revision_before_it(tmp_path: Path) -> None:
    """Its root catalog is in the reference log, long before the revision that really came next."""
    repository, store = new_repository(tmp_path)
    publish_image(repository, "image")
    last = publish(repository, lambda transaction: transaction.tag("first"))
    history = last.manifest.history
    assert history is not None
    clock_of(repository).now += 60
    with Transaction(repository) as transaction:
        transaction.put_symlink(b"a", b"b")
        transaction.tag("never")
        with pytest.raises(KeyboardInterrupt):
            transaction.commit(stop_at(Step.MANIFEST))
    with repository.spool.lock(0):
        repository.recover()
    dead = {reference.content for reference in repository.reflog().references().values()}
    clock_of(repository).now += 10 * DAY
    publish(repository, lambda transaction: transaction.untag("first"))
    remove_image(repository, "image")
    collect_later(repository, DAY - 101)
    assert needed(repository, [last.root_hash]) | {(history, ObjectKind.HISTORY)} <= objects(store)
    dead -= {reference.content for reference in repository.reflog().references().values()}
    assert dead, "the dead publisher's own root and history are gone"
    assert problems(repository) == []


def test_a_dry_run_tells_all_and_changes_nothing(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    publish_image(repository, "kept")
    publish_image(repository, "gone")
    remove_image(repository, "gone")
    contents, files = dict(store.contents), dict(store.files)
    told = collect_later(repository, dry_run=True)
    assert (store.contents, store.files) == (contents, files)
    done = collect_later(repository)
    assert (told.garbage, told.references, told.kept, told.rows) == (done.garbage, done.references, done.kept, done.rows)
    assert (told.deleted, done.deleted) == (Tally(), told.found)
    assert done.deleted.objects == len(contents) - len(store.contents) > 0
    assert done.deleted.bytes == sum(map(len, contents.values())) - sum(map(len, store.contents.values()))
    assert told.references == 3
    assert repository.spool.swept_before() > 0


def test_catalogs_that_revisions_share_are_read_once(tmp_path: Path) -> None:
    """Twenty revisions cost their own small catalogs, not twenty times the repository."""
    repository, store = new_repository(tmp_path)
    for number in range(5):
        publish_image(repository, f"image{number}")
    for number in range(20):
        publish_link(repository, number)
    alone = read_by(store, repository, CollectionPolicy())
    many = read_by(store, repository, CollectionPolicy(revisions=20))
    assert many.catalogs == alone.catalogs + 20
    roots = alone.rows - 5 * (46 + 6)  # rows of images and of catalogs below them
    assert many.rows - alone.rows <= 20 * roots


def read_by(store: MemoryStore, repository: Repository, policy: CollectionPolicy) -> Collected:
    store.gets.clear()
    result = collect_later(repository, policy=policy, dry_run=True)
    catalogs = [content for content, kind in store.gets if kind is ObjectKind.CATALOG]
    assert len(catalogs) == len(set(catalogs)) == result.catalogs
    assert not any(kind in {ObjectKind.DATA, ObjectKind.CHUNK} for _, kind in store.gets)
    return result


def test_nothing_is_deleted_if_a_needed_catalog_cannot_be_read(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    publish_image(repository, "other")
    publish(repository, lambda transaction: transaction.tag("x"))
    last = publish_image(repository, "image")
    remove = remove_image(repository, "image")
    nested = {content for content, kind in needed(repository, [remove.root_hash]) if kind is ObjectKind.CATALOG}
    for content in nested - {remove.root_hash}:
        stored = store.contents.pop((content, ObjectKind.CATALOG))
        for broken in (None, stored[:-1]):
            if broken is not None:
                store.contents[content, ObjectKind.CATALOG] = broken
            before = dict(store.contents)
            with pytest.raises(RepositoryDamaged, match=str(content)):
                collect_later(repository)
            assert store.contents == before
        store.contents[content, ObjectKind.CATALOG] = stored
    assert collect_later(repository).deleted.objects
    assert (last.root_hash, ObjectKind.CATALOG) not in store.contents


def test_gaps_in_old_revisions_are_passed_over(tmp_path: Path) -> None:
    """The reference's collector, interrupted, leaves root catalogs with nothing below them."""
    repository, store = new_repository(tmp_path)
    old = publish_image(repository, "image")
    last = remove_image(repository, "image")
    lost = next(
        content for content, kind in needed(repository, [old.root_hash]) - needed(repository, [last.root_hash])
        if kind is ObjectKind.CATALOG and content != old.root_hash
    )  # fmt: skip
    del store.contents[lost, ObjectKind.CATALOG]
    result = collect_later(repository, policy=CollectionPolicy(revisions=1))
    assert result.missing == 1
    assert store.contains(old.root_hash, ObjectKind.CATALOG)
    assert problems(repository) == []


def test_a_repository_that_forbids_it_is_not_collected(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    payload = repository.manifest().payload().replace(b"Gyes", b"Gno")
    store.files[MANIFEST_NAME] = repository.keys.sign_manifest(payload)
    with pytest.raises(PublishError, match="publish a revision"):
        collect_later(repository)
    publish_image(repository, "image")
    assert collect_later(repository).deleted.objects


def test_certificates_and_histories_go_with_the_last_revision_of_their_time(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    histories = []
    for number in range(4):
        revision = publish(repository, lambda transaction, number=number: transaction.tag(f"t{number}"))  # type: ignore[misc]
        histories.append(revision.manifest.history)
    old = repository.reflog()
    stranger = ContentHash.of(b"an old certificate")
    store.put(stranger, ObjectKind.CERTIFICATE, b"an old certificate")
    old.add(stranger, ReferenceType.CERTIFICATE, int(clock_of(repository).now) - 250)
    with repository.spool.lock(0):
        repository.rewrite_reflog(old)
    collect_later(repository, policy=CollectionPolicy(revisions=1))
    assert [store.contains(history, ObjectKind.HISTORY) for history in histories if history] == [False, False, True, True]
    assert not store.contains(stranger, ObjectKind.CERTIFICATE)
    assert stranger not in repository.reflog().references()
    assert problems(repository) == []


def test_one_collection_at_a_time(tmp_path: Path) -> None:
    repository, _ = new_repository(tmp_path)

    def again(progress: Progress) -> None:
        if progress.step is CollectionStep.MARK:
            with pytest.raises(Conflict, match="collects"):
                collect_later(repository)
            collect_later(repository, dry_run=True)

    collect_later(repository, progress=again)


def test_progress_may_end_it_and_the_next_one_completes_it(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    publish_image(repository, "image")
    last = remove_image(repository, "image")
    steps = []

    def stop(progress: Progress) -> None:
        steps.append(progress)
        if progress.step is CollectionStep.DELETE and progress.done:
            raise Conflict("the lease ran out")

    with pytest.raises(Conflict, match="lease"):
        collect_later(repository, progress=stop)
    collect_later(repository, progress=steps.append)
    assert objects(store) == needed(repository, [last.root_hash]) | attached(repository)
    assert problems(repository) == []
    deletions = [progress for progress in steps if progress.step is CollectionStep.DELETE]
    assert all(progress.total is not None and progress.done <= progress.total for progress in deletions)
    assert {progress.step for progress in steps} == set(CollectionStep)


def test_content_is_stored_again_after_it_was_collected(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    publish_image(repository, "image")
    remove_image(repository, "image")
    collect_later(repository)
    clock_of(repository).now += 3 * DAY
    publish_image(repository, "image")
    assert facts(repository.reader().tree(b"images/image")) == facts(image(store, "image"))
    assert problems(repository) == []


def test_a_long_publication_makes_it_give_up(tmp_path: Path) -> None:
    repository, _ = new_repository(tmp_path)
    with Transaction(repository), pytest.raises(Conflict, match="another process writes"):
        collect_later(repository, limits=AT_ONCE)


def test_age_alone_makes_a_stray_object_garbage(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    content = regular(store, b"stray").content
    assert content is not None
    stored = store.get(content, ObjectKind.DATA)
    store.modified[content, ObjectKind.DATA] = repository.clock() - DAY
    assert collect_later(repository, 0).found == Tally()
    assert collect_later(repository, 1).deleted == Tally(1, len(stored))
