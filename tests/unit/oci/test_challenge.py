"""Challenges as registries send them."""

from __future__ import annotations

import pytest

from mirror.oci.challenge import BearerChallenge, accepts_basic, find_bearer, parse_challenges


def test_docker_hub() -> None:
    challenges = parse_challenges(
        ['Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/debian:pull"']
    )

    assert find_bearer(challenges) == BearerChallenge(
        "https://auth.docker.io/token", "registry.docker.io", "repository:library/debian:pull"
    )
    assert not accepts_basic(challenges)


@pytest.mark.parametrize(
    "lines",
    [
        ['Basic realm="a, b", Bearer realm="https://x/token", service="s"'],
        ['Basic realm="a, b"', 'Bearer realm="https://x/token", service="s"'],
        ["Negotiate YIIJvwYGKw==, basic REALM = plain , BEARER realm=https://x/token,service=s"],
        [', ,Negotiate,Basic realm="Bearer realm=\\"no\\"",  Bearer  realm="https://x/token" ,, service="s", error="e"'],
    ],
)
def test_several_challenges(lines: list[str]) -> None:
    challenges = parse_challenges(lines)

    assert find_bearer(challenges) == BearerChallenge("https://x/token", "s", None)
    assert accepts_basic(challenges)


def test_quoted_pairs_are_unquoted() -> None:
    (challenge,) = parse_challenges([r'Basic realm="a \"quoted\" \\ realm, with a comma"'])

    assert challenge.parameters["realm"] == r'a "quoted" \ realm, with a comma'


def test_commas_in_a_scope_belong_to_it() -> None:
    bearer = find_bearer(parse_challenges(['Bearer realm="https://x/t",scope="repository:a/b:pull,push"']))

    assert bearer is not None
    assert bearer.scope == "repository:a/b:pull,push"


@pytest.mark.parametrize(
    "line", ["", ",,,", '"', "Bearer", "Bearer realm", 'Bearer realm="unterminated', "=,=", "Bearer scope=x", "é"]
)
def test_nonsense_is_no_bearer(line: str) -> None:
    assert find_bearer(parse_challenges([line])) is None
