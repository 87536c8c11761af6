"""A collection that dies anywhere leaves a valid repository, and the next one completes it."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from publisher.check import check
from publisher.creation import create_repository
from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.cvmfs.reflog import REFLOG_NAME
from publisher.gc.collect import collect
from publisher.gc.policy import CollectionPolicy, CollectionStep, Progress
from publisher.objects.local import LocalObjectStore
from publisher.objects.store import StoredObject
from publisher.repository import Repository
from publisher.transaction import Transaction
from tests.support.collecting import (
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
    storage_files,
)
from tests.support.memory_store import MemoryStore
from tests.support.repositories import FQRN, SETTINGS, Clock, keys_of, new_repository, problems
from tests.support.sample_tree import facts

ROOT = Path(__file__).parents[3]


class DyingStore(MemoryStore):
    """Takes so many operations and dies at the next one."""

    def __init__(self, original: MemoryStore, operations: int) -> None:
        super().__init__(original.clock)
        self.contents, self.modified, self.files = original.contents, original.modified, original.files
        self._left = operations

    def _live(self) -> None:
        if self._left == 0:
            raise KeyboardInterrupt
        self._left -= 1

    def get(self, content: ContentHash, kind: ObjectKind) -> bytes:
        self._live()
        return super().get(content, kind)

    def read_file(self, name: str) -> bytes:
        self._live()
        return super().read_file(name)

    def write_file(self, name: str, data: bytes) -> None:
        self._live()
        super().write_file(name, data)

    def contains(self, content: ContentHash, kind: ObjectKind) -> bool:
        self._live()
        return super().contains(content, kind)

    def expire(self, content: ContentHash, kind: ObjectKind, before: float) -> bool:
        self._live()
        return super().expire(content, kind, before)

    def flush(self) -> None:
        self._live()
        super().flush()

    def objects(self) -> Iterator[StoredObject]:
        self._live()
        return super().objects()


def past(repository: Repository) -> None:
    """A named snapshot, images that stay, one that went, histories that were replaced."""
    publish_image(repository, "kept")
    publish_image(repository, "gone")
    publish(repository, lambda transaction: transaction.tag("first"))
    remove_image(repository, "gone")

    def rename(transaction: Transaction) -> None:
        transaction.untag("first")
        transaction.tag("second")

    publish(repository, rename)


def settle(repository: Repository) -> None:
    """What the next writer does before all else."""
    with repository.spool.lock(0):
        repository.recover()


def test_death_at_every_operation_of_the_store(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    past(repository)
    files, contents, modified = dict(store.files), dict(store.contents), dict(store.modified)
    spool = {path: path.read_bytes() for path in repository.spool.directory.iterdir()}
    deaths = 0
    for operations in range(1000):
        store.files, store.contents, store.modified = dict(files), dict(contents), dict(modified)
        for path in repository.spool.directory.iterdir():
            path.unlink()
        for path, data in spool.items():
            path.write_bytes(data)
        dying = DyingStore(store, operations)
        mortal = Repository(FQRN, dying, repository.keys, repository.spool, clock=repository.clock)
        try:
            collect_later(mortal, limits=ONE_BY_ONE)
        except KeyboardInterrupt:
            deaths += 1
        else:
            break
        settle(repository)
        assert problems(repository, data=operations % 10 == 0) == []
        completed(repository, store)
    assert problems(repository) == []
    assert deaths > 90


def completed(repository: Repository, store: MemoryStore) -> None:
    """Collect once more; then all is as if nothing had happened."""
    collect_later(repository)
    history = repository.reader().history()
    assert history is not None
    roots = {repository.manifest().root, *(tag.root for tag in history.tags().values())}
    assert objects(store) == needed(repository, roots) | attached(repository)
    assert len(repository.reflog().references()) == len(roots) + 2


@pytest.mark.parametrize("step", list(CollectionStep))
def test_exception_at_each_step(tmp_path: Path, step: CollectionStep) -> None:
    repository, store = new_repository(tmp_path)
    past(repository)

    def die(progress: Progress) -> None:
        if progress.step is step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect_later(repository, progress=die)
    publish_image(repository, "kept too")
    assert problems(repository) == []
    completed(repository, store)
    assert problems(repository) == []


_CHILD = """
import os, signal, sys
from pathlib import Path
from publisher.gc.collect import collect
from publisher.gc.policy import CollectionPolicy
from publisher.objects.local import LocalObjectStore
from publisher.repository import Repository
from tests.support.collecting import ONE_BY_ONE
from tests.support.repositories import FQRN

place, now, die_at, count = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3], int(sys.argv[4])
repository = Repository.open(FQRN, LocalObjectStore(place / "storage"), keys=place / "keys", spool=place / "spool")

def on_progress(progress):
    if progress.step == die_at and progress.done >= count:
        os.kill(os.getpid(), signal.SIGKILL)

collect(repository, CollectionPolicy(), now=now, progress=on_progress, limits=ONE_BY_ONE)
"""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository on disk, published a short while ago."""
    place = tmp_path_factory.mktemp("original")
    keys_of(FQRN).save(place / "keys")
    store, clock = LocalObjectStore(place / "storage"), Clock(time.time() - 1000)
    past(create_repository(FQRN, store, keys=place / "keys", spool=place / "spool", settings=SETTINGS, clock=clock))
    return place


@pytest.mark.parametrize(
    ("step", "count"), [*((step, 0) for step in CollectionStep), *((CollectionStep.DELETE, count) for count in (1, 5, 12))]
)
def test_killed_at_each_step(original: Path, tmp_path: Path, step: CollectionStep, count: int) -> None:
    place, now = tmp_path / "copy", time.time() + 2 * DAY
    shutil.copytree(original, place)
    command = [sys.executable, "-c", _CHILD, str(place), repr(now), step, str(count)]
    child = subprocess.run(command, cwd=ROOT, check=False, capture_output=True)
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()
    store = LocalObjectStore(place / "storage")
    repository = Repository.open(FQRN, store, keys=place / "keys", spool=place / "spool")
    checksum = repository.spool.reflog_checksum(store.read_file(REFLOG_NAME))
    assert check(repository.reader(), contains=store.contains, data=True, reflog_checksum=checksum) == []
    with Transaction(repository, wait=0):
        pass
    assert problems(repository) == []
    collect(repository, CollectionPolicy(), now=now, limits=ONE_BY_ONE)
    assert objects(store) == needed(repository, [repository.manifest().root]) | attached(repository)
    assert len(repository.reflog().references()) == 3
    assert len(storage_files(place / "storage")) == len(objects(store)), "no file is left that is no object"
    assert facts(repository.reader().tree(b"images/kept")) == facts(image(MemoryStore(), "kept"))
    assert problems(repository) == []
