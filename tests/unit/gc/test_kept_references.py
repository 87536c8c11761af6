"""Which entries of a reference log were in use at some time."""

from __future__ import annotations

import pytest

from publisher.cvmfs.hash import ContentHash
from publisher.cvmfs.reflog import Reference, ReferenceType
from publisher.gc.kept import in_use_since


def reference(name: str, timestamp: int, kind: ReferenceType = ReferenceType.HISTORY) -> Reference:
    return Reference(ContentHash.of(name.encode()), kind, timestamp)


@pytest.mark.parametrize(
    ("timestamp", "since", "used"),
    [
        (150, 200, True),  # the publication of 200 put an end to it
        (150, 201, False),
        (199, 200, True),
        (200, 201, True),  # entered by the publication of 200, in use until 300
        (200, 300, True),
        (200, 301, False),
        (50, 100, True),
        (50, 101, False),
        (300, 300, True),  # as old as the current revision, but not of it
        (300, 301, False),
        (350, 350, True),  # of a publisher that died
        (350, 351, False),
    ],
)
def test_use_ends_with_the_next_publication(timestamp: int, since: float, used: bool) -> None:
    found = in_use_since([reference("x", timestamp)], [100, 200, 300], since)
    assert found == ([reference("x", timestamp)] if used else [])


def test_each_is_judged_by_itself() -> None:
    references = [reference(str(timestamp), timestamp) for timestamp in (10, 110, 210, 310)]
    assert in_use_since(references, [100, 200, 300], 200) == references[1:]
    assert in_use_since([], [100], 0) == []
