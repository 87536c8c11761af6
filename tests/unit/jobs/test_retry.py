from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.jobs.model import State
from mirror.jobs.retry import RetryPolicy

POLICY = RetryPolicy(first_pause=10, longest_pause=100, jitter=0.5, attempts=50, deaths=2, refused_pause=1000)


def test_pauses_double_up_to_the_longest() -> None:
    assert [POLICY.pause(attempts, 0.0) for attempts in range(1, 7)] == [10, 20, 40, 80, 100, 100]
    assert POLICY.pause(49, 0.0) == 100


def test_after_the_last_attempt_there_is_none() -> None:
    assert POLICY.pause(50, 0.0) is None


def test_an_upstream_may_ask_for_more_patience_within_bounds() -> None:
    assert POLICY.pause(1, 0.0, retry_after=60) == 60
    assert POLICY.pause(1, 0.0, retry_after=1) == 10
    assert POLICY.pause(1, 0.0, retry_after=1e9) == 100


@given(st.integers(1, 10**9), st.floats(0, 1), st.none() | st.floats(0, 1e12))
def test_every_pause_is_within_its_bounds(attempts: int, luck: float, retry_after: float | None) -> None:
    pause = RetryPolicy(attempts=10**9).pause(attempts, luck, retry_after)
    assert pause is None or 15.0 <= pause <= 6 * 3600 * 1.25


@pytest.mark.parametrize(
    ("state", "ready_at", "age", "name_waits", "again"),
    [
        (State.QUEUED, 5.0, 9999, True, False),
        (State.INGESTING, 5.0, 9999, True, False),
        (State.PUBLISHED, None, 9999, False, False),
        (State.PUBLISHED, None, 0, True, True),
        (State.FAILED, 99999.0, 9999, True, False),
        (State.FAILED, None, 0, True, True),
        (State.REFUSED, None, 999, True, False),
        (State.REFUSED, None, 1000, True, True),
        (State.EXPIRED, None, 0, False, True),
    ],
)
def test_what_a_pull_does_to_an_image(state: State, ready_at: float | None, age: float, name_waits: bool, again: bool) -> None:
    assert POLICY.queues_again(state, ready_at=ready_at, updated_at=500.0, name_waits=name_waits, now=500.0 + age) is again
