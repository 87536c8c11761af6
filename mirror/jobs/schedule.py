"""Which CVMFS repository an image goes to. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class RepositoryState(StrEnum):
    """Whether a CVMFS repository takes images."""

    ACTIVE = "active"
    CLEANING = "cleaning"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A CVMFS repository as the scheduler sees it.

    held: bytes of the image's layers that it holds already. stored: bytes that it holds altogether. away: its server or its one
    writer cannot be reached.
    """

    fqrn: str
    state: RepositoryState
    held: int
    stored: int
    away: bool = False


def choose(candidates: Iterable[Candidate]) -> str | None:
    """The fqrn of the repository that holds most of the image, among equals of the one that is filled least; None if none can."""
    open_ones = [candidate for candidate in candidates if candidate.state is RepositoryState.ACTIVE and not candidate.away]
    if not open_ones:
        return None
    return min(open_ones, key=lambda candidate: (-candidate.held, candidate.stored, candidate.fqrn)).fqrn
