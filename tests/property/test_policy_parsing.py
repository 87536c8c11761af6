"""Whatever a policy file holds, it is a policy or a mistake with a name; and whatever it says, each name gets an answer."""

from __future__ import annotations

import contextlib
import json

from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.errors import InvalidInput
from mirror.oci.reference import ImageReference
from publisher.policy.document import parse_policy

IMAGE = ImageReference.parse("hub.test/team/app-1.2_x:v1.0-rc")
patterns = st.text("*?[]!-abcteamhub./:_", min_size=1, max_size=60)
keys = st.sampled_from(["action", "registry", "repository", "tag", "reason", "other"])
values = st.one_of(patterns, st.sampled_from(["allow", "deny"]), st.integers().map(str), st.booleans().map(str))


@settings(deadline=None)
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_any_bytes_are_a_policy_or_a_mistake(raw: bytes) -> None:
    with contextlib.suppress(InvalidInput):
        parse_policy(raw)


@settings(deadline=None)
@given(st.lists(st.dictionaries(keys, values, max_size=5), max_size=5))
def test_any_rules_decide_or_are_a_mistake(rules: list[dict[str, str]]) -> None:
    text = "".join("[[rules]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in rule.items()) for rule in rules)
    with contextlib.suppress(InvalidInput):
        parse_policy(text.encode()).denial(IMAGE)


@settings(deadline=None)
@given(patterns)
def test_a_pattern_denies_what_it_says_and_nothing_without_it(pattern: str) -> None:
    policy = parse_policy(f'[[rules]]\naction = "deny"\nrepository = {json.dumps(pattern)}\n'.encode())
    plain = not set(pattern) & set("*?[")
    if plain:
        assert (policy.denial(IMAGE) is not None) == (pattern == IMAGE.name.repository)
    assert parse_policy(b'[[rules]]\naction = "deny"\nrepository = "*"\n').denial(IMAGE)
