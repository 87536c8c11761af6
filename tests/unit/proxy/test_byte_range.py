"""Ranges as clients ask for them."""

from __future__ import annotations

import pytest

from mirror.proxy.byte_range import ByteRange, RangeNotSatisfiable, parse_range


@pytest.mark.parametrize(
    ("header", "start", "end"),
    [
        ("bytes=0-", 0, 100),
        ("bytes=20-", 20, 100),
        ("bytes=20-29", 20, 30),
        ("bytes=20-1000", 20, 100),
        ("bytes=-10", 90, 100),
        ("bytes=-1000", 0, 100),
        ("Bytes = 5 - 6", 5, 7),
    ],
)
def test_one_range(header: str, start: int, end: int) -> None:
    found = parse_range(header, 100)

    assert found == ByteRange(start, end, 100)
    assert found.content_range == f"bytes {start}-{end - 1}/100"


@pytest.mark.parametrize("header", [None, "", "bytes=", "bytes=-", "items=1-2", "bytes=1-2,5-6", "bytes=9-2", "bytes=a-b"])
def test_what_is_ignored(header: str | None) -> None:
    assert parse_range(header, 100) is None


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=-0"])
def test_what_cannot_be_satisfied(header: str) -> None:
    with pytest.raises(RangeNotSatisfiable):
        parse_range(header, 100)


def test_nothing_has_no_ranges() -> None:
    assert parse_range("bytes=0-", 0) is None
