"""What fetching manifests needs to remember, as protocols: `mirror.store.tags` and `mirror.store.links` keep it in SQL.

Every method may raise Unavailable: fetching then goes on without.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from mirror.oci.digest import Digest
from mirror.oci.manifest import Descriptor
from mirror.oci.reference import RepositoryName
from mirror.store.tags import TagRecord


class TagStore(Protocol):
    """What tags resolved to when they were last asked for. accept: with which media types; empty: with all."""

    async def get(self, name: RepositoryName, tag: str, accept: str = "") -> TagRecord | None:
        """The last answer of the upstream; None if it was never asked."""

    async def look(self, name: RepositoryName, tag: str, accept: str = "") -> TagRecord | None:
        """The same, but as any process was told."""

    async def put(self, name: RepositoryName, tag: str, record: TagRecord, accept: str = "") -> None:
        """Note the upstream's answer."""

    async def forget(self, name: RepositoryName, tag: str, accept: str = "") -> None:
        """The upstream says that there is no such tag, or none of these types; with all of them, all is forgotten."""


class LinkStore(Protocol):
    """Which repository names which content."""

    async def add(self, name: RepositoryName, manifest: Descriptor, references: Iterable[Descriptor]) -> None:
        """The repository serves this manifest, and so all that it names."""

    async def find(self, name: RepositoryName, digest: Digest) -> Descriptor | None:
        """The content, if the repository names it."""

    async def manifest(self, digest: Digest) -> Descriptor | None:
        """Media type and size of a manifest that some repository serves."""
