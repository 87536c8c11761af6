from __future__ import annotations

from mirror.jobs.schedule import Candidate, RepositoryState, choose

ACTIVE, CLEANING, FULL = RepositoryState.ACTIVE, RepositoryState.CLEANING, RepositoryState.FULL


def test_the_repository_that_holds_most_of_the_image_gets_it() -> None:
    assert choose([Candidate("a", ACTIVE, held=10, stored=0), Candidate("b", ACTIVE, held=11, stored=10**12)]) == "b"


def test_the_names_of_an_image_stay_in_one_repository_as_long_as_that_is_open() -> None:
    most = Candidate("most", ACTIVE, held=10, stored=0)
    assert choose([most, Candidate("named", ACTIVE, held=0, stored=9, named=True)]) == "named"
    assert choose([most, Candidate("named", FULL, held=0, stored=9, named=True)]) == "most"


def test_among_equals_the_one_that_is_filled_least_gets_it() -> None:
    assert choose([Candidate("a", ACTIVE, held=0, stored=5), Candidate("b", ACTIVE, held=0, stored=4)]) == "b"
    assert choose([Candidate("b", ACTIVE, held=0, stored=5), Candidate("a", ACTIVE, held=0, stored=5)]) == "a"


def test_repositories_that_take_nothing_are_passed_over() -> None:
    closed = [
        Candidate("cleaning", CLEANING, held=99, stored=0),
        Candidate("full", FULL, held=99, stored=0),
        Candidate("away", ACTIVE, held=99, stored=0, away=True),
    ]
    assert choose([*closed, Candidate("open", ACTIVE, held=0, stored=10**12)]) == "open"
    assert choose(closed) is None
    assert choose([]) is None
