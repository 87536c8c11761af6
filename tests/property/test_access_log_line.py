"""Whatever a client sends, its request is one line of the access log that reads back as it was."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.errors import InvalidInput
from mirror.fetch.result import CacheResult
from mirror.report.accesslog import (
    LONGEST_LINE,
    LONGEST_TEXT,
    AccessRecord,
    RequestKind,
    format_line,
    parse_line,
)
from mirror.report.summary import Summary

hostile = st.one_of(
    st.text(st.characters(codec=None, categories=None), max_size=40),
    st.sampled_from(
        ["\n", '"}\n{"v":1', "\r\n", "\u2028", "\x00", "\x1b[2J", "\ud800", "a" * (LONGEST_TEXT + 1), "\U0001f40b" * 2000]
    ),
)
records = st.builds(
    AccessRecord,
    time=st.integers(0, 4_000_000_000_000).map(lambda milliseconds: milliseconds / 1000),
    client=hostile,
    method=hostile,
    path=hostile,
    kind=st.sampled_from(RequestKind),
    status=st.integers(100, 599),
    size=st.integers(0, 1 << 60),
    seconds=st.integers(0, 10**12).map(lambda microseconds: microseconds / 1_000_000),
    user=hostile,
    upstream=hostile,
    repository=hostile,
    reference=hostile,
    digest=hostile,
    media_type=hostile,
    cache=st.none() | st.sampled_from(CacheResult),
    state=hostile,
    agent=hostile,
    request_id=hostile,
)
TEXTS = (
    "client",
    "method",
    "path",
    "user",
    "upstream",
    "repository",
    "reference",
    "digest",
    "media_type",
    "state",
    "agent",
    "request_id",
)


def cut(record: AccessRecord) -> AccessRecord:
    return replace(record, **{name: getattr(record, name)[:LONGEST_TEXT] for name in TEXTS})


@given(records)
def test_line_reads_back_as_the_record(record: AccessRecord) -> None:
    assert parse_line(format_line(record)) == cut(record)


@given(records)
def test_line_is_one_line_of_ascii_within_bounds(record: AccessRecord) -> None:
    line = format_line(record)
    assert line.isascii()
    assert line.isprintable()
    assert len(line.splitlines()) == 1
    assert len(line) < LONGEST_LINE


@given(records, st.sampled_from(["v", "time", "client", "status", "bytes", "seconds", "kind", "cache", "id"]), st.data())
def test_a_wrong_member_is_refused_by_name(record: AccessRecord, key: str, data: st.DataObject) -> None:
    document = json.loads(format_line(record))
    document[key] = data.draw(
        st.sampled_from([None, [], {}, True, -1, "x" if key not in ("client", "id") else 5, float("nan"), 1e400])
    )
    with pytest.raises(InvalidInput, match="version" if key == "v" else f"'{key}'"):
        parse_line(json.dumps(document))


@given(st.binary(max_size=200))
def test_foreign_bytes_are_refused_as_a_bad_line(line: bytes) -> None:
    with pytest.raises(InvalidInput):
        parse_line(line)


@given(st.lists(records, max_size=30))
def test_no_request_is_lost_or_counted_twice_in_a_small_summary(items: list[AccessRecord]) -> None:
    summary = Summary(limit=3)
    for item in items:
        summary.add(item)
    content = [item for item in items if item.kind in (RequestKind.MANIFEST, RequestKind.BLOB)]
    for totals in (summary.by_user, summary.by_day):
        counted = [total for _, total in totals.items()] + [totals.others]
        assert sum(total.requests for total in counted) == len(content)
        assert sum(total.size for total in counted) == sum(item.size for item in content)
        assert len(totals) <= 3
