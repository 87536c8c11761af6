"""How many pulls an upstream still grants, as it says, and what is kept for clients."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.upstream.budget import Budget, BudgetWatch, parse_budget
from tests.support.state import Clock


def headers(limit: str, remaining: str, source: str = "") -> dict[str, str]:
    return {"RateLimit-Limit": limit, "RateLimit-Remaining": remaining, "Docker-RateLimit-Source": source}


@pytest.mark.parametrize(
    ("limit", "remaining", "found"),
    [
        ("100;w=21600", "76;w=21600", Budget(100, 76, 21600)),
        ("100", "76", Budget(100, 76, 21600)),
        ("200; w=60", " 0", Budget(200, 0, 60)),
        ("100", "76;w=10", Budget(100, 76, 10)),
        ("100, 100;w=60, 1000;w=3600", "7", Budget(100, 7, 21600)),
        ('100;comment="x";w=5', "7", Budget(100, 7, 5)),
        ("10", "11", Budget(10, 10, 21600)),
        ("100;w=0", "1", Budget(100, 1, 21600)),
        ("0", "0", None),
        ("", "1", None),
        ("100", "", None),
        ("many", "1", None),
        ("-1", "1", None),
        ("1e3", "x", None),
    ],
)
def test_forms_in_which_it_is_stated(limit: str, remaining: str, found: Budget | None) -> None:
    assert parse_budget(headers(limit, remaining)) == found


def test_whose_it_is_stays_one_short_line() -> None:
    found = parse_budget(headers("1", "1", "192.0.2.7\r\n" + "x" * 1000))
    assert found is not None
    assert found.source.startswith("192.0.2.7xxx")
    assert len(found.source) == 100


@given(st.text(), st.text(), st.text())
def test_nothing_that_an_upstream_says_does_harm(limit: str, remaining: str, source: str) -> None:
    found = parse_budget(headers(limit, remaining, source))
    assert found is None or (0 <= found.remaining <= found.limit and found.window > 0)


def test_the_reserve_is_for_clients_as_long_as_the_word_counts() -> None:
    clock, news = Clock(), list[Budget]()
    watch = BudgetWatch(0.2, clock, news.append)
    low = [watch.is_low]
    watch.note(headers("100;w=600", "20;w=600"))
    low.append(watch.is_low)
    watch.note(headers("100;w=600", "19;w=600"))
    watch.note({})  # an answer without a word about it
    low.append(watch.is_low)
    clock.advance(599)
    low.append(watch.is_low)
    assert watch.age == 599
    clock.advance(1)
    assert [*low, watch.is_low] == [False, False, True, True, False]
    assert [budget.remaining for budget in news] == [20, 19]


def test_no_reserve_means_no_bound() -> None:
    watch = BudgetWatch(0.0, Clock())
    watch.note(headers("100", "0"))
    assert not watch.is_low
