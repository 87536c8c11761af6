"""`cvmfs_swissknife ingest`, which is what `cvmfs_server ingest` runs, on a repository of its own; root only."""

from __future__ import annotations

import os
import resource
import shutil
import time
from pathlib import Path

from publisher.creation import create_repository
from publisher.objects.local import LocalObjectStore
from publisher.spool import RepositorySettings
from tests.support.tool import run

_FQRN = "bench-reference.example.org"
_STATISTICS = Path("/var/spool/cvmfs") / _FQRN
"""Where it insists to have a database."""


def is_here() -> bool:
    return shutil.which("cvmfs_swissknife") is not None and os.geteuid() == 0


def ingest(tar: Path, directory: Path) -> dict[str, float]:
    """Seconds, CPU seconds and stored bytes of one uncompressed tar. directory: must not exist."""
    for name in ("union", "rdonly", "tmp"):
        (directory / name).mkdir(parents=True)
    store = LocalObjectStore(directory / "storage")
    settings = RepositorySettings("zlib-6")
    repository = create_repository(_FQRN, store, keys=directory / "keys", spool=directory / "spool", settings=settings)
    storage, root = directory / "storage", repository.manifest().root
    command: list[str | Path] = [
        "cvmfs_swissknife",
        "ingest",
        "-u",
        directory / "union",
        "-c",
        directory / "rdonly",
        "-t",
        directory / "tmp",
    ]
    command += ["-b", str(root), "-r", f"local,{storage}/data/txn,{storage}", "-w", f"file://{storage}"]
    command += ["-o", directory / "manifest", "-K", directory / "keys" / f"{_FQRN}.pub", "-N", _FQRN]
    command += ["-U", "-1", "-G", "-1", "-T", tar, "-B", "layer"]
    _STATISTICS.mkdir(parents=True, exist_ok=True)
    try:
        cpu, started = _children(), time.perf_counter()
        run(command, seconds=900)
        figures = {"seconds": time.perf_counter() - started, "cpu": _children() - cpu}
    finally:
        shutil.rmtree(_STATISTICS)
    return {**figures, "stored": sum(found.size for found in store.objects())}


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
