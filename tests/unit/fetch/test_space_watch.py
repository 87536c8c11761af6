"""What /healthz says of the store's room."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirror.errors import StorageFull
from mirror.fetch.space import SpaceWatch
from mirror.store.blobs import BlobStore


class Place:
    """A store with so much room as is said, and a clock."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.room = 10
        store = BlobStore(directory, 0)
        monkeypatch.setattr(store, "check_space", self._check)
        self.watch = SpaceWatch(store, lambda: self.now)

    def _check(self, size: int) -> None:
        if size > self.room:
            raise StorageFull("no room")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path, monkeypatch)


def test_a_small_blob_that_is_kept_does_not_hide_that_a_large_one_was_not(place: Place) -> None:
    place.watch.not_kept("too full", 100)
    place.watch.kept(5)
    place.now += 3600
    assert place.watch.problem == "too full"
    place.watch.kept(100)
    assert place.watch.problem is None


def test_room_that_was_made_ends_the_problem_without_another_pull(place: Place) -> None:
    place.watch.not_kept("too full", 100)
    place.now += 3600
    assert place.watch.problem == "too full"
    place.room = 200
    assert place.watch.problem is None


def test_a_file_system_that_says_it_has_room_is_not_believed_at_once(place: Place) -> None:
    place.watch.not_kept("beyond the quota", 5)
    assert place.watch.problem == "beyond the quota"
    place.now += 61
    assert place.watch.problem is None
