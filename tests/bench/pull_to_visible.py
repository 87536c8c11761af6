"""How long after the last byte of a pull is the image a directory in the repository, and how near is that to the limit?

    python -m tests.bench.pull_to_visible [--rounds 3] [--images full,other]

Each round starts an empty debark in front of a real hub, pulls the images one after the other with skopeo, and measures on the
same cores right before it what no publisher can go below (tests/bench/limit.py: inflate, tar, deflate, SHA-1, write). Medians of
all rounds are printed: seconds from the last byte to the revision, their split by the states of the job, CPU seconds of the
publisher, and both as ratio to the limit.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import statistics
import sys
import tempfile
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from tests.support.clients import Copy, Skopeo
from tests.support.debark_process import DebarkProcess
from tests.support.hub import Hub
from tests.support.registry_client import digest_of
from tests.support.tool import run
from tests.support.zoo import debian_layout

_STEPS = ("queued", "fetching", "ingesting", "committing", "replicating", "published")


@dataclass
class Figures:
    """One number a round."""

    visible: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    limit: list[float] = field(default_factory=list)
    limit_cpu: list[float] = field(default_factory=list)
    steps: dict[str, list[float]] = field(default_factory=dict)


def _limit(copy: Copy, compressor: str, held: set[str], workdir: Path) -> dict[str, float]:
    """What the layers cost at least that the repository lacks."""
    layers = [layer["digest"].removeprefix("sha256:") for layer in json.loads(copy.manifest)["layers"]]
    blobs = [copy.directory / layer for layer in dict.fromkeys(layers) if layer not in held]
    held.update(layers)
    command = [sys.executable, "-m", "tests.bench.limit", "--compressor", compressor, "--out", workdir / "limit", *blobs]
    measured: dict[str, float] = json.loads(run(command).stdout)
    run(["rm", "-rf", workdir / "limit"])
    return measured


def _cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of the processes so far."""
    ticks = os.sysconf("SC_CLK_TCK")
    stats = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids)
    return sum(int(stat[11]) + int(stat[12]) for stat in stats) / ticks


def _last_byte(debark: DebarkProcess) -> float:
    """Unix seconds of the end of the last pull request that was answered so far."""
    pulls = (record for record in debark.access_records() if record["kind"] in {"manifest", "blob"})
    ends: list[float] = [datetime.fromisoformat(record["time"]).timestamp() + record["seconds"] for record in pulls]
    return max(ends)


def _times(debark: DebarkProcess, manifest: str) -> dict[str, float]:
    """When the job came into each state, as the state database has it."""
    with closing(sqlite3.connect(f"file:{debark.data}/state.sqlite?mode=ro", uri=True)) as state:
        columns = ", ".join(f"{step}_at" for step in _STEPS)
        row = state.execute(f"SELECT {columns} FROM images WHERE manifest_digest = ?", (manifest,)).fetchone()
    return {step: at for step, at in zip(_STEPS, row, strict=True) if at is not None}


def _round(hub: Hub, tags: list[str], compressor: str, workdir: Path, figures: dict[str, Figures]) -> None:
    skopeo = Skopeo(workdir / "skopeo")
    held: set[str] = set()
    with DebarkProcess(workdir / "debark", {"hub.test": hub.url}) as debark:
        for tag in tags:
            measured = _limit(skopeo.pull(f"{hub.address}/library/debian:{tag}", f"direct-{tag}"), compressor, held, workdir)
            before = _cpu_seconds(debark.publisher_pids())
            copy = skopeo.pull(f"{debark.address}/hub.test/library/debian:{tag}", tag)
            debark.wait_for(f"hub.test/library/debian:{tag}", seconds=600)
            times = _times(debark, digest_of(copy.manifest))
            last_byte = _last_byte(debark)
            result = figures.setdefault(tag, Figures())
            result.visible.append(times["published"] - last_byte)
            result.cpu.append(_cpu_seconds(debark.publisher_pids()) - before)
            result.limit.append(measured["seconds"])
            result.limit_cpu.append(measured["cpu"])
            order = list(times)
            for step, following in pairwise(order):
                result.steps.setdefault(step, []).append(times[following] - times[step])
            result.steps.setdefault("last byte to queued", []).append(times["queued"] - last_byte)


def _print(tag: str, figures: Figures) -> None:
    median = statistics.median
    visible, limit = median(figures.visible), median(figures.limit)
    cpu, limit_cpu = median(figures.cpu), median(figures.limit_cpu)
    print(f"{tag}: last byte to revision {visible:.2f} s; limit {limit:.2f} s; ratio {visible / limit:.2f}")
    print(f"    CPU of the publisher {cpu:.2f} s; limit {limit_cpu:.2f} s; ratio {cpu / limit_cpu:.2f}")
    for step, seconds in figures.steps.items():
        print(f"    {step:<20} {median(seconds):6.2f} s")
    print(f"    rounds: {', '.join(f'{a:.2f} / {b:.2f}' for a, b in zip(figures.visible, figures.limit, strict=True))}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--images", default="full,other", help="tags of tests/support/debian_images.py, in this order")
    arguments.add_argument("--compressor", default="libdeflate-5", help="of the limit; the publisher's default")
    given = arguments.parse_args()
    tags = given.images.split(",")
    figures: dict[str, Figures] = {}
    with tempfile.TemporaryDirectory(prefix="debark-bench-") as name, Hub(Path(name) / "hub") as hub:
        for tag in tags:
            Skopeo(Path(name)).push(debian_layout(), tag, f"{hub.address}/library/debian:{tag}")
        for number in range(given.rounds):
            _round(hub, tags, given.compressor, Path(name) / f"round-{number}", figures)
            run(["rm", "-rf", Path(name) / f"round-{number}"])
    print(f"{given.rounds} rounds, {len(os.sched_getaffinity(0))} cores, {given.compressor}; medians")
    for tag, result in figures.items():
        _print(tag, result)


if __name__ == "__main__":
    main()
