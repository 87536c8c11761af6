"""A replication that dies anywhere leaves what clients saw before, or the whole new revision; the next one completes it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest

from mirror.errors import StorageFull
from publisher.cvmfs import codec, schema
from publisher.cvmfs.catalog import NestedReference
from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.objects.local import LocalObjectStore
from publisher.objects.store import ObjectStore
from publisher.replicate.listing import open_listing
from publisher.replicate.model import Step
from tests.support.memory_store import MemoryStore
from tests.support.replicas import publish, pull, replica_problems
from tests.support.repositories import FQRN, keys_of, new_repository
from tests.support.repository_server import RepositoryServer, ThreadedServer

ROOT = Path(__file__).parents[3]

_PARENT = """
import asyncio, os, signal, sys, traceback
from dataclasses import replace
from pathlib import Path
from publisher.keys import load_public_key
from publisher.objects.local import LocalObjectStore
from publisher.replicate.model import Replication
from publisher.replicate.replica import replicate as pull
from tests.support.replicas import LIMITS as BASE
from tests.support.repositories import FQRN, Clock

url, place = sys.argv[1], Path(sys.argv[2])
key = load_public_key(sys.argv[3].encode())
LIMITS = replace(BASE, spooled_above=600)  # so that objects go both ways, through memory and through files
LIMITS = replace(LIMITS, processes=int(sys.argv[4]), carried_above=0)

def replicate(die_at, number):
    def on_step(step):
        nonlocal number
        if step == die_at:
            number -= 1
            if number == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    store = LocalObjectStore(place / "storage")
    asyncio.run(pull(Replication(url, FQRN, key, store, place / "spool", LIMITS, clock=Clock()), on_step=on_step))

for line in sys.stdin:
    die_at, number = line.split()
    child = os.fork()
    if child == 0:
        os.dup2(2, 1)  # where the log goes
        try:
            replicate(die_at, int(number))
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print(os.waitpid(child, 0)[1], flush=True)
"""


def incomplete_catalogs(store: ObjectStore, scratch: Path) -> list[str]:
    """Catalogs in a store of which something below is missing, against the promise that a catalog's presence makes."""
    found = []
    for stored in list(store.objects()):
        if stored.kind is not ObjectKind.CATALOG:
            continue
        data = store.get(stored.content, stored.kind)
        database = schema.load(codec.decompress(data, 1 << 30))
        path = dict(database.execute("SELECT key, CAST(value AS BLOB) FROM properties")).get(b"root_prefix", b"")
        listing = open_listing(BytesIO(data), NestedReference(path, stored.content, 0), scratch, 1 << 30)
        wanted = [(item.content, item.kind) for item in listing.objects()]
        wanted += [(item.content, ObjectKind.CATALOG) for item in listing.nested()]
        listing.close()
        found += [f"{path!r} lacks {content}" for content, kind in wanted if not store.contains(content, kind)]
    return found


class Killer:
    """Starts replications that kill themselves."""

    def __init__(self, url: str, place: Path, processes: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PARENT, url, str(place), keys_of(FQRN).public_pem.decode(), str(processes)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def kill_at(self, step: Step, number: int) -> int:
        """The signal that ended the replication; 0 if it came to its end."""
        write, read = self._process.stdin, self._process.stdout
        assert write is not None
        assert read is not None
        write.write(f"{step} {number}\n")
        write.flush()
        return int(read.readline())

    def close(self) -> None:
        self._process.communicate()


@pytest.mark.parametrize("processes", [0, 2])
def test_killed_at_each_step(tmp_path: Path, processes: int) -> None:
    repository, source = new_repository(tmp_path / "stratum0")
    publish(repository, b"one", tag="first")
    place = tmp_path / "replica"
    place.mkdir()
    store, spool = LocalObjectStore(place / "storage"), place / "spool"
    with ThreadedServer(RepositoryServer(source, FQRN)) as server:
        killer = Killer(server.url, place, processes)
        try:
            for revision in (2, 3):
                for step in Step:
                    for number in (1, 2) if step in {Step.OBJECTS, Step.CATALOG} else (1,):
                        fresh = not (place / "storage" / ".cvmfspublished").exists()
                        killed = killer.kill_at(step, number)
                        assert killed in {signal.SIGKILL, 0}, step
                        assert incomplete_catalogs(store, tmp_path / "scratch") == []
                        if (place / "storage" / ".cvmfspublished").exists():
                            assert replica_problems(store, spool) == []
                        else:
                            assert fresh
                assert killer.kill_at(Step.END, 99) == 0
                assert replica_problems(store, spool) == []
                assert store.read_file(".cvmfspublished") == source.files[".cvmfspublished"]
                if revision == 2:
                    publish(repository, b"two", tag="second")
        finally:
            killer.close()
    assert not (spool / "replicating.json").exists()
    assert os.listdir(spool / "incoming") == []  # noqa: PTH208


class FullStore(MemoryStore):
    """Has room for so many writes and no more."""

    room = 1 << 30

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


async def test_disk_full_at_every_write(tmp_path: Path) -> None:
    repository, source = new_repository(tmp_path / "stratum0")
    publish(repository, b"one", tag="first")
    full = 0
    async with RepositoryServer(source, FQRN).running() as server:
        for room in range(200):
            store = FullStore()
            store.room = room
            spool = tmp_path / f"spool{room}"
            try:
                await pull(server.url, store, spool)
            except StorageFull:
                full += 1
            else:
                break
            assert incomplete_catalogs(store, tmp_path / "scratch") == []
            store.room = 1 << 30
            await pull(server.url, store, spool)
            assert replica_problems(store, spool) == []
    assert full > 30
