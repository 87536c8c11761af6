"""podmanStore as containers/storage reads it: ids, links, documents, names; images that come, move and go."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_MANIFEST, ImageManifest, parse_manifest
from mirror.oci.reference import ImageReference
from publisher.images import layout, podman
from publisher.images.place import PlacePolicy, place_images
from publisher.images.podman_store import PodmanStore
from publisher.images.remove import GoingImage, remove_images
from publisher.objects.compress import compressor
from publisher.objects.pipeline import Pipeline, PipelineLimits
from publisher.repository import Repository
from publisher.transaction import Transaction
from tests.support.placing import prepared
from tests.support.repositories import FQRN, NOW, new_repository, problems
from tests.support.small_images import Image, Layer, base_layer, file, tiny

ONE, TWO = "docker.io/library/one:1", "quay.io/x/two:2"


class Store:
    """A repository that images are published to."""

    def __init__(self, repository: Repository, pipeline: Pipeline) -> None:
        self.repository, self.pipeline = repository, pipeline

    def publish(self, image: Image, *names: str, listed: bool = True) -> None:
        with Transaction(self.repository) as transaction:
            image_prepared = prepared(self.pipeline, image, *names)
            place_images(transaction, self.pipeline, [image_prepared], NOW, PlacePolicy(podman_store=listed))
            transaction.commit()

    def remove(self, image: Image) -> None:
        with Transaction(self.repository) as transaction:
            store = PodmanStore(transaction, self.pipeline, NOW)
            store.remove(Digest.of(image.config))
            store.save()
            transaction.commit()

    def json(self, path: bytes) -> list[dict[str, Any]]:
        content = json.loads(self.repository.reader().read(path))
        assert isinstance(content, list)
        return content

    def image(self, image: Image) -> dict[str, Any] | None:
        identity = hashlib.sha256(image.config).hexdigest()
        found = [record for record in self.json(podman.IMAGES_FILE) if record["id"] == identity]
        return found[0] if found else None

    def names(self) -> dict[str, str]:
        """Config of the image that has the name; asserts that no name is in two records, which readers refuse."""
        pairs = [(name, record["id"]) for record in self.json(podman.IMAGES_FILE) for name in record.get("names", ())]
        assert len(pairs) == len(dict(pairs))
        return dict(pairs)

    def layers(self) -> dict[str, dict[str, Any]]:
        return {record["id"]: record for record in self.json(podman.LAYERS_FILE)}

    def paths(self) -> list[bytes]:
        return sorted(path for path, _ in self.repository.reader().walk(podman.STORE))

    def read(self, path: str) -> bytes:
        return self.repository.reader().read(self.real(path))

    def real(self, path: str) -> bytes:
        """Where a path below podmanStore leads, all links followed."""
        reader = self.repository.reader()
        done: list[str] = []
        left = ["podmanStore", *path.split("/")]
        while left:
            part = left.pop(0)
            if part == "..":
                done.pop()
                continue
            entry = reader.lookup("/".join([*done, part]).encode())
            assert entry is not None, (done, part)
            if entry.symlink.startswith(b"/"):
                done, left = [], [*entry.symlink.decode().removeprefix(f"/cvmfs/{FQRN}/").split("/"), *left]
            elif entry.symlink:
                left = [*entry.symlink.decode().split("/"), *left]
            else:
                done.append(part)
        return "/".join(done).encode()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    repository, memory = new_repository(tmp_path)
    with Pipeline(memory, compressor("zlib-1"), PipelineLimits()) as pipeline:
        yield Store(repository, pipeline)


def chain(image: Image) -> list[str]:
    """Layer ids as containers/image computes them: the text of the one below, a plus sign, the diff id."""
    ids: list[str] = []
    for layer in image.layers:
        diff = layer.diff_id.removeprefix("sha256:")
        ids.append(hashlib.sha256(f"{ids[-1]}+{diff}".encode()).hexdigest() if ids else diff)
    return ids


def test_an_image_is_listed_with_all_that_readers_look_for(store: Store) -> None:
    image = tiny()
    store.publish(image, ONE, TWO)
    record = store.image(image)
    assert record is not None
    config, manifest = f"sha256:{hashlib.sha256(image.config).hexdigest()}", image.digest
    assert record["names"] == [ONE, TWO]
    assert record["digest"] == manifest
    assert record["layer"] == chain(image)[-1]
    assert record["big-data-digests"] == {"manifest": manifest, f"manifest-{manifest}": manifest, config: config}
    assert set(record["big-data-names"]) == set(record["big-data-sizes"]) == set(record["big-data-digests"])
    directory = f"overlay-images/{record['id']}"
    assert store.read(f"{directory}/manifest") == image.manifest
    for key, content in {config: image.config, f"manifest-{manifest}": image.manifest}.items():
        assert store.read(f"{directory}/=" + base64.b64encode(key.encode()).decode()) == content
        assert record["big-data-sizes"][key] == len(content)
    for lock in ("overlay-images/images.lock", "overlay-layers/layers.lock"):
        assert store.read(lock) == b""
    assert problems(store.repository) == []


def test_layers_are_chained_and_lead_to_the_unpacked_ones(store: Store) -> None:
    image = tiny()
    store.publish(image, ONE)
    bottom, top = chain(image)
    layers = store.layers()
    assert set(layers) == {bottom, top}
    assert layers[top]["parent"] == bottom
    assert "parent" not in layers[bottom]
    for identity, layer in zip((bottom, top), image.layers, strict=True):
        record = layers[identity]
        assert record["diff-digest"] == layer.diff_id
        assert record["compressed-diff-digest"] == str(Digest.of(layer.packed))
        assert record["compressed-size"] == len(layer.packed)
        assert record["diff-size"] > 0
        assert record["compression"] == (2 if identity == bottom else 0)
        link = store.read(f"overlay/{identity}/link").decode()
        assert len(link) == 26
        unpacked = layout.layer_root(Digest.of(layer.packed))
        assert store.real(f"overlay/l/{link}") == store.real(f"overlay/{identity}/diff") == unpacked
    assert store.read(f"overlay/{top}/lower").decode() == "l/" + store.read(f"overlay/{bottom}/link").decode()
    assert store.repository.reader().lookup(podman.chain_directory(bottom) + b"/lower") is None


def test_a_layer_on_top_of_others_is_another_layer(store: Store) -> None:
    first, second, shared = base_layer(), Layer.of(file("second", b"2")), Layer.of(file("top", b"t"))
    store.publish(Image((first, shared)), ONE)
    store.publish(Image((second, shared, shared)), TWO)
    assert len(store.layers()) == 5
    ids = chain(Image((second, shared, shared)))
    below = [store.read(f"overlay/{identity}/link").decode() for identity in ids]
    assert store.read(f"overlay/{ids[2]}/lower").decode() == f"l/{below[1]}:l/{below[0]}", "the nearest first"
    assert store.real(f"overlay/{ids[2]}/diff") == layout.layer_root(Digest.of(shared.packed))


def test_a_name_that_moves_is_never_in_two_records(store: Store) -> None:
    store.publish(tiny("old"), ONE, TWO)
    store.publish(tiny("new"), ONE)
    assert store.names() == {
        ONE: hashlib.sha256(tiny("new").config).hexdigest(),
        TWO: hashlib.sha256(tiny("old").config).hexdigest(),
    }
    store.publish(tiny("old"), ONE)
    assert set(store.names().values()) == {hashlib.sha256(tiny("old").config).hexdigest()}


def test_names_follow_even_while_nothing_is_added(store: Store) -> None:
    store.publish(tiny("old"), ONE)
    store.publish(tiny("unlisted"), ONE, listed=False)
    assert store.names() == {}
    assert store.image(tiny("unlisted")) is None
    store.publish(tiny("old"), ONE, listed=False)
    assert store.names() == {ONE: hashlib.sha256(tiny("old").config).hexdigest()}


def test_without_the_setting_there_is_no_store(store: Store) -> None:
    store.publish(tiny(), ONE, listed=False)
    assert store.repository.reader().lookup(podman.STORE) is None


def test_an_image_that_was_there_before_the_setting_is_added_when_it_gets_a_name(store: Store) -> None:
    store.publish(tiny(), ONE, listed=False)
    store.publish(tiny(), TWO)
    assert set(store.names()) == {TWO}
    assert len(store.layers()) == 2


def test_another_manifest_of_the_same_image_is_kept_beside_the_first(store: Store) -> None:
    image = tiny()
    packed_anew = Image((image.layers[0], Layer(*_compressed(image.layers[1]))), settings=image.settings)
    assert packed_anew.config == image.config
    assert packed_anew.digest != image.digest
    store.publish(image, ONE)
    store.publish(packed_anew, TWO)
    record = store.image(image)
    assert record is not None
    assert record["names"] == [ONE, TWO]
    assert {key for key in record["big-data-names"] if key.startswith("manifest-")} == {
        f"manifest-{image.digest}", f"manifest-{packed_anew.digest}"
    }  # fmt: skip
    assert store.read(f"overlay-images/{record['id']}/manifest") == packed_anew.manifest


def _compressed(layer: Layer) -> tuple[bytes, str, str]:
    import gzip

    return gzip.compress(layer.packed, mtime=0), layer.diff_id, "application/vnd.oci.image.layer.v1.tar+gzip"


def test_an_image_goes_with_the_layers_that_no_other_has(store: Store) -> None:
    store.publish(tiny("stays"), ONE)
    before = store.paths(), store.json(podman.IMAGES_FILE), store.layers()
    goes = Image((*tiny("goes").layers, Layer.of(file("x", b"x")), Layer.of(file("y", b"y"))))
    store.publish(goes, TWO)
    store.publish(goes, TWO)
    assert len(store.layers()) == 5
    store.remove(goes)
    assert (store.paths(), store.json(podman.IMAGES_FILE), store.layers()) == before
    store.remove(goes)
    store.remove(tiny("stays"))
    assert store.json(podman.IMAGES_FILE) == store.json(podman.LAYERS_FILE) == []
    assert problems(store.repository) == []


def test_a_layer_stays_as_long_as_the_store_points_to_it(store: Store) -> None:
    first = tiny()
    packed_anew = Image((first.layers[0], Layer(*_compressed(first.layers[1]))), settings=first.settings)
    store.publish(first, ONE)
    store.publish(packed_anew, TWO)
    for image in (first, packed_anew):
        manifest = parse_manifest(image.manifest, OCI_MANIFEST)
        assert isinstance(manifest, ImageManifest)
        with Transaction(store.repository) as transaction:
            remove_images(transaction, store.pipeline, [GoingImage(Digest.of(image.manifest), manifest)], NOW)
            transaction.commit()
        for layer in store.layers():
            assert store.repository.reader().lookup(store.real(f"overlay/{layer}/diff")) is not None
    assert store.layers() == {}


def test_a_name_is_forgotten_with_its_link(store: Store) -> None:
    store.publish(tiny(), ONE, TWO)
    with Transaction(store.repository) as transaction:
        podman_store = PodmanStore(transaction, store.pipeline, NOW)
        podman_store.forget(ImageReference.parse(ONE))
        podman_store.forget(ImageReference.parse("docker.io/library/absent:1"))
        podman_store.save()
        transaction.commit()
    assert set(store.names()) == {TWO}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-05-06T07:08:09.123456789Z", "2024-05-06T07:08:09.123456Z"),
        ("2024-05-06T07:08:09+02:00", "2024-05-06T05:08:09.000000Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000000Z"),
        ("0001-01-01T00:00:00+23:00", "1970-01-01T00:00:05.000000Z"),
        ("2024-05-06", "1970-01-01T00:00:05.000000Z"),
        ("yesterday", "1970-01-01T00:00:05.000000Z"),
        (None, "1970-01-01T00:00:05.000000Z"),
        (17, "1970-01-01T00:00:05.000000Z"),
    ],
)
def test_only_times_that_readers_take_are_written(text: object, expected: str) -> None:
    """One bad time makes the whole list unreadable."""
    assert podman.creation_time(text, 5.0) == expected
