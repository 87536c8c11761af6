"""What does unpacking cost, next to what it must cost at least, and next to CernVM-FS's own publisher?

    python -m tests.bench.ingest [--rounds 5] [--only layers,again,one-file,rows,memory] [--directory DIR]

layers     a Debian base system and a Python stack, tar.gz to objects on disk. In each round, one after the other: the limit
           (tests/bench/limit.py), this publisher, and `cvmfs_swissknife ingest` of the same tar, uncompressed before, if it is
           installed and this is root.
again      a second layer with the same files but another archive, into a storage that has the first one.
one-file   a layer of one file, published in a revision of its own.
rows       catalogs of 300,000 entries that are in memory.
memory     a layer of 5 GB with 200,000 files, made while it is read; content is compressed and hashed, but not kept.

Medians are printed. Nothing is deleted before the end: ext4 looks long for inodes where many were deleted a short time ago.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from isal import igzip

from publisher.objects.compress import DEFAULT_COMPRESSOR
from tests.bench import reference_ingest, sample_layers
from tests.support.tool import run

_ALL = "layers,again,one-file,rows,memory"
Round = dict[str, float]


class Bench:
    """Measurements below one directory."""

    def __init__(self, directory: Path, rounds: int) -> None:
        self._directory = directory
        self._rounds = rounds

    def layers(self) -> None:
        for name, blob in (("Debian base system", sample_layers.debian_layer()), ("Python stack", sample_layers.python_layer())):
            tar = self._directory / f"{blob.stem}.tar"
            with igzip.open(blob) as packed, tar.open("wb") as plain:  # type: ignore[no-untyped-call]
                while block := packed.read(1 << 20):
                    plain.write(block)
            limits, ours, reference = [], [], []
            for _ in range(self._rounds):
                limits.append(self._limit(blob))
                ours.append(self._step("layer", blob)["blobs"][0])
                if reference_ingest.is_here():
                    reference.append(reference_ingest.ingest(tar, self._new()))
            print(f"{name}: {tar.stat().st_size / 1e6:.0f} MB of tar")
            _compare("the limit", limits, ours)
            _compare("cvmfs_swissknife ingest", reference, ours)

    def again(self) -> None:
        blob = sample_layers.debian_layer()
        other = self._directory / "other.tar.gz"
        _repack(blob, other)
        rounds = [self._step("layer", blob, other)["blobs"] for _ in range(self._rounds)]
        print("Debian base system a second time, all files the same, another archive")
        _compare("the first time", [first for first, _ in rounds], [second for _, second in rounds])

    def one_file(self) -> None:
        figures = [self._step("one-file") for _ in range(self._rounds)]
        print(f"a layer of one file: {_median(figures, 'seconds') * 1e3:.1f} ms, CPU {_median(figures, 'cpu') * 1e3:.1f} ms")

    def rows(self) -> None:
        figures = [self._step("rows") for _ in range(self._rounds)]
        rate = statistics.median(found["rows"] / found["seconds"] for found in figures)
        of_cpu = statistics.median(found["rows"] / found["cpu"] for found in figures)
        print(f"catalogs: {rate:,.0f} rows/s, {of_cpu:,.0f} a CPU second")

    def memory(self) -> None:
        found = self._step("memory")
        print(
            f"5 GB, 200,000 files: at most {found['most'] / 1e6:.0f} MB of memory ({found['before'] / 1e6:.0f} MB before), "
            f"{found['seconds']:.0f} s, CPU {found['cpu']:.0f} s, {found['stored'] / 1e6:.0f} MB of objects"
        )

    def _limit(self, blob: Path) -> Round:
        out = self._new()
        done = run([sys.executable, "-m", "tests.bench.limit", "--compressor", DEFAULT_COMPRESSOR, "--out", out, blob])
        found: Round = json.loads(done.stdout)
        return found

    def _step(self, step: str, *blobs: Path) -> Any:
        return json.loads(run([sys.executable, "-m", "tests.bench.ingest_steps", step, self._new(), *blobs], seconds=1800).stdout)

    def _new(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self._directory)) / "new"


def _repack(blob: Path, other: Path) -> None:
    """The same files a second later: what the next build of an image makes of them."""
    with tarfile.open(blob) as before, tarfile.open(other, "w:gz", compresslevel=1) as after:
        for member in before:
            member.mtime += 1
            member.pax_headers = {}
            after.addfile(member, before.extractfile(member) if member.isreg() else None)


def _median(rounds: list[Round], name: str) -> float:
    return statistics.median(found[name] for found in rounds)


def _compare(what: str, theirs: list[Round], ours: list[Round]) -> None:
    if not theirs:
        print(f"    {what}: not measured, it is not here")
        return
    print(
        f"    {what} {_median(theirs, 'seconds'):.2f} s, CPU {_median(theirs, 'cpu'):.2f} s; "
        f"ours {_median(ours, 'seconds'):.2f} s, CPU {_median(ours, 'cpu'):.2f} s; "
        f"ratio {_ratio(ours, theirs, 'seconds'):.2f}, CPU {_ratio(ours, theirs, 'cpu'):.2f}"
        + (f"; stored {_median(ours, 'stored') / _median(theirs, 'stored'):.4f}" if "stored" in theirs[0] else "")
    )


def _ratio(ours: list[Round], theirs: list[Round], name: str) -> float:
    """The median of the rounds' own ratios: what else the machine does hits both of a round alike."""
    return statistics.median(our[name] / their[name] for our, their in zip(ours, theirs, strict=True))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--only", default=_ALL)
    arguments.add_argument("--directory", type=Path, help="for what is written; default: the system's temporary directory")
    given = arguments.parse_args()
    print(f"{given.rounds} rounds, {len(os.sched_getaffinity(0))} cores, {DEFAULT_COMPRESSOR}; medians", flush=True)
    with tempfile.TemporaryDirectory(prefix="debark-bench-", dir=given.directory) as name:
        bench = Bench(Path(name), given.rounds)
        steps: dict[str, Callable[[], None]] = {
            "layers": bench.layers,
            "again": bench.again,
            "one-file": bench.one_file,
            "rows": bench.rows,
            "memory": bench.memory,
        }
        for step in given.only.split(","):
            steps[step]()
            sys.stdout.flush()


if __name__ == "__main__":
    main()
