"""When an upstream is left alone, for how long, and what brings it back."""

from __future__ import annotations

import pytest

from mirror.upstream.breaker import CircuitBreaker, CircuitChange, Verdict
from mirror.upstream.model import BreakerPolicy, Failure
from tests.support.state import Clock

POLICY = BreakerPolicy(failures=3, pause=2, longest_pause=10, longest_retry_after=100)


class Breaker(CircuitBreaker):
    """With a clock to turn, and a memory of its changes."""

    def __init__(self, policy: BreakerPolicy = POLICY) -> None:
        self.clock = Clock()
        self.changes: list[CircuitChange] = []
        super().__init__(policy, self.clock, self.changes.append)

    def fail(self, times: int = 1, failure: Failure = Failure.UNREACHABLE, *, retry_after: float | None = None) -> None:
        for _ in range(times):
            self.failed(failure, failure.value, retry_after=retry_after)


def test_it_opens_after_so_many_failures_in_a_row() -> None:
    breaker = Breaker()
    breaker.fail(2)
    breaker.succeeded()
    breaker.fail(2)
    assert breaker.admit() is Verdict.GO
    breaker.fail()
    assert breaker.admit() is Verdict.REFUSE
    assert breaker.seconds_left == 2
    assert breaker.changes == [CircuitChange(is_open=True, reason="unreachable", seconds=2)]


@pytest.mark.parametrize(
    ("failure", "counts"),
    [
        (Failure.UNREACHABLE, True),
        (Failure.TIMEOUT, True),
        (Failure.LOST, True),
        (Failure.ERROR, True),
        (Failure.THROTTLED, True),
        (Failure.PROTOCOL, False),
    ],
)
def test_nonsense_is_an_answer_too(failure: Failure, *, counts: bool) -> None:
    breaker = Breaker()
    breaker.fail(3, failure)
    assert breaker.is_open is counts


def test_one_probe_goes_when_the_pause_is_over_and_the_rest_waits_for_it() -> None:
    breaker = Breaker()
    breaker.fail(3)
    due = []
    for seconds in (1.9, 0.1):
        breaker.clock.advance(seconds)
        due.append(breaker.is_due)
    assert due == [False, True]
    assert [breaker.admit() for _ in range(3)] == [Verdict.PROBE, Verdict.WAIT, Verdict.WAIT]
    assert breaker.is_open
    breaker.succeeded(probe=True)
    assert breaker.admit() is Verdict.GO
    assert [change.is_open for change in breaker.changes] == [True, False]


def test_pauses_double_up_to_the_longest_and_begin_anew_after_a_success() -> None:
    breaker = Breaker()
    breaker.fail(3)
    pauses = [breaker.seconds_left]
    for _ in range(4):
        breaker.clock.now += breaker.seconds_left
        assert breaker.admit() is Verdict.PROBE
        breaker.failed(Failure.TIMEOUT, "silent", probe=True)
        pauses.append(breaker.seconds_left)
    assert pauses == [2, 4, 8, 10, 10]
    assert breaker.reason == "silent"
    assert len(breaker.changes) == 1  # it was open all the time
    breaker.clock.now += 10
    breaker.admit()
    breaker.succeeded(probe=True)
    breaker.fail(3)
    assert breaker.seconds_left == 2


def test_a_probe_that_is_given_up_leaves_its_place_to_the_next_request() -> None:
    breaker = Breaker()
    breaker.fail(3)
    breaker.clock.now += 2
    assert breaker.admit() is Verdict.PROBE
    breaker.abandoned()
    assert breaker.admit() is Verdict.PROBE


def test_late_failures_neither_end_a_probe_nor_lengthen_a_pause() -> None:
    breaker = Breaker()
    breaker.fail(3)
    breaker.clock.now += 1
    breaker.fail(5)
    assert breaker.seconds_left == 1
    breaker.clock.now += 1
    breaker.admit()
    breaker.fail()
    assert breaker.admit() is Verdict.WAIT


def test_any_answer_shows_that_an_upstream_is_back() -> None:
    breaker = Breaker()
    breaker.fail(3)
    breaker.succeeded(transfer=True)
    assert breaker.admit() is Verdict.GO


@pytest.mark.parametrize(("asked", "kept"), [(7, 7), (1, 2), (1000, 100)])
def test_an_upstream_that_says_when_to_come_back_is_obeyed_at_once_within_bounds(asked: float, kept: float) -> None:
    breaker = Breaker()
    breaker.fail(failure=Failure.THROTTLED, retry_after=asked)
    assert breaker.is_throttled
    assert breaker.seconds_left == kept


def test_a_server_error_that_says_so_counts_once_and_lengthens_the_pause() -> None:
    breaker = Breaker()
    breaker.fail(2, Failure.ERROR, retry_after=30)
    assert not breaker.is_open
    breaker.fail(1, Failure.ERROR, retry_after=30)
    assert breaker.seconds_left == 30


def test_an_upstream_that_throttles_still_gives_the_blobs_of_what_it_gave_before() -> None:
    breaker = Breaker()
    breaker.fail(3, Failure.THROTTLED)
    assert breaker.admit(transfer=True) is Verdict.GO
    assert breaker.admit() is Verdict.REFUSE
    breaker.succeeded(transfer=True)  # says nothing of manifests
    assert breaker.admit() is Verdict.REFUSE


def test_no_number_of_probes_overflows() -> None:
    breaker = Breaker()
    breaker.fail(3)
    for _ in range(3000):
        breaker.clock.now += 10
        breaker.admit()
        breaker.failed(Failure.ERROR, "", probe=True)
    assert breaker.seconds_left == 10


def test_a_repository_that_is_broken_keeps_nobody_from_another_one() -> None:
    breaker = Breaker()
    for _ in range(3):
        breaker.failed(Failure.ERROR, "status 500", "bad")
    assert breaker.admit("bad") is Verdict.REFUSE
    assert breaker.is_due
    assert breaker.admit("good") is Verdict.PROBE
    assert [breaker.admit(name) for name in ("bad", "other")] == [Verdict.WAIT, Verdict.WAIT]
    breaker.succeeded(probe=True)
    assert breaker.admit("bad") is Verdict.GO


def test_where_another_repository_fails_as_well_the_upstream_is_left_alone() -> None:
    breaker = Breaker()
    for _ in range(3):
        breaker.failed(Failure.ERROR, "status 500", "bad")
    breaker.admit("good")
    breaker.failed(Failure.ERROR, "status 500", "good", probe=True)
    assert [breaker.admit(name) for name in ("bad", "good", "other")] == [Verdict.REFUSE] * 3
    assert not breaker.is_due


@pytest.mark.parametrize(
    "failures",
    [
        [(Failure.ERROR, "a"), (Failure.ERROR, "b"), (Failure.ERROR, "a")],
        [(Failure.ERROR, "a"), (Failure.TIMEOUT, "a"), (Failure.ERROR, "a")],
        [(Failure.UNREACHABLE, "a")] * 3,
    ],
)
def test_what_is_not_about_one_repository_concerns_all(failures: list[tuple[Failure, str]]) -> None:
    breaker = Breaker()
    for failure, repository in failures:
        breaker.failed(failure, "", repository)
    assert [breaker.admit(name) for name in ("a", "b", "c")] == [Verdict.REFUSE] * 3
