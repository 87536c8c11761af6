"""Headers of foreign servers and clients: whatever they hold, reading them ends and says something true."""

from __future__ import annotations

import contextlib
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from mirror.oci.accept import ANYTHING, EVERYTHING, MANIFEST_TYPES, parse_accept
from mirror.oci.challenge import parse_challenges
from mirror.proxy.byte_range import RangeNotSatisfiable, parse_range
from mirror.upstream.policy import LONGEST_RETRY_AFTER, parse_retry_after

TOKENS = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_.", min_size=1, max_size=12)
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30)
RANGES = st.sampled_from([*MANIFEST_TYPES, "*/*", "application/*", "text/html", "application/vnd.other+json"])
WEIGHTS = st.sampled_from(["", ";q=0", ";q=0.0", ";q=0.5", ";q=1", ";q=1.000", ';x="a,b";q=0.7'])
CHALLENGES = st.lists(st.tuples(TOKENS, st.dictionaries(TOKENS, VALUES, min_size=1, max_size=4)), max_size=4)


def _quote(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


@given(CHALLENGES)
def test_written_challenges_are_read_back(challenges: list[tuple[str, dict[str, str]]]) -> None:
    line = ", ".join(
        f"{scheme} {', '.join(f'{name}={_quote(value)}' for name, value in parameters.items())}"
        for scheme, parameters in challenges
    )

    assert [(found.scheme, dict(found.parameters)) for found in parse_challenges([line])] == challenges


@given(st.lists(st.text('Bearer realm="x\\",=; \t/:é\x00'), max_size=5))
def test_any_text_is_read_as_some_challenges(lines: list[str]) -> None:
    for challenge in parse_challenges(lines):
        assert challenge.scheme
        assert challenge.scheme == challenge.scheme.lower()


@given(st.text("bytes=0123456789-, ;*e") | st.text(), st.integers(0, 10**12))
def test_any_range_lies_within_the_whole(header: str, total: int) -> None:
    with contextlib.suppress(RangeNotSatisfiable):
        found = parse_range(header, total)
        if found is not None:
            assert 0 <= found.start < found.end <= total


@given(st.binary(min_size=1, max_size=50), st.integers(0, 60), st.integers(0, 60))
def test_a_range_is_the_slice_that_it_names(whole: bytes, first: int, last: int) -> None:
    total = len(whole)
    if first < total and last >= first:
        found = parse_range(f"bytes={first}-{last}", total)
        assert found is not None
        assert whole[found.start : found.end] == whole[first : last + 1]
    if last:
        suffix = parse_range(f"bytes=-{last}", total)
        assert suffix is not None
        assert whole[suffix.start : suffix.end] == whole[-last:]


@given(st.text() | st.text("0123456789. -+:GMTeuSnovJan,"), st.floats(0, 4e9))
def test_any_retry_after_is_a_bounded_pause(value: str, now: float) -> None:
    seconds = parse_retry_after(value, now)

    assert seconds is None or 0 <= seconds <= LONGEST_RETRY_AFTER


@given(st.lists(st.text('*/aq=0.;,"\\ \t+é\x00') | st.sampled_from(MANIFEST_TYPES) | st.text(), max_size=6))
def test_any_accept_asks_an_upstream_for_one_of_a_few_things(lines: list[str]) -> None:
    accept = parse_accept(lines)

    asked = accept.asks_for.split(", ")
    assert accept.asks_for == EVERYTHING or [media_type for media_type in MANIFEST_TYPES if media_type in asked] == asked != []
    assert all(accept.takes(media_type) for media_type in MANIFEST_TYPES if media_type in asked)


@given(st.lists(st.tuples(RANGES, WEIGHTS), min_size=1, max_size=8, unique_by=lambda pair: pair[0]), st.randoms())
def test_accept_means_the_same_in_any_order_and_on_any_number_of_lines(pairs: list[tuple[str, str]], random: Random) -> None:
    members = [f"{media_range}{weight}" for media_range, weight in pairs]
    weights = {media_range: not weight.startswith(";q=0") or weight == ";q=0.5" for media_range, weight in pairs}
    random.shuffle(members)
    accept = parse_accept(members)

    assert accept == parse_accept([" , ".join(members)])
    for media_type in MANIFEST_TYPES:
        wanted = weights.get(media_type, weights.get("application/*", weights.get("*/*", False)))
        assert accept.takes(media_type) == (wanted or accept is ANYTHING)
