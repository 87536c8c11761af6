"""A publisher or collector that is killed before any change to any file leaves a valid repository, and begins again."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from publisher.check import check
from publisher.creation import create_repository
from publisher.cvmfs.entry import Entry
from publisher.cvmfs.reflog import REFLOG_NAME
from publisher.gc.collect import collect
from publisher.gc.policy import CollectionPolicy
from publisher.objects.local import LocalObjectStore
from publisher.repository import Repository
from publisher.transaction import Transaction
from tests.support.collecting import AT_ONCE, DAY, attached, needed, objects
from tests.support.repositories import FQRN, NOW, SETTINGS, Clock, keys_of
from tests.support.sample_tree import regular
from tests.support.tool import TOP

LATER = NOW + 400 * DAY

_PARENT = """
import os, signal, sys, traceback
from pathlib import Path
from tests.unit.publisher import test_killed_at_every_file_operation as tests

WORK = {"publish": tests.publish, "collect": tests.collect_all}
CHANGES = {"os.rename", "os.remove", "os.utime", "os.link", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod"}

def die_before(number, place):
    def hook(event, arguments):
        nonlocal number
        writes = event in CHANGES or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        path = arguments[0] if arguments else None
        if writes and isinstance(path, (str, bytes, os.PathLike)) and os.fsdecode(path).startswith(place):
            number -= 1
            if number == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

for line in sys.stdin:
    work, number, place = line.split()
    child = os.fork()
    if child == 0:
        os.dup2(2, 1)  # where the log goes
        try:
            repository = tests.opened(Path(place))
            die_before(int(number), place)
            WORK[work](repository)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print(os.waitpid(child, 0)[1], flush=True)
"""


def opened(place: Path) -> Repository:
    store = LocalObjectStore(place / "storage")
    return Repository.open(FQRN, store, keys=place / "keys", spool=place / "spool", clock=Clock(LATER))


def file(repository: Repository, content: bytes) -> Entry:
    return regular(repository.store, content)


def publish(repository: Repository) -> None:
    with Transaction(repository) as transaction:
        transaction.put_file(b"added/file", file(repository, b"added"))
        transaction.make_catalog(b"added")
        transaction.remove(b"old")
        transaction.tag("named")
        transaction.commit()


def collect_all(repository: Repository) -> None:
    collect(repository, CollectionPolicy(grace=0), now=LATER + DAY, limits=AT_ONCE)


def is_published(repository: Repository) -> None:
    snapshot = repository.reader().snapshot
    assert snapshot.read(b"added/file") == b"added"
    assert snapshot.lookup(b"old") is None
    history = repository.reader().history()
    assert history is not None
    assert history.tags()["named"].root == repository.manifest().root


def is_collected(repository: Repository) -> None:
    assert objects(repository.store) == needed(repository, [repository.manifest().root]) | attached(repository)
    assert len(repository.reflog().references()) == 2


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that stays, one that went, and a file that no revision knows."""
    place = tmp_path_factory.mktemp("original")
    keys_of(FQRN).save(place / "keys")
    store = LocalObjectStore(place / "storage")
    repository = create_repository(FQRN, store, keys=place / "keys", spool=place / "spool", settings=SETTINGS, clock=Clock())
    for name in (b"kept", b"old", b"gone"):
        with Transaction(repository) as transaction:
            transaction.put_file(name, file(repository, name))
            transaction.make_catalog(b"catalog of " + name)
            transaction.commit()
    with Transaction(repository) as transaction:
        transaction.remove(b"gone")
        transaction.remove(b"catalog of gone")
        transaction.commit()
    file(repository, b"of nobody")
    opened(place).renew_whitelist()
    return place


@pytest.mark.parametrize(("work", "redo", "done"), [("publish", publish, is_published), ("collect", collect_all, is_collected)])
def test_killed_before_each(
    original: Path, tmp_path: Path, work: str, redo: Callable[[Repository], None], done: Callable[[Repository], None]
) -> None:
    command = [sys.executable, "-c", _PARENT]
    with subprocess.Popen(command, cwd=TOP, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        repository = opened(original)
        for number in range(1, 500):
            place = tmp_path / str(number)
            shutil.copytree(original, place)
            parent.stdin.write(f"{work} {number} {place}\n")
            parent.stdin.flush()
            died = int(parent.stdout.readline())
            repository = opened(place)
            valid(repository)
            if died == 0:
                break
            assert died == signal.SIGKILL
            with Transaction(repository, wait=0):
                pass
            redo(repository)
            valid(repository)
            done(repository)
            shutil.rmtree(place)
        done(repository)
        parent.stdin.close()
    assert number > 15


def valid(repository: Repository) -> None:
    store = repository.store
    checksum = repository.spool.reflog_checksum(store.read_file(REFLOG_NAME))
    assert check(repository.reader(), contains=store.contains, data=True, reflog_checksum=checksum) == []
