"""Tags, links and sightings in memory, which can be made to fail as a database does."""

from __future__ import annotations

from collections.abc import Iterable

from mirror.errors import Unavailable
from mirror.oci.digest import Digest
from mirror.oci.manifest import Descriptor
from mirror.oci.reference import RepositoryName
from mirror.store.tags import TagRecord


class MemoryTags:
    """A TagStore."""

    def __init__(self) -> None:
        self.records: dict[tuple[RepositoryName, str, str], TagRecord] = {}
        self.is_down = False

    async def get(self, name: RepositoryName, tag: str, accept: str = "") -> TagRecord | None:
        self._check()
        return self.records.get((name, tag, accept))

    async def look(self, name: RepositoryName, tag: str, accept: str = "") -> TagRecord | None:
        return await self.get(name, tag, accept)

    async def put(self, name: RepositoryName, tag: str, record: TagRecord, accept: str = "") -> None:
        self._check()
        self.records[name, tag, accept] = record

    async def forget(self, name: RepositoryName, tag: str, accept: str = "") -> None:
        self._check()
        for key in [key for key in self.records if key[:2] == (name, tag) and accept in ("", key[2])]:
            del self.records[key]

    def _check(self) -> None:
        if self.is_down:
            raise Unavailable("the state database is down")


class MemoryLinks:
    """A LinkStore."""

    def __init__(self) -> None:
        self.links: dict[tuple[RepositoryName, Digest], Descriptor] = {}
        self.manifests: dict[Digest, Descriptor] = {}
        self.is_down = False
        self.asked = 0

    async def add(self, name: RepositoryName, manifest: Descriptor, references: Iterable[Descriptor]) -> None:
        self._check()
        for descriptor in (manifest, *references):
            self.links[name, descriptor.digest] = descriptor
        self.manifests[manifest.digest] = manifest

    async def find(self, name: RepositoryName, digest: Digest) -> Descriptor | None:
        self._check()
        return self.links.get((name, digest))

    async def manifest(self, digest: Digest) -> Descriptor | None:
        self._check()
        return self.manifests.get(digest)

    def _check(self) -> None:
        self.asked += 1
        if self.is_down:
            raise Unavailable("the state database is down")


class MemorySightings:
    """A SightingStore."""

    def __init__(self) -> None:
        self.times: dict[RepositoryName, float] = {}

    async def seen(self, name: RepositoryName) -> float | None:
        return self.times.get(name)

    async def note(self, name: RepositoryName, at: float) -> None:
        self.times[name] = at

    async def forget(self, name: RepositoryName) -> None:
        self.times.pop(name, None)
