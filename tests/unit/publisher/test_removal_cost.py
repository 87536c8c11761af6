"""Removing an image is a matter of a few catalogs, whatever the image and the repository hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from publisher.cvmfs.cuts import CutLimits
from publisher.cvmfs.entry import Entry
from publisher.cvmfs.hash import ObjectKind
from publisher.transaction import Transaction
from tests.support.repositories import new_repository, problems, reopened
from tests.support.sample_tree import directory, put_content


def removal(place: Path, images: int, files: int) -> tuple[int, int, int]:
    """Catalogs read, objects written, and other objects touched when one of so many images, each with so many files, goes."""
    repository, store = new_repository(place)
    tree, content = directory(), put_content(store, b"content")
    for number in range(files):
        folder = tree.children.setdefault(b"folder%d" % (number // 20), directory())
        folder.children[b"file%d" % number] = Entry(mode=0o100644, size=7, content=content)  # type: ignore[union-attr]
    with Transaction(repository, limits=CutLimits(most=100, fewest=5)) as transaction:
        for place_ in (b".flat", b".flat/ab"):
            transaction.make_catalog(place_)
        for number in range(images):
            transaction.graft(b".flat/ab/%d" % number, tree)
        transaction.commit()
    repository = reopened(repository, place)
    store.gets.clear()
    store.puts.clear()
    with Transaction(repository) as transaction:
        assert transaction.remove(b".flat/ab/0")
        transaction.commit()
    catalogs = {content for content, kind in store.gets if kind is ObjectKind.CATALOG}
    others = [kind for _, kind in [*store.gets, *store.puts] if kind in {ObjectKind.DATA, ObjectKind.CHUNK}]
    result = len(catalogs), len(store.puts), len(others)
    assert problems(repository) == []
    return result


@pytest.mark.parametrize(("images", "files"), [(2, 10), (2, 2000), (60, 10)])
def test_removing_an_image_costs_metadata_only(tmp_path: Path, images: int, files: int) -> None:
    """The root catalog, the two above the image, and the image's topmost one are read; the first three are written anew."""
    assert removal(tmp_path, images, files) == (4, 3, 0)
