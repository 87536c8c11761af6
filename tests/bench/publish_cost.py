"""What does it cost to publish one more image of one file, in repositories that hold ever more images?

    python -m tests.bench.publish_cost [--images 0,1000,10000] [--shape tags,library,namespaces] [--samples 25]

For each shape a repository is filled in steps, by the publisher's own code. At each step further images are published, each in a
revision of its own: layer ingested, root file system merged, all put into one transaction. Medians of wall and CPU milliseconds
are printed, and the ratio to the empty repository, which is the same for all shapes. The shapes are the worst ones for a
directory listing: `library` is one namespace with a repository an image, `tags` one repository with a tag an image, `namespaces`
a namespace an image, `spread` what a hub looks like: namespaces of 20 repositories with 5 tags each.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import random
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import structlog

from mirror.data import DataDirectory
from mirror.oci.digest import Digest
from mirror.oci.manifest import Descriptor, ImageManifest
from mirror.oci.reference import ImageReference
from publisher.images.place import PreparedImage, UnpackedLayer, place_images
from publisher.layers.ingest import ingest_layer
from publisher.layers.limits import LayerLimits
from publisher.layers.merge import merge
from publisher.objects.local import LocalObjectStore
from publisher.objects.pipeline import PipelineLimits
from publisher.spool import RepositorySettings
from publisher.storage import Storage
from publisher.stratum0 import Stratum0, open_or_create
from publisher.transaction import Transaction

_FQRN = "cost.example.org"
_BATCH = 250
_SHAPES: dict[str, Callable[[int], str]] = {
    "library": lambda number: f"docker.io/library/image{number:06}:latest",
    "tags": lambda number: f"docker.io/library/image:v{number}",
    "namespaces": lambda number: f"docker.io/user{number:06}/image:latest",
    "spread": lambda number: f"docker.io/user{number // 100:04}/image{number // 5 % 20}:{number % 5}",
}


@dataclass
class Sample:
    """Milliseconds of one publication."""

    wall: float
    cpu: float


def _digest(data: bytes) -> Digest:
    return Digest("sha256", hashlib.sha256(data).hexdigest())


def _image(stratum0: Stratum0, name: str) -> PreparedImage:
    """An image with one layer of one file, its layer ingested as by the publisher."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        content = name.encode()
        member = tarfile.TarInfo("bin/program")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    blob = archive.getvalue()
    diff_id = _digest(blob)
    result = ingest_layer(io.BytesIO(blob), diff_id, stratum0.pipeline, LayerLimits())
    layer = Descriptor("application/vnd.oci.image.layer.v1.tar", diff_id, len(blob))
    config = Descriptor("application/vnd.oci.image.config.v1+json", _digest(b"config" + content), 1000)
    raw = json.dumps({"config": str(config.digest), "layers": [str(diff_id)]}).encode()
    manifest = ImageManifest("application/vnd.oci.image.manifest.v1+json", config, (layer,))
    unpacked = UnpackedLayer(layer, diff_id, result.tree, result.entries, result.size)
    return PreparedImage(
        _digest(raw), raw, manifest, (ImageReference.parse(name),), (unpacked,), merge([result.tree])
    )  # fmt: skip


def _publish(stratum0: Stratum0, names: list[str]) -> None:
    with Transaction(stratum0.repository) as transaction:
        place_images(transaction, stratum0.pipeline, [_image(stratum0, name) for name in names], time.time())
        transaction.commit()


def _sample(stratum0: Stratum0, name: str) -> Sample:
    wall, cpu = time.perf_counter(), time.process_time()
    _publish(stratum0, [name])
    return Sample((time.perf_counter() - wall) * 1000, (time.process_time() - cpu) * 1000)


def _steps(shape: str, images: list[int], samples: int, directory: Path) -> Iterator[tuple[int, list[Sample]]]:
    """Number of images before the samples, and the samples. Names come in random order, as pulls do."""
    order = list(range(max(images) + samples * (len(images) + 1)))
    random.Random(1).shuffle(order)
    names = map(_SHAPES[shape], order)
    data = DataDirectory(directory)
    storage = Storage(LocalObjectStore(data.cvmfs / _FQRN), f"/cvmfs/{_FQRN}", 1)
    settings = RepositorySettings("libdeflate-5")
    stratum0 = open_or_create(_FQRN, storage, data, settings, PipelineLimits(), whitelist_lifetime=timedelta(days=30))
    held = 0
    with stratum0.pipeline:
        for wanted in images:
            while held < wanted:
                batch = [next(names) for _ in range(min(_BATCH, wanted - held))]
                _publish(stratum0, batch)
                held += len(batch)
            before = held
            taken = [_sample(stratum0, next(names)) for _ in range(samples)]
            held += samples
            yield before, taken


def _catalogs(directory: Path) -> str:
    """The largest catalogs as stored in the last revision."""
    sizes = sorted((path.stat().st_size for path in directory.glob("cvmfs/*/data/??/*C")), reverse=True)
    return f"largest stored catalog {sizes[0] >> 10} KiB"


def main() -> None:
    """Print one line a step."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--images", default="0,1000,10000")
    arguments.add_argument("--shape", default=",".join(_SHAPES))
    arguments.add_argument("--samples", type=int, default=25)
    arguments.add_argument("--dir", type=Path, help="where to work; kept if it is given")
    given = arguments.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.2f}, {given.samples} samples a step")
    for shape in given.shape.split(","):
        with tempfile.TemporaryDirectory(prefix="publish-cost.") as temporary:
            directory = given.dir / shape if given.dir else Path(temporary)
            base: Sample | None = None
            for held, samples in _steps(shape, sorted(map(int, given.images.split(","))), given.samples, directory):
                middle = Sample(*(statistics.median(values) for values in zip(*((s.wall, s.cpu) for s in samples), strict=True)))
                base = base or middle
                print(
                    f"{shape:12} {held:6} images: {middle.wall:6.1f} ms wall ({middle.wall / base.wall:.2f} x), "
                    f"{middle.cpu:6.1f} ms CPU ({middle.cpu / base.cpu:.2f} x); {_catalogs(directory)}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
