"""What a collection keeps and what it did. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from mirror.errors import InvalidInput
from publisher.cvmfs.hash import ObjectKind
from publisher.objects.store import REFRESH_SECONDS

SAFE_GRACE = 2 * REFRESH_SECONDS
"""Seconds. A publication that finds an object in the storage takes its modification time for new enough if it is younger than
`REFRESH_SECONDS`; twice that leaves it as long to name the object in a revision."""


@dataclass(frozen=True, slots=True)
class CollectionPolicy:
    """What stays beside the current revision and the named snapshots. Times in seconds."""

    revisions: int = 0
    """So many revisions before the current one."""
    age: float = 0.0
    """Revisions that were the current one at some time within this."""
    grace: float = 86_400.0
    """Nothing goes that was put, or was part of the current revision, within this: for publications that are under way, for
    replicas in the middle of a pull, for clients that have not looked for a new revision yet. To be longer than any of these
    takes; less than `SAFE_GRACE` only while nobody publishes."""

    def __post_init__(self) -> None:
        """Raises InvalidInput."""
        if min(self.revisions, self.age, self.grace) < 0:
            raise InvalidInput("revisions, age and grace of a garbage collection must not be negative")

    @property
    def is_safe_beside_publications(self) -> bool:
        """Whether publications may go on meanwhile."""
        return self.grace >= SAFE_GRACE

    def cutoff(self, now: float) -> float:
        """Unix seconds: what is younger is nobody's garbage yet."""
        return now - self.grace

    def unsafe_before(self, now: float) -> float:
        """Unix seconds: who has put objects before this, and named them in no revision yet, may have lost them."""
        return min(self.cutoff(now) + REFRESH_SECONDS + _CLOCKS_DIFFER, now)


_CLOCKS_DIFFER = 60.0
"""Seconds by which the clocks of a storage and of a publisher may differ."""


@dataclass(frozen=True, slots=True)
class CollectionLimits:
    """Bounds of a collection's work."""

    memory: int = 32 << 20
    """Bytes, for what is marked and, once more, for what is to be deleted; the rest is in temporary files, of about 60 bytes for
    each object."""
    workers: int = 4
    """Catalogs read, and objects deleted, at the same time; each of these catalogs is in memory as a whole."""
    batch: int = 2000
    """Objects deleted between two looks at what was published meanwhile."""
    lock_wait: float = 60.0
    """Seconds to wait for a publication that holds the lock."""
    lock_hold: float = 0.25
    """Seconds, about, for which publications have to wait while objects are deleted."""
    lock_pause: float = 0.05
    """Seconds for which they have the lock for themselves then."""

    def __post_init__(self) -> None:
        """Raises InvalidInput."""
        if min(self.memory >> 10, self.workers, self.batch) < 1 or min(self.lock_wait, self.lock_hold, self.lock_pause) < 0:
            raise InvalidInput("memory (1 KiB), workers and batch of a garbage collection must be at least 1, times not negative")


class CollectionStep(StrEnum):
    """What a collection does; each is announced just before it is done, and the process may die at any of them."""

    MARK = "mark"
    """A catalog is read; `done` counts catalogs."""
    LIST = "list"
    """The storage is listed; `done` counts objects."""
    WARN = "warn"
    """Publishers are told what may vanish."""
    DELETE = "delete"
    """A batch of garbage is deleted; `done` counts objects."""
    ANNOUNCE_REFLOG = "announce_reflog"
    REFLOG = "reflog"
    REFLOG_CHECKSUM = "reflog_checksum"
    MANIFEST = "manifest"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a collection has come; total: of the same as `done`, where it is known."""

    step: CollectionStep
    done: int = 0
    total: int | None = None


OnProgress = Callable[[Progress], None]


def ignore_progress(progress: Progress) -> None:
    """For callers that show nothing."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Objects, and the bytes that they take in the storage."""

    objects: int = 0
    bytes: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.objects + other.objects, self.bytes + other.bytes)


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection found and did."""

    dry_run: bool
    revision: int
    """The current one at the end."""
    roots: int
    """Revisions that are kept, the current one included."""
    catalogs: int
    """Catalogs read."""
    rows: int
    """Rows of files and chunks read in them."""
    missing: int
    """Nested catalogs that are gone from revisions which are kept only for their age; all else of these is kept."""
    kept: Tally
    """Needed by a kept revision."""
    young: Tally
    """Not needed, but put within the grace period."""
    garbage: Mapping[ObjectKind, Tally] = field(default_factory=dict)
    """Not needed, and old."""
    deleted: Tally = Tally()
    """Nothing in a dry run. Less than `garbage` if some of it was put or published again meanwhile."""
    references: int = 0
    """Entries taken out of the reference log; in a dry run, entries that would be."""

    @property
    def found(self) -> Tally:
        """All garbage."""
        return sum(self.garbage.values(), Tally())
