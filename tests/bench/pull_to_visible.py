"""How long after the last byte of a pull is the image a directory in the repository, and how near is that to the limit?

    python -m tests.bench.pull_to_visible [--rounds 5] [--images full,other]

Each round starts an empty debark in front of a real hub, waits until it is idle, and pulls the images one after the other with
skopeo. Right before and right after each pull it measures on the same cores what no publisher can go below (tests/bench/limit.py:
inflate, tar, deflate, SHA-1, write). Medians of all rounds are printed: seconds from the last byte, and from the job's beginning,
to the revision; their split by the states of the job; CPU seconds of the publisher; ratios to the limit; and how many cores the
rest of the machine kept busy meanwhile (hub, mirror and client included), without which no figure can be judged.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from tests.support.clients import Copy, Skopeo
from tests.support.debark_process import DebarkProcess, wait_until
from tests.support.hub import Hub
from tests.support.registry_client import digest_of
from tests.support.tool import run
from tests.support.wire import Wire
from tests.support.zoo import debian_layout

_REPOSITORIES = 2
_TOO_SHORT = 0.05
"""Seconds of a limit that is mostly the starting of threads."""
_STEPS = ("queued", "fetching", "ingesting", "committing", "replicating", "published")


@dataclass
class Figures:
    """One number a round, but for those of the limit, which is measured twice."""

    visible: list[float] = field(default_factory=list)
    work: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)
    limit: list[float] = field(default_factory=list)
    limit_cpu: list[float] = field(default_factory=list)
    limit_others: list[float] = field(default_factory=list)
    steps: dict[str, list[float]] = field(default_factory=dict)

    def add_limit(self, measured: dict[str, float], others: float) -> None:
        self.limit.append(measured["seconds"])
        self.limit_cpu.append(measured["cpu"])
        self.limit_others.append(others)


def _limit(blobs: list[Path], compressor: str, out: Path, result: Figures) -> None:
    """What it costs at least to unpack these."""
    busy, started = _machine_cpu(), time.monotonic()
    options: list[str | Path] = ["--compressor", compressor, "--out", out]
    command = [sys.executable, "-m", "tests.bench.limit", *options, *blobs]
    measured: dict[str, float] = json.loads(run(command).stdout)
    seconds = time.monotonic() - started
    result.add_limit(measured, (_machine_cpu() - busy - measured["cpu"]) / seconds)
    run(["rm", "-rf", out])


def _lacking(copy: Copy, held: set[str]) -> list[Path]:
    """Blobs of the layers that the repository does not have yet; from now on it has them."""
    layers = [layer["digest"].removeprefix("sha256:") for layer in json.loads(copy.manifest)["layers"]]
    blobs = [copy.directory / layer for layer in dict.fromkeys(layers) if layer not in held]
    held.update(layers)
    return blobs


def _machine_cpu() -> float:
    """CPU seconds of everything on this machine so far, idling and waiting for disks left out."""
    user, nice, system, _idle, _iowait, irq, softirq, *_ = map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of the processes so far."""
    ticks = os.sysconf("SC_CLK_TCK")
    stats = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids)
    return sum(int(stat[11]) + int(stat[12]) for stat in stats) / ticks


def last_byte(debark: DebarkProcess) -> float:
    """Unix seconds of the end of the last pull request that was answered so far."""
    pulls = (record for record in debark.access_records() if record["kind"] in {"manifest", "blob"})
    ends: list[float] = [datetime.fromisoformat(record["time"]).timestamp() + record["seconds"] for record in pulls]
    return max(ends)


def job_times(debark: DebarkProcess, manifest: str) -> dict[str, float]:
    """When the job came into each state, as the state database has it."""
    with closing(sqlite3.connect(f"file:{debark.data}/state.sqlite?mode=ro", uri=True)) as state:
        columns = ", ".join(f"{step}_at" for step in _STEPS)
        row = state.execute(f"SELECT {columns} FROM images WHERE manifest_digest = ?", (manifest,)).fetchone()
    return {step: at for step, at in zip(_STEPS, row, strict=True) if at is not None}


def wait_until_idle(debark: DebarkProcess) -> None:
    """Until the repositories are made, and making their keys disturbs nobody."""
    wait_until(lambda: len(debark.repositories()) == _REPOSITORIES, 60, lambda: "the publisher does not make its repositories")


def _round(hub: Hub, url: str, tags: list[str], compressor: str, workdir: Path, figures: dict[str, Figures]) -> None:
    """url: where debark finds the hub."""
    skopeo = Skopeo(workdir / "skopeo")
    held: set[str] = set()
    with DebarkProcess(workdir / "debark", {"hub.test": url}) as debark:
        wait_until_idle(debark)
        for tag in tags:
            result = figures.setdefault(tag, Figures())
            blobs = _lacking(skopeo.pull(f"{hub.address}/library/debian:{tag}", f"direct-{tag}"), held)
            _limit(blobs, compressor, workdir / "limit", result)
            cpu, busy, started = cpu_seconds(debark.publisher_pids()), _machine_cpu(), time.monotonic()
            copy = skopeo.pull(f"{debark.address}/hub.test/library/debian:{tag}", tag)
            image = debark.wait_for(f"hub.test/library/debian:{tag}", {"published", "refused", "failed"}, seconds=600)
            if image["state"] != "published":
                raise SystemExit(f"{tag} is {image['state']}: {image['reason']}")
            seconds, busy = time.monotonic() - started, _machine_cpu() - busy
            cpu = cpu_seconds(debark.publisher_pids()) - cpu
            times = job_times(debark, digest_of(copy.manifest))
            ended = last_byte(debark)
            result.visible.append(times["published"] - ended)
            result.work.append(times["published"] - times["fetching"])
            result.cpu.append(cpu)
            result.others.append((busy - cpu) / seconds)
            for step, following in pairwise(times):
                result.steps.setdefault(step, []).append(times[following] - times[step])
            result.steps.setdefault("queued before the last byte", []).append(ended - times["queued"])
            _limit(blobs, compressor, workdir / "limit", result)


def _print(tag: str, figures: Figures) -> None:
    median = statistics.median
    limit, limit_cpu = median(figures.limit), median(figures.limit_cpu)
    rows = {
        "last byte to revision": (figures.visible, limit),
        "job's beginning to revision": (figures.work, limit),
        "CPU of the publisher": (figures.cpu, limit_cpu),
    }
    print(f"{tag}: limit {limit:.2f} s, {limit_cpu:.2f} CPU s")
    for name, (values, least) in rows.items():
        ratio = f"{median(values) / least:.2f} x limit" if least >= _TOO_SHORT else "too short a limit for a ratio"
        print(f"    {name:<28} {median(values):6.2f} s   {ratio:<14}   {' '.join(f'{value:.2f}' for value in values)}")
    print(
        f"    cores busy with other things {median(figures.others):6.2f}     {median(figures.limit_others):.2f} during the limit"
    )
    for step, seconds in figures.steps.items():
        print(f"      {step:<26} {median(seconds):6.2f} s")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--images", default="full,other", help="tags of tests/support/debian_images.py, in this order")
    arguments.add_argument("--compressor", default="libdeflate-5", help="of the limit; the publisher's default")
    arguments.add_argument("--rate", type=int, help="of the line from the hub to the mirror in MiB/s; without, it is loopback's")
    given = arguments.parse_args()
    tags = given.images.split(",")
    figures: dict[str, Figures] = {}
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="debark-bench-")))
        hub = stack.enter_context(Hub(work / "hub"))
        url = stack.enter_context(Wire(hub.address, given.rate << 20)).url if given.rate else hub.url
        for tag in tags:
            Skopeo(work).push(debian_layout(), tag, f"{hub.address}/library/debian:{tag}")
        for number in range(given.rounds):
            _round(hub, url, tags, given.compressor, work / f"round-{number}", figures)
            run(["rm", "-rf", work / f"round-{number}"])
    print(f"{given.rounds} rounds, {len(os.sched_getaffinity(0))} cores, {given.compressor}; medians, then every round")
    for tag, result in figures.items():
        _print(tag, result)


if __name__ == "__main__":
    main()
