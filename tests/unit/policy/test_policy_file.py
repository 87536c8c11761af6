"""The policy's file is followed; a broken one changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mirror.errors import InvalidInput
from mirror.oci.reference import ImageReference
from publisher.policy.policy import Policy
from publisher.policy_file import PolicyFile

IMAGE = ImageReference.parse("docker.io/library/debian:12")


def write(path: Path, text: str) -> None:
    """As an editor saves: a new file in place of the old."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def test_without_a_file_everything_public_is_published() -> None:
    policy = PolicyFile(None)
    assert policy.current == Policy()
    assert not policy.look()


def test_it_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    write(path, "")
    policy = PolicyFile(path)
    assert not policy.look()
    write(path, 'default = "deny"')
    assert policy.look()
    assert policy.current.denial(IMAGE)
    assert not policy.look()


@pytest.mark.parametrize("broken", ["nonsense", None])
def test_a_broken_one_keeps_the_old_one_and_says_so_until_it_is_mended(tmp_path: Path, broken: str | None) -> None:
    path = tmp_path / "policy.toml"
    write(path, 'default = "deny"')
    policy = PolicyFile(path)
    if broken is None:
        path.unlink()
    else:
        write(path, broken)
    with capture_logs() as logs:
        assert not policy.look()
        assert not policy.look()
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == ["policy_broken"]
    assert policy.current.denial(IMAGE)
    assert str(path) in str(policy.problem)
    write(path, 'default = "allow"')
    assert policy.look()
    assert policy.problem is None
    assert policy.current.denial(IMAGE) is None


def test_nothing_starts_with_a_broken_one(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    with pytest.raises(InvalidInput, match=r"policy\.toml cannot be read"):
        PolicyFile(path)
    write(path, "rules = 3")
    with pytest.raises(InvalidInput, match=r"policy\.toml cannot be used: rules"):
        PolicyFile(path)
