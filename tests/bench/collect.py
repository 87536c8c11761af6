"""What a garbage collection costs: a synthetic repository of many objects, a part of them garbage.

`python -m tests.bench.collect --objects 100000 1000000` collects one repository of each size, in a process of its own each, and
prints one JSON line with seconds, rows marked a second, and the peak of memory over what the process had before. If the cost is
linear, the last line's ratios are near 1: CPU time for each object in the largest repository against the smallest.

The objects are empty files under random names (their content is never read); nine of ten are named by catalogs of 5,000 files in
nested catalogs, two revisions share most of these. What the file system takes for a listing is measured apart: `list` is a mere
walk with a stat of each file, `unlink` a mere removal.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from publisher.creation import create_repository
from publisher.cvmfs.entry import Directory, Entry
from publisher.cvmfs.hash import HASH_SIZE, ContentHash, ObjectKind
from publisher.gc.collect import collect
from publisher.gc.policy import CollectionPolicy, CollectionStep, Progress
from publisher.keys import RepositoryKeys
from publisher.objects.local import LocalObjectStore
from publisher.repository import Repository
from publisher.spool import RepositorySettings
from publisher.transaction import Transaction

FQRN = "bench.example.org"
_FILES = 5_000
"""In one image; its catalog has some more rows for directories."""
_GARBAGE = 10
"""Of so many objects, one is garbage."""
_DAY = 86_400.0


def fill(place: Path, objects: int) -> None:
    """Make a repository with about so many objects, the last image removed again."""
    RepositoryKeys.generate(FQRN, datetime.now(UTC)).save(place / "keys")
    store = LocalObjectStore(place / "storage")
    settings = RepositorySettings("libdeflate-4")
    clock = _Clock(time.time() - 30 * _DAY)
    repository = create_repository(FQRN, store, keys=place / "keys", spool=place / "spool", settings=settings, clock=clock)
    source = random.Random(objects)
    images = -(-objects // _FILES)
    removed = max(images // _GARBAGE, 1)
    with Transaction(repository) as transaction:
        for number in range(images):
            transaction.graft(b".flat/%02x/%06x" % (number % 64, number), _image(source, place / "storage"))
        transaction.commit()
    clock.now += 100
    with Transaction(repository) as transaction:
        for number in range(removed):
            transaction.remove(b".flat/%02x/%06x" % (number % 64, number))
        transaction.commit()


class _Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def _image(source: random.Random, storage: Path) -> Directory:
    root = Directory(Entry(mode=0o40755))
    for number in range(_FILES):
        content = ContentHash(source.randbytes(HASH_SIZE))
        os.close(os.open(storage / content.object_path(ObjectKind.DATA), os.O_CREAT | os.O_WRONLY, 0o644))
        folder = root.children.setdefault(b"%02x" % (number % 50), Directory(Entry(mode=0o40755)))
        assert isinstance(folder, Directory)
        folder.children[b"file%d" % number] = Entry(mode=0o100644, size=1, content=content)
    return root


def measure(place: Path) -> dict[str, float]:
    """Collect, after a dry run's worth of looking at the file system alone."""
    began = time.perf_counter()
    listed = sum(file.stat().st_nlink for number in range(256) for file in os.scandir(place / f"storage/data/{number:02x}"))
    listing = time.perf_counter() - began
    before = _memory("VmRSS")
    repository = Repository.open(FQRN, LocalObjectStore(place / "storage"), keys=place / "keys", spool=place / "spool")
    marks: dict[CollectionStep, float] = {}
    cpu: dict[CollectionStep, float] = {}

    def on_progress(progress: Progress) -> None:
        marks.setdefault(progress.step, time.perf_counter())
        cpu.setdefault(progress.step, time.process_time())

    began = time.perf_counter()
    result = collect(repository, CollectionPolicy(), now=time.time() + 7 * _DAY, progress=on_progress)
    ended = time.perf_counter()
    marking = marks[CollectionStep.LIST] - marks[CollectionStep.MARK]
    deleting = ended - marks[CollectionStep.WARN]
    return {
        "objects": listed,
        "rows": result.rows,
        "catalogs": result.catalogs,
        "deleted": result.deleted.objects,
        "seconds": round(ended - began, 2),
        "mark_seconds": round(marking, 2),
        "mark_cpu": round(cpu[CollectionStep.LIST] - cpu[CollectionStep.MARK], 3),
        "list_cpu": round(cpu[CollectionStep.WARN] - cpu[CollectionStep.LIST], 3),
        "rows_per_second": round(result.rows / marking),
        "list_seconds": round(marks[CollectionStep.WARN] - marks[CollectionStep.LIST], 2),
        "bare_list_seconds": round(listing, 2),
        "delete_seconds": round(deleting, 2),
        "deleted_per_second": round(result.deleted.objects / deleting),
        "memory_mb": round((_memory("VmHWM") - before) / 1024, 1),
    }


def _memory(what: str) -> int:
    """Of this process, in KiB."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what))


def main() -> None:
    """Measure each size in a process of its own, since memory is a peak."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--objects", type=int, nargs="+", default=[100_000, 1_000_000])
    arguments.add_argument(
        "--at", type=Path, help="directory for the repositories; a file system in memory shows the code's own cost"
    )
    arguments.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure)))
        return
    results = []
    for objects in given.objects:
        place = Path(tempfile.mkdtemp(prefix="collect.", dir=given.at))
        try:
            fill(place, objects)
            command = [sys.executable, "-m", "tests.bench.collect", "--measure", str(place)]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
            results.append(json.loads(output.splitlines()[-1]))
            print(json.dumps(results[-1]), flush=True)
        finally:
            shutil.rmtree(place)
    small, large = results[0], results[-1]
    each = {name: (large[name] / large["objects"]) / (small[name] / small["objects"]) for name in ("mark_cpu", "list_cpu")}
    print(json.dumps({f"{name}_of_each_object": round(ratio, 2) for name, ratio in each.items()}))


if __name__ == "__main__":
    main()
