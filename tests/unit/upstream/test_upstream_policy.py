"""When something is tried again."""

from __future__ import annotations

import pytest

from mirror.upstream.model import Failure
from mirror.upstream.policy import RetryPolicy, is_server_error, is_transient, parse_retry_after

POLICY = RetryPolicy(attempts=4, first_delay=1.0, longest_delay=5.0)


def test_pauses_grow_to_a_bound_and_end() -> None:
    assert [POLICY.delay(failures, 1.0) for failures in (1, 2, 3, 4)] == [1.0, 2.0, 4.0, None]
    assert RetryPolicy(attempts=10**9, first_delay=1.0, longest_delay=5.0).delay(10**6, 1.0) == 5.0


def test_dice_spread_the_load_but_never_by_more_than_half() -> None:
    assert POLICY.delay(2, 0.0) == 1.0
    assert POLICY.delay(2, 0.5) == 1.5


def test_the_upstreams_own_pause_is_kept_or_too_long() -> None:
    assert POLICY.delay(1, 0.0, retry_after=3.0) == 3.0
    assert POLICY.delay(1, 0.0, retry_after=60.0) is None


def test_only_what_a_repetition_may_cure_is_repeated() -> None:
    assert {failure for failure in Failure if is_transient(failure)} == {Failure.LOST, Failure.ERROR}
    assert is_server_error(503)
    assert not is_server_error(404)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        ("0", 0.0),
        ("Thu, 01 Jan 1970 00:20:00 GMT", 200.0),
        ("Thu, 01 Jan 1970 00:00:10 GMT", 0.0),
        ("99999999999999", 86_400.0),
        ("soon", None),
        ("", None),
        (None, None),
        ("-5", None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, 1000.0) == seconds
