"""A publisher that dies anywhere in a commit leaves a valid repository, and the work can be done again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mirror.errors import StorageFull
from publisher.check import check
from publisher.creation import create_repository
from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.cvmfs.reader import RepositoryReader
from publisher.objects.local import LocalObjectStore
from publisher.repository import Repository, Step
from publisher.transaction import Transaction
from tests.support.memory_store import MemoryStore
from tests.support.repositories import FQRN, SETTINGS, Clock, keys_of, new_repository, problems
from tests.support.sample_tree import everything, facts

ROOT = Path(__file__).parents[3]


def publish(repository: Repository, die_at: Step | None = None) -> None:
    def on_step(step: Step) -> None:
        if step is die_at:
            raise KeyboardInterrupt

    with Transaction(repository) as transaction:
        transaction.graft(b"image", everything(repository.store))
        transaction.make_catalog(b"image/files")
        transaction.put_symlink(b"name:tag", b"image")
        transaction.tag("kept")
        transaction.commit(on_step)


@pytest.mark.parametrize("step", list(Step))
def test_exception_at_each_step(tmp_path: Path, step: Step) -> None:
    repository, store = new_repository(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        publish(repository, step)
    visible = 2 if step is Step.PUBLISHED else 1
    assert repository.reader().manifest.revision == visible
    with repository.spool.lock(0):
        repository.recover()
    assert problems(repository) == []
    publish(repository)
    assert repository.reader().manifest.revision == visible + 1
    assert facts(repository.reader().tree(b"image")) == facts(everything(store))
    assert problems(repository) == []


_CHILD = """
import os, signal, sys
from pathlib import Path
from publisher.objects.local import LocalObjectStore
from publisher.repository import Repository, Step
from publisher.transaction import Transaction
from tests.support.repositories import FQRN, Clock
from tests.support.sample_tree import everything

place, die_at = Path(sys.argv[1]), sys.argv[2]
store = LocalObjectStore(place / "storage")
repository = Repository.open(FQRN, store, keys=place / "keys", spool=place / "spool", clock=Clock())

def on_step(step):
    if step == die_at:
        os.kill(os.getpid(), signal.SIGKILL)

with Transaction(repository) as transaction:
    transaction.graft(b"image", everything(store))
    transaction.put_symlink(b"name:tag", b"image")
    transaction.commit(on_step)
"""


def test_killed_at_each_step(tmp_path: Path) -> None:
    """One repository, killed at one step after another, as a publisher that finds no rest."""
    keys_of(FQRN).save(tmp_path / "keys")
    store = LocalObjectStore(tmp_path / "storage")
    keys, spool = tmp_path / "keys", tmp_path / "spool"
    repository = create_repository(FQRN, store, keys=keys, spool=spool, settings=SETTINGS, clock=Clock())
    reader = RepositoryReader(store, FQRN, keys_of(FQRN).master_public, clock=Clock())
    for step in Step:
        revision = repository.manifest().revision
        child = subprocess.run(
            [sys.executable, "-c", _CHILD, str(tmp_path), str(step)], cwd=ROOT, check=False, capture_output=True
        )  # fmt: skip
        assert child.returncode == -signal.SIGKILL, child.stderr.decode()
        reader.refresh()
        assert reader.manifest.revision == revision + (step is Step.PUBLISHED)
        checksum = repository.spool.reflog_checksum(store.read_file(".cvmfsreflog"))
        assert check(reader, contains=store.contains, data=True, reflog_checksum=checksum) == []
        with Transaction(repository, wait=0):
            pass
        assert problems(repository) == []
    publish(repository)
    assert facts(repository.reader().tree(b"image")) == facts(everything(store))
    assert problems(repository) == []
    assert os.listdir(tmp_path / "storage" / "data" / "txn") == []  # noqa: PTH208


class FullStore(MemoryStore):
    """Has room for so many writes and no more."""

    def __init__(self, original: MemoryStore, room: int) -> None:
        super().__init__()
        self.contents, self.files = original.contents, original.files
        self.room = room

    def put(self, content: ContentHash, kind: ObjectKind, stored: bytes | memoryview) -> bool:
        self._take()
        return super().put(content, kind, stored)

    def write_file(self, name: str, data: bytes) -> None:
        self._take()
        super().write_file(name, data)

    def _take(self) -> None:
        if self.room == 0:
            raise StorageFull("no space left")
        self.room -= 1


def test_disk_full_at_every_write(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    everything(store)
    full_places = 0
    for room in range(100):
        repository.store = FullStore(store, room)
        try:
            publish(repository)
        except StorageFull:
            full_places += 1
        else:
            break
        repository.store = store
        assert repository.reader().manifest.revision == 1
        with repository.spool.lock(0):
            repository.recover()
        assert problems(repository) == []
    assert full_places > 5
    repository.store = store
    assert repository.reader().manifest.revision == 2
    assert problems(repository) == []
