"""The policy file: what it may say, what its mistakes are called, and that the example tells the truth."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from mirror.errors import InvalidInput
from mirror.oci.reference import ImageReference
from publisher.policy.document import MAX_DOCUMENT, parse_policy
from publisher.policy.policy import Policy

EXAMPLE = (Path(__file__).parents[3] / "conf" / "policy.toml").read_text()


def parse(text: str) -> Policy:
    return parse_policy(text.encode())


def test_an_empty_file_and_the_example_are_the_built_in_policy() -> None:
    assert parse("") == parse(EXAMPLE) == Policy()


def test_what_the_example_says_of_defaults_is_true_and_complete() -> None:
    settings = re.sub(r"^#(\w+ = .*)$", r"\1", EXAMPLE.replace("#[[rules]]", "[[rules]]"), flags=re.MULTILINE)
    document = tomllib.loads(settings)
    rules = document.pop("rules")
    assert set().union(*rules) == {"action", "registry", "repository", "tag", "reason"}
    assert set(document) == {"default", "public", "never_publish", "limits", "daily"}
    assert document["limits"].keys() == {"layers", "compressed_bytes", "expanded_bytes", "entries"}
    assert document["daily"].keys() == {"images", "compressed_bytes"}
    without_rules = re.sub(r"\[\[rules\]\]\n(\w+ = .*\n)*", "", settings).replace("#\n", "")
    assert parse(re.sub(r"^(action|registry|repository|tag|reason) = .*\n", "", without_rules, flags=re.MULTILINE)) == Policy()


def test_names_in_rules_may_be_written_as_people_write_them() -> None:
    policy = parse('[[rules]]\naction = "deny"\nregistry = "index.docker.io"\nrepository = "debian"')
    assert policy.denial(ImageReference.parse("debian:12"))
    assert policy.denial(ImageReference.parse("someone/debian:12")) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("default = 'maybe'", "default: "),
        ("[[rules]]\naction = 'deny'\nrepo = 'x'", r"rules\[0\].repo: unknown key"),
        ("[[rules]]\nregistry = 'x'", r"rules\[0\].action: "),
        ("[[rules]]\naction = 'deny'\ntag = ''", r"rules\[0\].tag: expected is a pattern"),
        (f"[[rules]]\naction = 'deny'\nrepository = '{'*a' * 200}'", r"rules\[0\].repository: expected is a pattern"),
        ("public = ['quay.io']", r"public\[0\]: expected is a pattern with registry and repository"),
        ("[limits]\nlayers = 0", "limits.layers: "),
        ("[limits]\nentries = '3'", "limits.entries: "),
        ("[limits]\nexpanded_bytes = '3 apples'", "limits.expanded_bytes: expected is a size"),
        ("[daily]\nimages = inf", "daily.images: "),
        ("[[rules]]\naction = 'allow'\n" * 1001, "rules: "),
        ("= nonsense", "not TOML"),
        ("[" * 5000, "not TOML"),
        ("#" * (MAX_DOCUMENT + 1), "longer than"),
    ],
)
def test_mistakes_are_named_with_their_place(text: str, problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem):
        parse(text)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(InvalidInput) as caught:
        parse("default = 1\n[limits]\nlayers = -1\n")
    assert str(caught.value).count("\n") == 1


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(InvalidInput, match="not TOML"):
        parse_policy(b"\xff\xfe")
