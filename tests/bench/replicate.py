"""Replication on loopback, next to a plain client that reads the same files as fast as it can and keeps none of them.

`python -m tests.bench.replicate --url URL --fqrn NAME --key FILE --storage DIR --out DIR [--rounds 3]` prints one JSON line:
medians of both, and the ratio of their rates; the same of `cvmfs_swissknife pull`, which is what `cvmfs_server snapshot` runs,
where it is installed. CPU seconds are of all processes but the web server, memory is that of the largest one. The URL is of a web
server (nginx, say) that serves the storage directory; all are run in turns, with as many connections, so that what else the
machine does falls on all.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from multiprocessing import get_context
from pathlib import Path

import aiohttp
from yarl import URL

from publisher.keys import load_public_key
from publisher.objects.http_client import HttpLimits
from publisher.objects.local import LocalObjectStore
from publisher.replicate.model import Replication, ReplicationLimits
from publisher.replicate.replica import replicate

_CONNECTIONS = 64

Measured = dict[str, float]


class _Meter:
    """Seconds and CPU seconds since it was made, of this process and those that it started."""

    def __init__(self) -> None:
        self._began, self._cpu = time.perf_counter(), self._cpu_seconds()

    def read(self, objects: int) -> Measured:
        seconds, cpu = time.perf_counter() - self._began, self._cpu_seconds() - self._cpu
        memory = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024
        return {"objects": objects, "seconds": seconds, "cpu": cpu, "rate": objects / seconds, "memory_mb": memory}

    @staticmethod
    def _cpu_seconds() -> float:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(one.ru_utime + one.ru_stime for one in used)


async def _read_all(url: str, storage: Path) -> int:
    """The plain client: every object once, hashed by nobody, stored nowhere."""
    names = iter([str(path.relative_to(storage)) for path in (storage / "data").rglob("*") if path.is_file()])
    read = 0

    async def reader(session: aiohttp.ClientSession) -> None:
        nonlocal read
        for name in names:
            async with session.get(URL(f"{url}/{name}", encoded=True)) as response:
                while await response.content.readany():
                    pass
                read += 1

    connector = aiohttp.TCPConnector(limit=_CONNECTIONS)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False) as session:
        await asyncio.gather(*[reader(session) for _ in range(_CONNECTIONS)])
    return read


async def _replicate(url: str, fqrn: str, key: Path, out: Path) -> int:
    limits = ReplicationLimits(http=HttpLimits(connections=_CONNECTIONS))
    store = LocalObjectStore(out / "storage")
    result = await replicate(Replication(url, fqrn, load_public_key(key.read_bytes()), store, out / "spool", limits))
    return result.progress.objects + result.progress.catalogs


def _measured(work: Callable[[], Awaitable[int]]) -> Measured:
    """Run it in this process."""

    async def run() -> int:
        return await work()

    meter = _Meter()
    return meter.read(asyncio.run(run()))


def _plain(url: str, storage: Path) -> Measured:
    return _measured(lambda: _read_all(url, storage))


def _ours(url: str, fqrn: str, key: Path, out: Path) -> Measured:
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 (the log is not measured)
    return _measured(lambda: _replicate(url, fqrn, key, out))


def _theirs(url: str, fqrn: str, key: Path, out: Path) -> Measured:
    """CernVM-FS's own. It wants a URL of the replica too; nothing is there before the first replication."""
    storage = out / "storage"
    for name in ("txn", *(f"{number:02x}" for number in range(256))):
        (storage / "data" / name).mkdir(parents=True)
    (out / "spool").mkdir()
    words = ["cvmfs_swissknife", "pull", "-i", "-m", fqrn, "-u", url, "-w", f"{url}-replica", "-k", key, "-n", _CONNECTIONS]
    words += ["-r", f"local,{storage}/data/txn,{storage}", "-x", out / "spool", "-t", 10, "-a", 3, "-R", out / "reflog.chksum"]
    meter = _Meter()
    subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL)
    measured = meter.read(0)
    objects = sum(1 for path in (storage / "data").rglob("*") if path.is_file())
    return {**measured, "objects": objects, "rate": objects / measured["seconds"]}


def _median(measured: list[Measured]) -> Measured:
    return {name: round(statistics.median(one[name] for one in measured), 3) for name in measured[0]}


def _compared(ours: list[Measured], theirs: list[Measured]) -> dict[str, object]:
    """Theirs, and how many times theirs we take."""
    if not theirs:
        return {}
    times = {
        name: round(statistics.median(one[name] / two[name] for one, two in zip(ours, theirs, strict=True)), 3)
        for name in ("seconds", "cpu", "memory_mb")
    }
    return {"theirs": _median(theirs), "ours_to_theirs": times}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--url", required=True)
    arguments.add_argument("--fqrn", required=True)
    arguments.add_argument("--key", type=Path, required=True)
    arguments.add_argument("--storage", type=Path, required=True)
    arguments.add_argument("--out", type=Path, required=True, help="a directory for replicas, which are deleted again")
    arguments.add_argument("--rounds", type=int, default=3)
    given = arguments.parse_args()
    plain: list[Measured] = []
    ours: list[Measured] = []
    theirs: list[Measured] = []
    for number in range(given.rounds):
        with get_context("spawn").Pool(1) as process:
            plain.append(process.apply(_plain, (given.url, given.storage)))
        out = given.out / str(number)
        out.mkdir(parents=True)
        with get_context("spawn").Pool(1) as process:
            ours.append(process.apply(_ours, (given.url, given.fqrn, given.key, out)))
        shutil.rmtree(out)
        if shutil.which("cvmfs_swissknife"):
            with get_context("spawn").Pool(1) as process:
                theirs.append(process.apply(_theirs, (given.url, given.fqrn, given.key, out)))
            shutil.rmtree(out)
    result = {
        "ratio": round(statistics.median(two["rate"] / one["rate"] for one, two in zip(plain, ours, strict=True)), 3),
        "plain": _median(plain),
        "ours": _median(ours),
        **_compared(ours, theirs),
        "load": os.getloadavg()[0],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
