"""States and records of publishing, as pure values. They are the project's common language between mirror and publisher."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mirror.jobs.notes import NO_NOTES, Notes
from mirror.oci.digest import Digest
from mirror.oci.platform import Platform
from mirror.oci.reference import ImageReference, RepositoryName


class State(StrEnum):
    """Where an image stands on its way into a CVMFS repository."""

    QUEUED = "queued"
    FETCHING = "fetching"
    INGESTING = "ingesting"
    COMMITTING = "committing"
    REPLICATING = "replicating"
    PUBLISHED = "published"
    REFUSED = "refused"
    FAILED = "failed"
    EXPIRED = "expired"
    NOT_AN_IMAGE = "not-an-image"

    @property
    def column(self) -> str:
        """The column of the state database that has the time of it."""
        return f"{self.value.replace('-', '_')}_at"

    @property
    def is_running(self) -> bool:
        """Whether a publisher works on it now."""
        return self in _RUNNING

    @property
    def is_final(self) -> bool:
        """Whether nothing more happens unless somebody asks again."""
        return self in _FINAL


_RUNNING = frozenset({State.FETCHING, State.INGESTING, State.COMMITTING, State.REPLICATING})
_FINAL = frozenset({State.PUBLISHED, State.REFUSED, State.EXPIRED, State.NOT_AN_IMAGE})


@dataclass(frozen=True, slots=True)
class PublishRequest:
    """Somebody pulled an image: publish it, and let this name lead to it."""

    image: ImageReference
    """The name under which it was pulled; its public link is made of it."""
    target: Digest
    """What the name resolved to upstream: the image manifest, or an index that lists it."""
    manifest: Digest
    """The image manifest to unpack."""
    platform: Platform | None = None
    """The platform whose path this is, in normal form; None: the path without a platform."""


@dataclass(frozen=True, slots=True)
class PlatformName:
    """A name for one platform; its public link is made of both. platform: in normal form."""

    image: ImageReference
    platform: Platform


@dataclass(frozen=True, slots=True)
class Leftover:
    """A public link of a CVMFS repository that leads to what its name stands for no more; path: absolute, as of a publication."""

    fqrn: str
    path: str


@dataclass(frozen=True, slots=True)
class Job:
    """An image manifest that a publisher has claimed, with every name that is waiting for it."""

    manifest: Digest
    source: RepositoryName
    """A repository that it was pulled from, to fetch what is missing."""
    requests: tuple[PublishRequest, ...]
    """The names to publish in this go; never empty."""
    attempts: int
    """How often it has been claimed, this time included."""
    fqrn: str | None
    """The CVMFS repository that holds the image already, if this job only adds names to it."""


@dataclass(frozen=True, slots=True)
class Publication:
    """Where a published image is readable."""

    fqrn: str
    path: str
    """Absolute, such as `/cvmfs/unpacked.example.org/docker.io/library/debian:12`."""
    revision: int
    """The first revision of the CVMFS repository that has it."""


@dataclass(frozen=True, slots=True)
class ImageStatus:
    """Everything a user may ask about one name of an image; times are Unix seconds."""

    image: ImageReference
    manifest: Digest
    target: Digest
    state: State
    reason: str | None
    publication: Publication | None
    attempts: int
    next_try: float | None
    requested: float
    updated: float
    published: float | None
    notes: Notes = NO_NOTES
    """What unpacking left out or changed."""
    platform: Platform | None = None
    """The platform whose path this is; None: of the path without a platform."""
