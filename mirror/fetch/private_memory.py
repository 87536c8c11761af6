"""Tags and links of private repositories: in this process's memory only, so that they are in no table that others read."""

from __future__ import annotations

from collections.abc import Iterable

from cachetools import LRUCache

from mirror.oci.digest import Digest
from mirror.oci.manifest import Descriptor
from mirror.oci.reference import RepositoryName
from mirror.store.tags import TagRecord


class RememberedTags:
    """A `TagStore` without a database."""

    def __init__(self, remembered: int) -> None:
        self._tags: LRUCache[tuple[RepositoryName, str], dict[str, TagRecord]] = LRUCache(remembered)

    async def get(self, name: RepositoryName, tag: str, accept: str = "") -> TagRecord | None:
        """See TagStore."""
        return self._tags.get((name, tag), {}).get(accept)

    async def look(self, name: RepositoryName, tag: str, accept: str = "") -> TagRecord | None:
        """See TagStore: other processes have memories of their own."""
        return await self.get(name, tag, accept)

    async def put(self, name: RepositoryName, tag: str, record: TagRecord, accept: str = "") -> None:
        """See TagStore."""
        self._tags.setdefault((name, tag), {})[accept] = record

    async def forget(self, name: RepositoryName, tag: str, accept: str = "") -> None:
        """See TagStore."""
        if accept:
            self._tags.get((name, tag), {}).pop(accept, None)
        else:
            self._tags.pop((name, tag), None)


class RememberedLinks:
    """A `LinkStore` without a database, of manifests only: whether a repository has a blob, its upstream is asked."""

    def __init__(self, remembered: int) -> None:
        self._links: LRUCache[tuple[RepositoryName, Digest], Descriptor] = LRUCache(remembered)
        self._manifests: LRUCache[Digest, Descriptor] = LRUCache(remembered)

    async def add(self, name: RepositoryName, manifest: Descriptor, references: Iterable[Descriptor]) -> None:  # noqa: ARG002
        """See LinkStore."""
        self._links[name, manifest.digest] = manifest
        self._manifests[manifest.digest] = manifest

    async def find(self, name: RepositoryName, digest: Digest) -> Descriptor | None:
        """See LinkStore."""
        return self._links.get((name, digest))

    async def manifest(self, digest: Digest) -> Descriptor | None:
        """See LinkStore."""
        return self._manifests.get(digest)
