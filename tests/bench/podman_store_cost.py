"""What does podmanStore cost at each publication, in repositories whose store lists ever more images?

    python -m tests.bench.podman_store_cost [--images 0,1000,10000] [--samples 10]

Each image has four layers of its own on top of one of twenty that images share. Only the store is written, and what it reads of
a layer; so the figures come on top of those of `publish_cost`. Printed are medians of CPU milliseconds of a publication of one
image, and of the bytes that it stores, which are what clients fetch again at the most; and the size of the two lists.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import structlog

from mirror.data import DataDirectory
from mirror.jobs.notes import NO_NOTES
from mirror.oci.digest import Digest
from mirror.oci.manifest import Descriptor, ImageManifest
from mirror.oci.reference import ImageReference
from publisher.cvmfs.entry import Entry
from publisher.images import layout, podman
from publisher.images.metadata import layers_json
from publisher.images.podman_store import PodmanStore, StoreImage
from publisher.objects.local import LocalObjectStore
from publisher.objects.pipeline import PipelineLimits
from publisher.spool import RepositorySettings
from publisher.storage import Storage
from publisher.stratum0 import Stratum0, open_or_create
from publisher.transaction import Transaction

_FQRN = "cost.example.org"
_BATCH = 500
_OWN_LAYERS = 4
_SHARED = 20


def _digest(text: str) -> Digest:
    return Digest("sha256", hashlib.sha256(text.encode()).hexdigest())


def _image(number: int) -> tuple[StoreImage, ImageReference]:
    names = [f"shared {number % _SHARED}", *(f"{number} {height}" for height in range(_OWN_LAYERS))]
    layers = tuple(Descriptor("application/vnd.oci.image.layer.v1.tar+gzip", _digest(f"packed {name}"), 1) for name in names)
    config = json.dumps({"created": "2026-01-01T00:00:00Z", "rootfs": {"diff_ids": [str(_digest(name)) for name in names]}})
    described = Descriptor("application/vnd.oci.image.config.v1+json", _digest(config), len(config))
    raw = json.dumps({"config": str(described.digest), "layers": [str(layer.digest) for layer in layers]}).encode()
    manifest = ImageManifest("application/vnd.oci.image.manifest.v1+json", described, layers)
    name = ImageReference.parse(f"docker.io/user{number // 100:04}/image{number // 5 % 20}:{number % 5}")
    return StoreImage(Digest.of(raw), raw, manifest, config.encode()), name


def _publish(stratum0: Stratum0, numbers: list[int]) -> None:
    images = [_image(number) for number in numbers]
    documents: dict[Digest, bytes] = {}
    for image, _ in images:
        for layer in image.manifest.layers:
            documents[layer.digest] = layers_json(layer.digest, layer.digest, 1, 0, notes=NO_NOTES)
    with Transaction(stratum0.repository) as transaction:
        with stratum0.pipeline.intake() as intake:
            tickets = {layer: intake.add_bytes(document) for layer, document in documents.items()}
        for digest, ticket in tickets.items():
            for path in layout.layer_catalogs(digest):
                transaction.make_catalog(path)
            transaction.put_file(layout.layers_document(digest), Entry(mode=0o100644, size=ticket.size, content=ticket.content))
        store = PodmanStore(transaction, stratum0.pipeline, time.time())
        for image, name in images:
            store.add(image)
            store.name(name, image.manifest.config.digest)
            transaction.put_symlink(layout.public_link(name), layout.link_target(name, image.manifest.config.digest))
        store.save()
        transaction.commit()


def _steps(images: list[int], samples: int, directory: Path) -> Iterator[tuple[int, float, int, str]]:
    """Number of images before the samples, CPU milliseconds, stored bytes, and what else is to be said."""
    data = DataDirectory(directory)
    storage = Storage(LocalObjectStore(data.cvmfs / _FQRN), f"/cvmfs/{_FQRN}", 1)
    settings = RepositorySettings("libdeflate-5")
    stratum0 = open_or_create(_FQRN, storage, data, settings, PipelineLimits(), whitelist_lifetime=timedelta(days=30))
    held = 0
    with stratum0.pipeline:
        for wanted in images:
            while held < wanted:
                _publish(stratum0, list(range(held, min(held + _BATCH, wanted))))
                held = min(held + _BATCH, wanted)
            cpu, stored = [], []
            before = held
            for _ in range(samples):
                bytes_before = sum(item.size for item in stratum0.repository.store.objects())
                begun = time.process_time()
                _publish(stratum0, [held])
                cpu.append((time.process_time() - begun) * 1000)
                stored.append(sum(item.size for item in stratum0.repository.store.objects()) - bytes_before)
                held += 1
            reader = stratum0.repository.reader()
            lists = [reader.lookup(path) for path in (podman.IMAGES_FILE, podman.LAYERS_FILE)]
            shown = ", ".join(f"{entry.size >> 10} KiB in {len(entry.chunks)} chunks" for entry in lists if entry)
            yield before, statistics.median(cpu), int(statistics.median(stored)), shown


def main() -> None:
    """Print one line a step."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--images", default="0,1000,10000")
    arguments.add_argument("--samples", type=int, default=10)
    given = arguments.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.2f}, {given.samples} samples a step")
    with tempfile.TemporaryDirectory(prefix="podman-store-cost.") as temporary:
        for held, cpu, stored, shown in _steps(sorted(map(int, given.images.split(","))), given.samples, Path(temporary)):
            print(f"{held:6} images: {cpu:7.1f} ms CPU, {stored >> 10:6} KiB stored; lists: {shown}", flush=True)


if __name__ == "__main__":
    main()
