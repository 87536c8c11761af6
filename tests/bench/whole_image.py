"""How long after it was asked for is a whole image a directory in the repository, next to what its layers cost alone?

    python -m tests.bench.whole_image [--rounds 3]

The images are made of real files (tests/bench/sample_images.py). In each round an empty debark in front of a real hub gets, by
skopeo, `ten` (ten layers, 60,000 entries), then `next`, which shares all but one small layer with it; another empty one gets
`three` (a Debian base system, a Python stack, a small layer). In the same round the layers of `ten` and `three` are unpacked one
after the other by the publisher's own code, without an image around them. Printed are medians: seconds from the beginning of the
job and from the last byte of the pull to the revision, CPU seconds of the publisher, ratios to the sum of the layers, the number
of revisions; and beside `three` what CernVM-FS's DUCC 2.12 took for such an image on two cores. Then the rates of the merge of a
root file system and of its digest.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from publisher.images.tree_digest import digest_of
from publisher.layers.ingest import ingest_layer
from publisher.layers.limits import LayerLimits
from publisher.layers.merge import merge
from publisher.objects.compress import compressor
from publisher.objects.pipeline import Pipeline, PipelineLimits
from tests.bench import sample_layers
from tests.bench.pull_to_visible import cpu_seconds, job_times, last_byte, wait_until_idle
from tests.bench.sample_images import WholeImages, whole_images
from tests.support.clients import Skopeo
from tests.support.debark_process import DebarkProcess
from tests.support.hub import Hub
from tests.support.memory_store import MemoryStore
from tests.support.registry_client import digest_of as manifest_digest
from tests.support.tool import run

_DUCC = "DUCC 2.12 needed 61.6 s, CPU 69 s and more than 40 revisions for such an image; its layers alone 21 s"


@dataclass
class Figures:
    """One number a round."""

    work: list[float] = field(default_factory=list)
    visible: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    revisions: list[int] = field(default_factory=list)
    layers: list[float] = field(default_factory=list)
    layers_cpu: list[float] = field(default_factory=list)


def _publish(hub: Hub, tags: list[str], workdir: Path, figures: dict[str, Figures]) -> None:
    """Have an empty debark publish these, one after the other."""
    skopeo = Skopeo(workdir / "skopeo")
    with DebarkProcess(workdir / "debark", {"hub.test": hub.url}) as debark:
        wait_until_idle(debark)
        for tag in tags:
            before = max(facts["revision"] for facts in debark.repositories())
            cpu = cpu_seconds(debark.publisher_pids())
            copy = skopeo.pull(f"{debark.address}/hub.test/whole/image:{tag}", tag)
            image = debark.wait_for(f"hub.test/whole/image:{tag}", {"published", "refused", "failed"}, seconds=900)
            if image["state"] != "published":
                raise SystemExit(f"{tag} is {image['state']}: {image['reason']}")
            result, times = figures[tag], job_times(debark, manifest_digest(copy.manifest))
            result.work.append(times["published"] - times["fetching"])
            result.visible.append(times["published"] - last_byte(debark))
            result.cpu.append(cpu_seconds(debark.publisher_pids()) - cpu)
            result.revisions.append(image["revision"] - before)


def _layers_alone(layers: list[Path], out: Path, result: Figures) -> None:
    command: list[str | Path] = [sys.executable, "-m", "tests.bench.ingest_steps", "layer", out, *layers]
    found = json.loads(run(command, seconds=1800).stdout)["blobs"]
    result.layers.append(sum(layer["seconds"] for layer in found))
    result.layers_cpu.append(sum(layer["cpu"] for layer in found))


def _print(tag: str, result: Figures) -> None:
    median = statistics.median
    print(
        f"{tag}: {median(result.work):.2f} s from the job's beginning, {median(result.visible):.2f} s from the last byte, "
        f"CPU {median(result.cpu):.2f} s, {median(result.revisions):.0f} revision(s)"
    )
    if result.layers:
        wall = median(ours / alone for ours, alone in zip(result.work, result.layers, strict=True))
        cpu = median(ours / alone for ours, alone in zip(result.cpu, result.layers_cpu, strict=True))
        alone = f"its layers alone {median(result.layers):.2f} s, CPU {median(result.layers_cpu):.2f} s"
        print(f"    {alone}; the image takes {wall:.2f} x, CPU {cpu:.2f} x")


def _rates(images: WholeImages) -> None:
    """Of the largest image's trees, which are in memory."""
    with Pipeline(MemoryStore(), compressor("libdeflate-1"), PipelineLimits()) as pipeline:
        trees = []
        for blob in images.layers["ten"]:
            with blob.open("rb") as packed:
                trees.append(ingest_layer(packed, sample_layers.diff_id(blob), pipeline, LayerLimits()).tree)
    entries = sum(1 for tree in trees for _ in tree.walk())
    flat = merge(trees)
    for what, work, count in (
        ("merge of the layers' trees", lambda: merge(trees), entries),
        ("digest of the root file system", lambda: digest_of(flat), digest_of(flat).entries),
    ):
        print(f"{what}: {count / _seconds(work):,.0f} entries/s ({count:,} entries)")


def _seconds(work: Callable[[], object]) -> float:
    taken = []
    for _ in range(5):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=3)
    given = arguments.parse_args()
    images = whole_images()
    figures = {tag: Figures() for tag in images.layers}
    with tempfile.TemporaryDirectory(prefix="debark-bench-") as name, Hub(Path(name) / "hub") as hub:
        for tag in images.layers:
            Skopeo(Path(name)).push(images.layout, tag, f"{hub.address}/whole/image:{tag}")
        for number in range(given.rounds):
            work = Path(name) / f"round-{number}"
            for tag in ("ten", "three"):
                _layers_alone(images.layers[tag], work / f"layers-{tag}", figures[tag])
            _publish(hub, ["ten", "next"], work / "first", figures)
            _publish(hub, ["three"], work / "second", figures)
            run(["rm", "-rf", work])
    print(f"{given.rounds} rounds, {len(os.sched_getaffinity(0))} cores; medians")
    for tag, result in figures.items():
        _print(tag, result)
    print(f"    {_DUCC}")
    _rates(images)


if __name__ == "__main__":
    main()
