"""What a repository keeps of a SIF file."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.errors import InvalidInput
from mirror.jobs.notes import Notes
from mirror.oci.platform import Platform
from publisher.sif.facts import SifFacts

FACTS = SifFacts("arm64", 5, 6, Notes(devices_dropped=3))


def test_it_is_read_as_it_was_written() -> None:
    assert SifFacts.parse(FACTS.as_json()) == FACTS
    assert FACTS.platform == Platform("linux", "arm64")


def test_a_file_that_does_not_say_its_architecture_is_for_no_platform() -> None:
    assert SifFacts("", 0, 0, Notes()).platform is None


@pytest.mark.parametrize("document", [b"", b"[]", b"{}", b'{"architecture": "amd64", "size": "large", "entries": 1}'])
def test_damage_is_told(document: bytes) -> None:
    with pytest.raises(InvalidInput, match="is damaged"):
        SifFacts.parse(document)


@given(st.integers(0), st.integers(0), st.sampled_from(["", "amd64"]))
def test_sizes_of_any_kind(size: int, entries: int, architecture: str) -> None:
    facts = SifFacts(architecture, size, entries, Notes())
    assert SifFacts.parse(facts.as_json()) == facts
