"""Which names are published: the first rule decides, and says why not."""

from __future__ import annotations

import pytest

from mirror.oci.reference import ImageReference
from publisher.policy.document import parse_policy

POLICY = parse_policy(
    b"""
default = "deny"
public = ["quay.io/open/*"]
never_publish = ["quay.io/open/not-this"]
[[rules]]
action = "deny"
registry = "docker.io"
repository = "library/*"
tag = "*nightly*"
reason = "nightly builds come and go"
[[rules]]
action = "allow"
registry = "docker.io"
repository = "library/*"
[[rules]]
action = "allow"
registry = "*.example.org"
[[rules]]
action = "allow"
repository = "open/*"
"""
)


def denial(name: str) -> str | None:
    return POLICY.denial(ImageReference.parse(name))


@pytest.mark.parametrize(
    "name",
    [
        "debian:12",
        "hub.example.org/deep/er/name:1",
        "quay.io/open/this:1",
        "debian@sha256:" + "0" * 64,
    ],
)
def test_allowed(name: str) -> None:
    assert denial(name) is None


def test_the_first_rule_decides_and_is_named_with_its_reason_and_the_mend() -> None:
    reason = denial("debian:12-nightly")
    assert reason is not None
    assert "rule 1" in reason
    assert "nightly builds come and go" in reason
    assert "ask this mirror's operator" in reason


def test_what_no_rule_is_about_follows_the_default() -> None:
    assert "no rule" in (denial("ghcr.io/someone/app:1") or "")
    assert denial("docker.io/someone/app:1") is not None


def test_never_publish_wins_over_rules_and_vouching() -> None:
    assert "quay.io/open/not-this" in (denial("quay.io/open/not-this:1") or "")


def test_only_namespaces_that_are_named_are_vouched_for() -> None:
    assert POLICY.is_vouched_for(ImageReference.parse("quay.io/open/this").name)
    assert not POLICY.is_vouched_for(ImageReference.parse("quay.io/opener/this").name)
    assert not POLICY.is_vouched_for(ImageReference.parse("docker.io/open/this").name)


def test_a_tag_rule_is_not_about_digests_and_case_matters() -> None:
    policy = parse_policy(b'[[rules]]\naction = "deny"\ntag = "RC?"')
    assert policy.denial(ImageReference.parse("a/b:RC1"))
    assert policy.denial(ImageReference.parse("a/b:rc1")) is None
    assert policy.denial(ImageReference.parse("a/b@sha256:" + "1" * 64)) is None


def test_a_pattern_of_many_stars_is_decided_at_once() -> None:
    policy = parse_policy(b'[[rules]]\naction = "deny"\nrepository = "%s"' % (b"*a" * 149 + b"b"))
    assert policy.denial(ImageReference.parse("hub.test/" + "a" * 250 + ":1")) is None
