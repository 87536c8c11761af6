"""Pages of tags and lists of referrers, as values."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.errors import InvalidInput
from mirror.oci.digest import Digest
from mirror.oci.listing import (
    fallback_tag,
    in_order,
    link_to_next,
    next_page,
    page_of,
    parse_count,
    parse_referrers,
    parse_tag_list,
    referrers_index,
)
from mirror.oci.manifest import OCI_INDEX


@pytest.mark.parametrize(
    ("headers", "target"),
    [
        (['</v2/a/tags/list?last=b&n=2>; rel="next"'], "/v2/a/tags/list?last=b&n=2"),
        (["<https://hub.test/v2/x>; rel=next"], "https://hub.test/v2/x"),
        (['<a>; rel="prev", <b>; title="x; rel=next"; rel="last next"'], "b"),
        (['<a>; rel="prev"', '<b>;rel="NEXT"'], "b"),
        (['<a>; rel="nextish"'], None),
        (['<a>; title="rel=next"'], None),
        (["<a>"], None),
        (["nonsense; rel=next"], None),
        ([], None),
    ],
)
def test_the_link_to_the_next_page(headers: list[str], target: str | None) -> None:
    assert next_page(headers) == target


def test_our_own_link_is_read_back() -> None:
    link = link_to_next("/v2/team/app/tags/list", {"n": "2", "last": "v1", "ns": "hub.test"})
    assert next_page([link]) == "/v2/team/app/tags/list?n=2&last=v1&ns=hub.test"


def test_tags_come_each_once_in_the_order_of_ascii() -> None:
    assert in_order(["b", "B", "a10", "a2", "_x", "b", "1.0"]) == ("1.0", "B", "_x", "a10", "a2", "b")


@given(st.lists(st.text("aAbB10._-", min_size=1, max_size=4)), st.integers(1, 5))
def test_pages_make_the_whole_list_again(tags: list[str], count: int) -> None:
    whole = in_order(tags)
    found: list[str] = []
    last = None
    while True:
        page = page_of(whole, count, last)
        assert len(page.tags) <= count
        found += page.tags
        if not page.more:
            break
        last = page.tags[-1]
    assert tuple(found) == whole


def test_a_page_may_begin_behind_a_tag_that_is_gone() -> None:
    assert page_of(("a", "c", "d"), 1, "b").tags == ("c",)


def test_no_tags_wanted_is_no_tags_and_no_next_page() -> None:
    page = page_of(("a", "b"), 0, None)
    assert (page.tags, page.more) == ((), False)


@pytest.mark.parametrize("text", ["-1", "1.5", "", "x", "٣", "9" * 10])
def test_a_count_that_is_no_number(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_count(text)


def test_what_nobody_can_pull_is_not_listed() -> None:
    assert parse_tag_list(b'{"name": "a", "tags": ["1", "", "-x", 3, null, "a b", "ok"]}') == ["1", "ok"]
    assert parse_tag_list(b'{"name": "a", "tags": null}') == []


@pytest.mark.parametrize("raw", [b"", b"[]", b'{"tags": {}}', b'{"tags": "a"}', b"\xff", b"[" * 100_000])
def test_nonsense_is_no_tag_list(raw: bytes) -> None:
    with pytest.raises(InvalidInput):
        parse_tag_list(raw)


def test_referrers_are_selected_by_type_and_come_once() -> None:
    signature = {"digest": "sha256:1", "artifactType": "application/sig", "annotations": {"x": "é"}}
    bill = {"digest": "sha256:2", "artifactType": "application/sbom", "unknown": [1]}
    document = json.loads(referrers_index([signature, bill, signature], None))
    assert document == {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [signature, bill]}
    assert json.loads(referrers_index([signature, bill], "application/sbom"))["manifests"] == [bill]
    assert parse_referrers(referrers_index([bill], "")) == [bill]


@pytest.mark.parametrize("raw", [b"[]", b'{"manifests": 1}', b'{"manifests": ["a"]}'])
def test_nonsense_is_no_list_of_referrers(raw: bytes) -> None:
    with pytest.raises(InvalidInput):
        parse_referrers(raw)


def test_the_fallback_tag_of_a_digest() -> None:
    assert fallback_tag(Digest.parse("sha256:" + "ab" * 32)) == "sha256-" + "ab" * 32
    assert fallback_tag(Digest.parse("sha512:" + "ab" * 64)) == "sha512-" + "ab" * 32
