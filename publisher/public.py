"""Content of images as everybody may read it: proven with the upstream, taken from the mirror's own store.

The clients used here have no credential. What they are refused is private, and is never published (design, rule of safety 1).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mirror.errors import Denied, InvalidInput, NotFound
from mirror.fetch.blobs import BlobFetcher
from mirror.fetch.reader import BlobReader
from mirror.oci.digest import Digest
from mirror.oci.manifest import Descriptor, ImageManifest, declared_media_type, parse_manifest
from mirror.oci.reference import Reference, RepositoryName
from mirror.store.blobs import BlobStore
from mirror.upstream.client import UpstreamClient


@dataclass(frozen=True, slots=True)
class PublicManifest:
    """An image manifest that an anonymous client was given, byte for byte."""

    raw: bytes
    manifest: ImageManifest


class PublicContent:
    """Manifests and blobs of public images."""

    def __init__(
        self, store: BlobStore, fetcher: BlobFetcher, clients: Mapping[str, UpstreamClient], max_manifest_bytes: int
    ) -> None:
        """clients: anonymous ones, by registry."""
        self._store = store
        self._fetcher = fetcher
        self._clients = clients
        self._max_manifest_bytes = max_manifest_bytes

    async def manifest(self, name: RepositoryName, digest: Digest) -> PublicManifest:
        """The manifest of an image, shown to be public now.

        Raises Denied if it is not public, InvalidInput if it is no image, NotFound, Unavailable, IntegrityError.
        """
        client = self._client(name)
        reference = Reference(digest=digest)
        try:
            info = await client.head_manifest(name.repository, reference)
            raw = await self._stored(digest)
            media_type = raw and (declared_media_type(raw) or info.media_type)
            if raw is None or not media_type:
                fetched = await client.get_manifest(name.repository, reference)
                raw, media_type = fetched.raw, fetched.media_type
        except Denied as error:
            raise _private(name, error) from error
        manifest = parse_manifest(raw, media_type)
        if not isinstance(manifest, ImageManifest) or not manifest.is_publishable:
            raise InvalidInput(f"{name}@{digest} is no container image but {media_type}")
        return PublicManifest(raw, manifest)

    async def prove(self, name: RepositoryName, blobs: Iterable[Descriptor]) -> None:
        """Show that the upstream gives these blobs to everybody now. Raises Denied if not, NotFound, Unavailable."""
        client = self._client(name)
        try:
            async with asyncio.TaskGroup() as group:
                for digest in {blob.digest for blob in blobs}:
                    group.create_task(client.head_blob(name.repository, digest))
        except ExceptionGroup as failures:
            error = failures.exceptions[0]
            raise (_private(name, error) if isinstance(error, Denied) else error) from error

    async def blob(self, name: RepositoryName, blob: Descriptor) -> Path:
        """The verified file of a blob in the mirror's store, fetched if it is not there.

        Raises Denied, NotFound, Unavailable, StorageFull, IntegrityError.
        """
        with self.open(name, blob) as reader:
            return await reader.stored()

    def open(self, name: RepositoryName, blob: Descriptor) -> BlobReader:
        """A reader of a blob, from the mirror's store or while it arrives there; to be closed. Raises NotFound, Unavailable."""
        return self._fetcher.fetch(self._client(name), name.repository, blob.digest, blob.size)

    async def small_blob(self, name: RepositoryName, blob: Descriptor, limit: int) -> bytes:
        """Content of a blob of at most `limit` bytes. Raises what `blob` raises, and InvalidInput if it is larger."""
        if blob.size > limit:
            raise InvalidInput(f"{name}@{blob.digest} has {blob.size} bytes, more than the {limit} that are read of such a thing")
        await self.blob(name, blob)
        return await asyncio.to_thread(self._store.read, blob.digest, limit)

    async def _stored(self, digest: Digest) -> bytes | None:
        try:
            return await asyncio.to_thread(self._store.read, digest, self._max_manifest_bytes)
        except NotFound:
            return None

    def _client(self, name: RepositoryName) -> UpstreamClient:
        client = self._clients.get(name.registry)
        if client is None:
            raise NotFound(f"{name.registry} is no upstream of this mirror any more")
        return client


def _private(name: RepositoryName, error: Exception) -> Denied:
    return Denied(f"{name} is not public, so it is not published: {error}")
