"""A manifest as it is given out, and the bounds of giving it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mirror.fetch.result import CacheResult
from mirror.oci.digest import Digest


@dataclass(frozen=True, slots=True)
class ManifestAnswer:
    """A manifest for a request."""

    raw: bytes
    """Byte for byte as the upstream gave it."""
    media_type: str
    digest: Digest
    result: CacheResult
    age: float | None = None
    """Seconds since the upstream said so, of a stale answer."""
    instead_of: ManifestAnswer | None = None
    """What the tag stands for to clients that take everything, if that is another manifest."""


@dataclass(frozen=True, slots=True)
class ManifestLimits:
    """Bounds of fetching manifests; times in seconds."""

    tag_seconds: float = 60.0
    """How long a tag's answer is fresh."""
    hold_seconds: float = 5.0
    """How long an upstream that failed for a tag is not asked for it again, if there is a last known answer."""
    memory_bytes: int = 64 << 20
    """Of manifests kept in memory."""
    max_remembered: int = 50_000
    """Pairs of repository and digest, failed tags, and names that do not exist, kept in memory; so many of each."""
    max_manifest_bytes: int = 4 << 20
    absent_seconds: float = 10.0
    """How long an upstream's word counts that it does not have something."""
    patience_seconds: float = 5.0
    """How long an upstream may take for a tag, if there is a last known answer, until that is given."""
    revalidate_seconds: float = 5.0
    """How old an answer must be for a client's `no-cache` to make the mirror ask again."""
    early: float = 0.2
    """The last share of a tag's time in which asking for it refreshes it in the background."""


def mark(answer: ManifestAnswer, joined: bool) -> ManifestAnswer:
    """The answer for one who joined another request, or did not."""
    return replace(answer, result=CacheResult.JOINED) if joined and answer.result is CacheResult.MISS else answer
