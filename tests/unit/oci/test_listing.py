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
    referrers_page,
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
    page = referrers_page([signature, bill, signature], None, None)
    assert json.loads(page.index) == {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [signature, bill]}
    assert page.last is None
    assert parse_referrers(referrers_page([signature, bill], "application/sbom", None).index) == [bill]
    assert parse_referrers(referrers_page([bill], "", None).index) == [bill]


@given(st.lists(st.integers(0, 300)), st.integers(1, 2000), st.sampled_from([None, "even"]))
def test_pages_of_referrers_make_the_whole_list_again_and_keep_their_bound(
    numbers: list[int], largest: int, wanted: str | None
) -> None:
    descriptors = [
        {"digest": str(Digest.of(bytes([number % 256]))), "artifactType": "odd" if number % 2 else "even"} for number in numbers
    ]
    found, last = [], None
    while True:
        page = referrers_page(descriptors, wanted, last, largest)
        inside = parse_referrers(page.index)
        assert len(page.index) <= largest or len(inside) <= 1
        found += inside
        if page.last is None:
            break
        assert last is None or page.last > last
        last = page.last
    digests = [descriptor["digest"] for descriptor in found]
    assert len(set(digests)) == len(digests)
    assert set(digests) == {listed["digest"] for listed in descriptors if wanted in (None, listed["artifactType"])}


@pytest.mark.parametrize("raw", [b"[]", b'{"manifests": 1}', b'{"manifests": ["a"]}'])
def test_nonsense_is_no_list_of_referrers(raw: bytes) -> None:
    with pytest.raises(InvalidInput):
        parse_referrers(raw)


def test_the_fallback_tag_of_a_digest() -> None:
    assert fallback_tag(Digest.parse("sha256:" + "ab" * 32)) == "sha256-" + "ab" * 32
    assert fallback_tag(Digest.parse("sha512:" + "ab" * 64)) == "sha512-" + "ab" * 32
