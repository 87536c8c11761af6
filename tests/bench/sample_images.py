"""Whole images to measure with, made once of real files and kept, as OCI layouts that skopeo can push."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tests.bench import sample_layers
from tests.support.registry_client import OCI_CONFIG, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST, digest_of
from tests.support.zoo import cache_directory

_PACKAGES = 7
"""Layers of files that Debian packages have installed on this machine."""
_ENTRIES = 6_700
"""Of each of them."""
_LARGEST = 4 << 20
_RECIPE = f"whole images, {_PACKAGES} x {_ENTRIES} entries, files up to {_LARGEST}"


@dataclass(frozen=True)
class WholeImages:
    """An OCI layout with tags, and the layers of each tag, lowest first.

    `ten` has ten layers and about 60,000 entries; `next` differs from it in its last, small layer only; `three` is a Debian base
    system, a Python stack and a small layer.
    """

    layout: Path
    layers: dict[str, list[Path]]


def whole_images() -> WholeImages:
    """Built if they are not there."""
    kept = cache_directory() / f"whole-{hashlib.sha256(_RECIPE.encode()).hexdigest()[:16]}"
    if not kept.exists():
        unfinished = kept.with_suffix(".new")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        _build(unfinished)
        unfinished.rename(kept)
    index = json.loads((kept / "index.json").read_bytes())
    layers = {}
    for image in index["manifests"]:
        manifest = json.loads(_blob(kept, image["digest"]).read_bytes())
        tag = image["annotations"]["org.opencontainers.image.ref.name"]
        layers[tag] = [_blob(kept, layer["digest"]) for layer in manifest["layers"]]
    return WholeImages(kept, layers)


def _build(layout: Path) -> None:
    (layout / "blobs/sha256").mkdir(parents=True)
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    base, python = (_add_file(layout, blob) for blob in (sample_layers.debian_layer(), sample_layers.python_layer()))
    files = _installed_files()
    packages = [_add_archive(layout, list(islice(files, _ENTRIES))) for _ in range(_PACKAGES)]
    small, other = (_add_archive(layout, [Path(name)]) for name in ("/etc/hostname", "/etc/os-release"))
    stack = [base, python, *packages]
    images = {"ten": [*stack, small], "next": [*stack, other], "three": [base, python, small]}
    manifests = [_add_image(layout, tag, layers) for tag, layers in images.items()]
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}
    (layout / "index.json").write_text(json.dumps(document))


def _installed_files() -> Iterator[Path]:
    for top in ("/usr/share", "/usr/lib", "/usr/include"):
        for directory, names, files in os.walk(top):
            names.sort()
            yield Path(directory)
            for name in sorted(files):
                found = Path(directory, name).lstat()
                if stat.S_ISLNK(found.st_mode) or (stat.S_ISREG(found.st_mode) and found.st_size <= _LARGEST):
                    yield Path(directory, name)


def _add_archive(layout: Path, paths: list[Path]) -> Path:
    unfinished = layout / "unfinished"
    with tarfile.open(unfinished, "w:gz", compresslevel=6) as archive:
        for path in paths:
            archive.add(path, recursive=False)
    return _add_file(layout, unfinished)


def _add_file(layout: Path, file: Path) -> Path:
    blob = _blob(layout, digest_of(file.read_bytes()))
    shutil.copyfile(file, blob)
    return blob


def _add_image(layout: Path, tag: str, layers: list[Path]) -> dict[str, object]:
    diff_ids = [str(sample_layers.diff_id(layer)) for layer in layers]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Labels": {"tag": tag}},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": _add_document(layout, config, OCI_CONFIG),
        "layers": [_descriptor(layer, OCI_LAYER_GZIP) for layer in layers],
    }
    return {**_add_document(layout, document, OCI_MANIFEST), "annotations": {"org.opencontainers.image.ref.name": tag}}


def _add_document(layout: Path, document: Mapping[str, object], media_type: str) -> dict[str, object]:
    raw = json.dumps(document).encode()
    blob = _blob(layout, digest_of(raw))
    blob.write_bytes(raw)
    return _descriptor(blob, media_type)


def _descriptor(blob: Path, media_type: str) -> dict[str, object]:
    return {"mediaType": media_type, "digest": f"sha256:{blob.name}", "size": blob.stat().st_size}


def _blob(layout: Path, digest: str) -> Path:
    return layout / "blobs" / "sha256" / digest.removeprefix("sha256:")
