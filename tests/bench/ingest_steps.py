"""One measurement of unpacking in a process of its own: `python -m tests.bench.ingest_steps STEP DIRECTORY [BLOB...]`.

Prints one line of JSON. Steps: `layer` unpacks the blobs one after the other into one new storage; `one-file` publishes layers of
one file; `rows` writes catalogs; `memory` publishes a layer of 5 GB with 200,000 files.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import stat
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from mirror.oci.digest import Digest
from publisher.creation import create_repository
from publisher.cvmfs.builder import Stamp, build
from publisher.cvmfs.cuts import CutLimits
from publisher.cvmfs.entry import Directory, Entry
from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.layers.ingest import LayerResult, ingest_layer
from publisher.layers.limits import LayerLimits
from publisher.layers.packed import Readable
from publisher.objects.compress import DEFAULT_COMPRESSOR, compressor
from publisher.objects.known import KnownContent
from publisher.objects.local import LocalObjectStore
from publisher.objects.pipeline import Pipeline, PipelineLimits
from publisher.repository import Repository
from publisher.spool import RepositorySettings
from publisher.transaction import Transaction
from tests.bench import sample_layers

_LARGE, _LARGE_FILES = 5 << 30, 200_000
_ONE_FILE_SAMPLES = 25
_ROWS = 300_000


class MetadataStore(LocalObjectStore):
    """Keeps catalogs; of file content it only counts the bytes."""

    content_bytes = 0

    def put(self, content: ContentHash, kind: ObjectKind, stored: bytes | memoryview) -> bool:
        if kind in {ObjectKind.DATA, ObjectKind.CHUNK}:
            self.content_bytes += len(stored)
            return True
        return super().put(content, kind, stored)


def _pipeline(directory: Path, store: LocalObjectStore) -> Pipeline:
    limits = PipelineLimits()
    return Pipeline(store, compressor(DEFAULT_COMPRESSOR), limits, KnownContent(directory / "known.sqlite", limits.known))


def _ingest(blob: Readable, digest: Digest, pipeline: Pipeline) -> LayerResult:
    return ingest_layer(blob, digest, pipeline, LayerLimits())


def _repository(directory: Path, store: LocalObjectStore) -> Repository:
    settings = RepositorySettings(DEFAULT_COMPRESSOR)
    return create_repository("bench.example.org", store, keys=directory / "keys", spool=directory / "spool", settings=settings)


def _stored(store: LocalObjectStore) -> int:
    return sum(found.size for found in store.objects())


def _used() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _measured(work: Callable[[], object]) -> dict[str, float]:
    cpu, started = _used(), time.perf_counter()
    work()
    return {"seconds": time.perf_counter() - started, "cpu": _used() - cpu}


def layer(directory: Path, blobs: list[Path]) -> dict[str, Any]:
    """Each blob's figures, and what all of them together left in the storage."""
    store = LocalObjectStore(directory / "storage")
    digests = [sample_layers.diff_id(blob) for blob in blobs]
    figures = []
    with _pipeline(directory, store) as pipeline:
        for blob, digest in zip(blobs, digests, strict=True):
            with blob.open("rb") as packed:
                figures.append(_measured(partial(_ingest, packed, digest, pipeline)))
            figures[-1]["stored"] = _stored(store)
    return {"blobs": figures}


def one_file(directory: Path, _blobs: list[Path]) -> dict[str, Any]:
    """Medians of publishing a layer of one file, in a revision of its own, in a repository with nothing but such layers."""
    store = LocalObjectStore(directory / "storage")
    repository = _repository(directory, store)
    blob = sample_layers.single_file_layer()
    digest = Digest.of(blob)
    with _pipeline(directory, store) as pipeline:

        def publish(number: int) -> None:
            unpacked = _ingest(io.BytesIO(blob), digest, pipeline)
            with Transaction(repository) as transaction:
                transaction.graft(b"/layers/%d" % number, unpacked.tree)
                transaction.commit()

        samples = [_measured(partial(publish, number)) for number in range(_ONE_FILE_SAMPLES)]
    return {name: statistics.median(sample[name] for sample in samples) for name in samples[0]}


def rows(directory: Path, _blobs: list[Path]) -> dict[str, Any]:
    """Catalogs of a tree in memory: directories of 20 files, cut as the publisher's default says."""
    store = LocalObjectStore(directory / "storage")
    root = Directory(Entry(mode=stat.S_IFDIR | 0o755))
    for outer in range(_ROWS // 20 // 50):
        middle = Directory(Entry(mode=stat.S_IFDIR | 0o755))
        for inner in range(50):
            leaf = Directory(Entry(mode=stat.S_IFDIR | 0o755))
            for number in range(20):
                content = ContentHash(bytes([outer % 256, inner, number]) + os.urandom(17))
                leaf.children[b"file%02d.py" % number] = Entry(
                    mode=stat.S_IFREG | 0o644, size=1000, mtime=1_700_000_000, content=content
                )
            middle.children[b"dir%02d" % inner] = leaf
        root.children[b"package%04d" % outer] = middle
    count = sum(1 for _ in root.walk())
    figures = _measured(lambda: build(store, b"/tree", root, Stamp(1, 1_700_000_000), CutLimits()))
    return {**figures, "rows": count}


def memory(directory: Path, _blobs: list[Path]) -> dict[str, Any]:
    """The most memory that publishing a large layer takes."""
    store = MetadataStore(directory / "storage")
    repository = _repository(directory, store)
    digest = sample_layers.EndlessLayer(_LARGE, _LARGE_FILES).digest()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with _pipeline(directory, store) as pipeline:

        def publish() -> None:
            unpacked = _ingest(sample_layers.EndlessLayer(_LARGE, _LARGE_FILES), digest, pipeline)
            with Transaction(repository) as transaction:
                transaction.graft(b"/layer", unpacked.tree)
                transaction.commit()

        figures = _measured(publish)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {**figures, "before": before << 10, "most": after << 10, "stored": store.content_bytes}


def main() -> None:
    steps = {"layer": layer, "one-file": one_file, "rows": rows, "memory": memory}
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("step", choices=steps)
    arguments.add_argument("directory", type=Path)
    arguments.add_argument("blobs", type=Path, nargs="*")
    given = arguments.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    print(json.dumps(steps[given.step](given.directory, given.blobs)))


if __name__ == "__main__":
    main()
