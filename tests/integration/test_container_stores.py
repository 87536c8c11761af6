"""podmanStore, read by the real containers/storage; and the kernel's overlayfs over our layers, next to our own merge of them."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from mirror.oci.digest import Digest
from publisher.creation import create_repository
from publisher.images import layout
from publisher.images.place import PlacePolicy, place_images
from publisher.objects.compress import compressor
from publisher.objects.local import LocalObjectStore
from publisher.objects.pipeline import Pipeline, PipelineLimits
from publisher.repository import Repository
from publisher.spool import RepositorySettings
from publisher.transaction import Transaction
from tests.support import comparison
from tests.support.container_store import Seen, look
from tests.support.placing import prepared
from tests.support.small_images import Image, Layer, base_layer, directory, file, link, tiny
from tests.support.unpacked import Found

FQRN = "stores.example.org"

LAYERED = Image(
    (
        base_layer(),
        Layer.of(directory("etc"), file("etc/.wh..wh..opq"), file("etc/only", b"left"), file("usr/bin/.wh.hello")),
        Layer.of(file(".wh.bin"), directory("opt"), file("opt/a", b"1"), file("opt/b", b"2")),
        Layer.of(file(".wh.opt"), directory("opt"), file("opt/c", b"3"), link("opt/d", "opt/c", b"1")),
        Layer.of(file("usr", b"a file over a directory")),
        Layer.of(file(".wh.usr"), directory("usr", mode=0o1777), file("usr/new", b"again", uid=7, gid=8)),
    )
)
IMAGES = {
    "docker.io/library/one:1": tiny("one"),
    "quay.io/two/two:2": tiny("two"),
    "docker.io/library/layered:latest": LAYERED,
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Repository]]:
    place = tmp_path_factory.mktemp("stores")
    storage = LocalObjectStore(place / FQRN)
    settings = RepositorySettings("libdeflate-1")
    made = create_repository(FQRN, storage, keys=place / "keys", spool=place / "spool", settings=settings)
    with Pipeline(storage, compressor("libdeflate-1"), PipelineLimits()) as pipeline:
        for name, image in IMAGES.items():
            with Transaction(made) as transaction:
                place_images(transaction, pipeline, [prepared(pipeline, image, name)], 1.0, PlacePolicy(podman_store=True))
                transaction.commit()
        yield place, made


@pytest.fixture(scope="module")
def seen(repository: tuple[Path, Repository], tmp_path_factory: pytest.TempPathFactory) -> Seen:
    place, _ = repository
    # Where temporary files are in a container's own overlay, the kernel takes no further one over them; memory is fine.
    with TemporaryDirectory(dir="/dev/shm") as memory:
        for work in (tmp_path_factory.mktemp("work"), Path(memory)):
            found = look(place / FQRN, FQRN, place / "keys" / f"{FQRN}.pub", work, list(IMAGES))
            if found.roots is not None:
                return found
    pytest.skip("this machine's kernel takes no overlayfs, neither over its temporary directory nor over memory")


def test_images_are_listed_by_their_names(seen: Seen) -> None:
    assert seen.images == {Digest.of(image.config).hex[:12]: [name] for name, image in IMAGES.items()}


def test_manifests_are_the_registrys_to_the_byte(seen: Seen) -> None:
    assert seen.manifests == {name: image.manifest for name, image in IMAGES.items()}


@pytest.mark.parametrize("name", IMAGES)
def test_the_kernel_makes_the_same_of_the_layers_as_we_do(repository: tuple[Path, Repository], seen: Seen, name: str) -> None:
    reader = repository[1].reader()
    flat = reader.tree(layout.flat_root(Digest.of(IMAGES[name].config)))
    assert seen.roots is not None
    published = comparison.published(flat, reader.snapshot.content)
    assert comparison.image_differences(seen.roots[name], {path: _on_a_disk(found) for path, found in published.items()}) == []


def _on_a_disk(found: Found) -> Found:
    """Where links have no mode of their own."""
    return replace(found, mode=stat.S_IFLNK | 0o777) if stat.S_ISLNK(found.mode) else found
