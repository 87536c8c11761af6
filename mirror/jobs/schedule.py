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
    writer cannot be reached. named: names of the image have links there already, to what they stood for before or to images for
    other platforms.
    """

    fqrn: str
    state: RepositoryState
    held: int
    stored: int
    away: bool = False
    named: bool = False


def choose(candidates: Iterable[Candidate]) -> str | None:
    """The fqrn of the repository that an image goes to; None if none can take it.

    That is the one where its names are, for paths in scripts should stay right, and have all platforms in one place; else the one
    that holds most of the image; among equals the one that is filled least.
    """
    open_ones = [candidate for candidate in candidates if candidate.state is RepositoryState.ACTIVE and not candidate.away]
    if not open_ones:
        return None
    return min(open_ones, key=lambda candidate: (not candidate.named, -candidate.held, candidate.stored, candidate.fqrn)).fqrn
