"""Removing images leaves what would be there had they never been placed, and the next collection frees what only they had."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.oci.digest import Digest
from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.gc.collect import collect
from publisher.gc.policy import CollectionPolicy
from publisher.images.place import PreparedImage, place_images
from publisher.images.remove import GoingImage, Gone, manifest_in, remove_images
from publisher.objects.compress import compressor
from publisher.objects.pipeline import Pipeline, PipelineLimits
from publisher.repository import Repository
from publisher.transaction import Transaction
from tests.support.memory_store import MemoryStore
from tests.support.placing import prepared
from tests.support.repositories import NOW, Clock, new_repository, problems
from tests.support.small_images import Image, Layer, directory, file

LIMITS = PipelineLimits(threads=1)
LAYERS = [
    Layer.of(directory("etc"), file(f"etc/layer{number}", b"%d" % number * (number + 1) * 100), directory(f"only{number}"))
    for number in range(4)
]
NAMES = ("docker.io/library/a:1", "docker.io/library/a:2", "docker.io/other/b:1", "hub.test/a/deep/er:1", "hub.test/a:1")


@st.composite
def image_sets(draw: st.DrawFn) -> list[tuple[tuple[int, ...], int, frozenset[str]]]:
    """Images as layers, a variant of the manifest (the config is the same), and names; no two have a name in common."""
    stacks = st.lists(st.sampled_from(range(len(LAYERS))), min_size=1, max_size=3).map(tuple)
    images = draw(st.lists(st.tuples(stacks, st.integers(0, 1)), min_size=1, max_size=4, unique=True))
    owners = {name: draw(st.integers(0, len(images) - 1)) for name in NAMES}
    return [
        (stack, variant, frozenset(name for name, owner in owners.items() if owner == number))
        for number, (stack, variant) in enumerate(images)
    ]


def made(pipeline: Pipeline, stack: Sequence[int], variant: int, names: Iterable[str]) -> PreparedImage:
    image = prepared(pipeline, Image(tuple(LAYERS[number] for number in stack)), *sorted(names))
    if not variant:
        return image
    raw = json.dumps(json.loads(image.raw_manifest)).encode()
    return replace(image, raw_manifest=raw, digest=Digest.of(raw))


@contextmanager
def repository_with(
    images: Iterable[tuple[Sequence[int], int, Iterable[str]]], clock: Clock | None = None
) -> Iterator[tuple[Repository, MemoryStore, Pipeline]]:
    with tempfile.TemporaryDirectory() as place:
        repository, store = new_repository(Path(place), clock=clock or Clock())
        pipeline = Pipeline(store, compressor("zlib-6"), LIMITS)
        try:
            for stack, variant, names in images:
                if names:
                    with Transaction(repository) as transaction:
                        place_images(transaction, pipeline, [made(pipeline, stack, variant, names)], NOW)
                        transaction.commit()
            yield repository, store, pipeline
        finally:
            pipeline.close()


def going(pipeline: Pipeline, images: Iterable[tuple[Sequence[int], int, Iterable[str]]]) -> list[GoingImage]:
    made_ = [made(pipeline, stack, variant, names) for stack, variant, names in images]
    return [GoingImage(image.digest, image.manifest) for image in made_]


def removed(repository: Repository, pipeline: Pipeline, images: Sequence[GoingImage]) -> Gone:
    with Transaction(repository) as transaction:
        gone = remove_images(transaction, pipeline, images, NOW)
        transaction.commit()
    return gone


def facts(repository: Repository) -> dict[bytes, tuple[object, ...]]:
    """All that users see but times; fixed directories at the top stay when they are empty."""
    tree = repository.reader().tree()
    return {
        path: (entry.mode, entry.size, entry.content, entry.chunks, entry.symlink, entry.xattrs)
        for path, entry in tree.walk()
        if path not in (b".layers", b".flat", b".metadata")
    }


@settings(max_examples=12, deadline=None)
@given(image_sets(), st.data())
def test_what_is_left_is_what_would_be_there_without_them(
    images: list[tuple[tuple[int, ...], int, frozenset[str]]], data: st.DataObject
) -> None:
    published = [image for image in images if image[2]]
    leaving = data.draw(st.sets(st.sampled_from(range(len(published))), min_size=1))
    staying = [image for number, image in enumerate(published) if number not in leaving]
    with repository_with(staying) as (expected, _, _), repository_with(published) as (repository, _, pipeline):
        gone = removed(repository, pipeline, going(pipeline, [published[number] for number in leaving]))
        assert facts(repository) == facts(expected)
        assert set(gone.names) == {name for number in leaving for name in published[number][2]}
        assert problems(repository) == []


def content(store: MemoryStore) -> set[ContentHash]:
    return {stored.content for stored in store.objects() if stored.kind in (ObjectKind.DATA, ObjectKind.CHUNK)}


def test_a_collection_frees_what_only_the_removed_image_had() -> None:
    a, b = ((0, 1), 0, {NAMES[0]}), ((0, 2), 0, {NAMES[2]})
    clock = Clock()
    with repository_with([b]) as (_, expected, _), repository_with([a, b], clock) as (repository, store, pipeline):
        assert content(store) > content(expected)
        removed(repository, pipeline, going(pipeline, [a]))
        clock.now += 1000
        collect(repository, CollectionPolicy(revisions=0, age=0, grace=0))
        assert content(store) == content(expected)
        assert problems(repository) == []


def test_an_image_without_names_goes_by_its_manifest_and_one_that_is_gone_changes_nothing() -> None:
    old, new = ((0, 1), 0, {NAMES[0]}), ((0, 2), 0, {NAMES[0]})
    with repository_with([old, new]) as (repository, _, pipeline), repository_with([new]) as (expected, _, _):
        gone = removed(repository, pipeline, going(pipeline, [old]))
        assert gone.names == {}
        assert facts(repository) == facts(expected)
        revision = repository.manifest().revision
        assert removed(repository, pipeline, going(pipeline, [old])) == Gone()
        assert repository.manifest().revision == revision


def test_the_manifest_of_an_image_is_found_in_the_repository() -> None:
    a = ((0, 1), 1, {NAMES[3]})
    with repository_with([a]) as (repository, _, pipeline):
        (image,) = going(pipeline, [a])
        with Transaction(repository) as transaction:
            assert Digest.of(manifest_in(transaction, image.digest)) == image.digest


def test_removing_costs_metadata_only() -> None:
    """Of content it reads the manifests of names that lead to the same root, and documents of layers that are shared."""
    a, b = ((0, 1, 2), 0, {NAMES[0]}), ((0, 3), 0, {NAMES[2]})
    with repository_with([a, b]) as (repository, store, pipeline):
        image = going(pipeline, [a])
        store.gets.clear()
        store.puts.clear()
        removed(repository, pipeline, image)
        assert sum(kind is ObjectKind.DATA for _, kind in store.gets) <= 4
        assert sum(kind is ObjectKind.DATA for _, kind in store.puts) <= 1


def test_what_another_manifest_with_the_same_config_needs_stays() -> None:
    a, b = ((0, 1), 0, {NAMES[0]}), ((0, 1), 1, {NAMES[1]})
    with repository_with([a, b]) as (repository, _, pipeline), repository_with([b]) as (expected, _, _):
        gone = removed(repository, pipeline, going(pipeline, [a]))
        assert (gone.roots, gone.layers) == ([], [])
        assert facts(repository) == facts(expected)
