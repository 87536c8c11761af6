"""Which repository names which content, in the state database, with bounded memories in front.

A blob is served under a repository's name only if a manifest of that repository names it. The link also carries the size and
media type that the manifest states, so that a HEAD of a blob that was never fetched can be answered.
"""

from __future__ import annotations

from collections.abc import Iterable

from cachetools import LRUCache
from sqlalchemy import select

from mirror.oci.digest import Digest
from mirror.oci.manifest import IMAGE_TYPES, INDEX_TYPES, SCHEMA1_TYPES, Descriptor
from mirror.oci.reference import RepositoryName
from mirror.state.engine import Database
from mirror.state.schema import links, manifests

_MANIFEST_TYPES = IMAGE_TYPES | INDEX_TYPES | SCHEMA1_TYPES


class Links:
    """Links of all repositories. They are facts that only grow, so what is in memory never has to be dropped."""

    def __init__(self, database: Database, *, remembered: int = 50_000) -> None:
        """remembered: how many links, and how many manifests, are kept in memory."""
        self._database = database
        self._links: LRUCache[tuple[RepositoryName, Digest], Descriptor] = LRUCache(remembered)
        self._manifests: LRUCache[Digest, Descriptor] = LRUCache(remembered)
        self._added: LRUCache[tuple[RepositoryName, Digest], bool] = LRUCache(remembered)

    async def add(self, name: RepositoryName, manifest: Descriptor, references: Iterable[Descriptor]) -> None:
        """Link a manifest (or index) that the repository serves, and all content that it names. Raises Unavailable.

        Doing it again costs one look into memory.
        """
        if (name, manifest.digest) in self._added:
            return
        named = {descriptor.digest: descriptor for descriptor in references}
        # One order for all writers, so that no two wait for each other's rows.
        rows = [_row(name, named[digest], _kind(named[digest])) for digest in sorted(named, key=str)]
        key = ["registry", "repository", "digest"]
        insert = self._database.insert(links)
        # A link that an index made is made again by the manifest itself, whose own header knows its media type better.
        own = insert.on_conflict_do_update(
            index_elements=key, set_={column: insert.excluded[column] for column in ("kind", "media_type", "size")}
        )
        stored = self._database.insert(manifests).on_conflict_do_nothing()
        async with self._database.write() as connection:
            if rows:
                await connection.execute(self._database.insert(links).on_conflict_do_nothing(index_elements=key), rows)
            await connection.execute(own, [_row(name, manifest, "manifest")])
            await connection.execute(
                stored, [{"digest": str(manifest.digest), "media_type": manifest.media_type, "size": manifest.size}]
            )
        self._added[name, manifest.digest] = True
        # Whoever got the manifest asks for these next, many clients at the same time.
        for descriptor in named.values():
            self._links.setdefault((name, descriptor.digest), descriptor)
        self._links[name, manifest.digest] = manifest
        self._manifests[manifest.digest] = manifest

    async def find(self, name: RepositoryName, digest: Digest) -> Descriptor | None:
        """The content as this repository's manifests describe it; None if none of them names it. Raises Unavailable."""
        known = self._links.get((name, digest))
        if known is not None:
            return known
        statement = select(links.c.media_type, links.c.size).where(
            links.c.registry == name.registry, links.c.repository == name.repository, links.c.digest == str(digest)
        )
        async with self._database.read() as connection:
            row = (await connection.execute(statement)).one_or_none()
        if row is None:
            return None
        return self._links.setdefault((name, digest), Descriptor(row.media_type, digest, row.size))

    async def manifest(self, digest: Digest) -> Descriptor | None:
        """Media type and size of a stored manifest, of whatever repository; None if there is none. Raises Unavailable."""
        known = self._manifests.get(digest)
        if known is not None:
            return known
        statement = select(manifests.c.media_type, manifests.c.size).where(manifests.c.digest == str(digest))
        async with self._database.read() as connection:
            row = (await connection.execute(statement)).one_or_none()
        if row is None:
            return None
        return self._manifests.setdefault(digest, Descriptor(row.media_type, digest, row.size))


def _kind(descriptor: Descriptor) -> str:
    return "manifest" if descriptor.media_type in _MANIFEST_TYPES else "blob"


def _row(name: RepositoryName, descriptor: Descriptor, kind: str) -> dict[str, str | int]:
    return {
        "registry": name.registry,
        "repository": name.repository,
        "digest": str(descriptor.digest),
        "kind": kind,
        "media_type": descriptor.media_type,
        "size": descriptor.size,
    }
