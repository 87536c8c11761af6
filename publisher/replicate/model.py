"""What a replication is asked, what it may take, and what it tells."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa

from mirror.errors import InvalidInput
from publisher.cvmfs.hash import ContentHash
from publisher.cvmfs.manifest import RepositoryManifest
from publisher.objects.http_client import HttpLimits
from publisher.objects.store import ObjectStore

_MOST_PROCESSES = 4


class Extent(StrEnum):
    """Which revisions a replica takes beside the current one."""

    CURRENT = "current"
    """None."""
    NAMED = "named"
    """Those that the history names."""
    SINCE = "since"
    """Those that the history names, and all since the one that the replica has, for clients that still read one of them: what
    CernVM-FS's own stratum 1 does."""


class Step(StrEnum):
    """Points of a replication, each announced just before it is taken; a process may die at any of them."""

    BEGIN = "begin"
    HISTORY = "history"
    OBJECTS = "objects"
    """Some data objects are stored; many times."""
    CATALOG = "catalog"
    """A catalog is stored, everything below it being there; many times."""
    CERTIFICATE = "certificate"
    FLUSH = "flush"
    ANNOUNCE_REFLOG = "announce_reflog"
    REFLOG = "reflog"
    REFLOG_CHECKSUM = "reflog_checksum"
    WHITELIST = "whitelist"
    MANIFEST = "manifest"
    LAST_SNAPSHOT = "last_snapshot"
    """Clients can see the revision."""
    END = "end"


@dataclass(frozen=True, slots=True)
class ReplicationLimits:
    """What a replication may take, whatever the source sends. All in bytes, but for the counts and seconds."""

    http: HttpLimits = field(default_factory=HttpLimits)
    """Its `connections` are the objects in flight."""
    threads: int = 4
    """They hash, write and list; more are good where the storage answers slowly, as S3 does."""
    processes: int = field(default_factory=lambda: min(_MOST_PROCESSES, len(os.sched_getaffinity(0))))
    """Beside the replication's own, for the small objects of a large replication into a local directory; 0: none. They share
    three quarters of the connections, and are no more than these."""
    carried_above: int = 1000
    """Objects that lack, after which those processes are started: each costs as much as a thousand objects."""
    catalogs: int = 8
    """Listed at the same time."""
    held_bytes: int = 128 << 20
    """Objects in memory, on their way."""
    spooled_above: int = 16 << 20
    """A larger object goes through a file in the spool directory."""
    object_bytes: int = 1 << 40
    """Largest stored object."""
    catalog_bytes: int = 1 << 30
    """Largest uncompressed catalog; it is read from a file, not from memory."""
    history_bytes: int = 64 << 20
    """Largest uncompressed history."""
    depth: int = 64
    """Catalogs nested in each other."""
    revisions: int = 10_000
    """Followed back from the current one."""
    flush_seconds: float = 30.0
    """After a power failure, what was written in this time before it is verified again."""

    def __post_init__(self) -> None:
        """Raises InvalidInput where nothing could ever be done."""
        if min(self.threads, self.catalogs, self.depth, self.object_bytes, self.catalog_bytes, self.history_bytes) < 1:
            raise InvalidInput(
                "threads, depth, and the limits of catalogs, objects and history of a replication must be at least 1"
            )
        if (
            not 0 < self.spooled_above <= self.held_bytes
            or min(self.revisions, self.processes, self.carried_above) < 0
            or self.flush_seconds <= 0
        ):
            raise InvalidInput("spooled_above must be at most held_bytes, flush_seconds more than 0, and nothing less than 0")


@dataclass(slots=True)
class Progress:
    """Counted since the beginning."""

    catalogs: int = 0
    """Stored, with all below them."""
    found: int = 0
    """Objects that the replica lacks, as far as catalogs were read."""
    objects: int = 0
    """Of those, stored."""
    bytes: int = 0
    """Stored, of objects and catalogs."""


OnProgress = Callable[[Progress], None]
OnStep = Callable[[Step], None]


@dataclass(frozen=True, slots=True)
class Replicated:
    """What a replication did."""

    manifest: RepositoryManifest
    """Of the revision that the replica now shows."""
    manifest_file: bytes = field(repr=False)
    """As the source signed it."""
    changed: bool
    """Whether it shows another revision than before."""
    progress: Progress
    skipped: tuple[ContentHash, ...]
    """Roots of earlier or named revisions that the source has no more."""
    seconds: float


def ignore_progress(progress: Progress) -> None:
    """For callers that show none."""


def ignore_step(step: Step) -> None:
    """For callers that need no steps."""


@dataclass(frozen=True, slots=True)
class Replication:
    """What is to be replicated, and where to."""

    source_url: str
    """Of the repository, such as `http://stratum0.example.org/cvmfs/layers.example.org`."""
    fqrn: str
    master_key: rsa.RSAPublicKey
    store: ObjectStore
    """The replica's storage, empty for a new one."""
    spool: Path
    """A directory for its lock, the checksum of its reference log and files on their way; to be kept."""
    limits: ReplicationLimits = field(default_factory=ReplicationLimits)
    extent: Extent = Extent.SINCE
    """Earlier revisions to take."""
    on_progress: OnProgress = ignore_progress
    """Called in the event loop."""
    clock: Callable[[], float] = time.time
    """Unix seconds."""
