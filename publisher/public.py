"""Content of images as everybody may read it: proven with the upstream, taken from the mirror's own store.

The clients used here have no credential. What they are refused is private, and is never published (design, rule of safety 1);
unless the operator vouches for the namespace: then there is no proof, and the mirror's own credential reads it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cachetools import TTLCache

from mirror.errors import Denied, InvalidInput, NotAnImage, NotFound
from mirror.fetch.blobs import BlobFetcher
from mirror.fetch.reader import BlobReader
from mirror.oci.digest import Digest
from mirror.oci.manifest import Descriptor, ImageManifest, declared_media_type, parse_manifest
from mirror.oci.reference import Reference, RepositoryName
from mirror.store.blobs import BlobStore
from mirror.upstream.client import UpstreamClient
from publisher.foreign import ForeignLayers
from publisher.proof import Proof, ProofSettings

MAX_CONFIG = 8 << 20
"""Bytes of an image's config."""


@dataclass(frozen=True, slots=True)
class PublicManifest:
    """An image manifest that an anonymous client was given, byte for byte."""

    raw: bytes
    manifest: ImageManifest


class PublicContent:
    """Manifests and blobs of public images."""

    def __init__(
        self,
        store: BlobStore,
        fetcher: BlobFetcher,
        clients: Mapping[str, UpstreamClient],
        max_manifest_bytes: int,
        *,
        proof: Proof | None = None,
        trusted: Mapping[str, UpstreamClient] | None = None,
        is_vouched_for: Callable[[RepositoryName], bool] = lambda _: False,
        foreign: ForeignLayers | None = None,
    ) -> None:
        """clients: anonymous ones, by registry. trusted: with the mirror's credentials, for repositories that are vouched for."""
        self._store = store
        self._fetcher = fetcher
        self._clients = clients
        self._max_manifest_bytes = max_manifest_bytes
        self._foreign = foreign or ForeignLayers()
        self._proof = proof or Proof(ProofSettings())
        self._trusted = trusted or {}
        self._is_vouched_for = is_vouched_for
        # Between `prove` and `proven_blob` of one image; whatever is forgotten is shown once more.
        self._shown: TTLCache[tuple[RepositoryName, Digest], None] = TTLCache(10_000, 600.0)

    async def manifest(self, name: RepositoryName, digest: Digest) -> PublicManifest:
        """The manifest of an image, shown to be public now: given to an anonymous client, and verified by its digest.

        Raises Denied if it is not public, InvalidInput if it is no image or has foreign layers that are not fetched, NotFound,
        Unavailable, IntegrityError.
        """
        raw = await self._stored(digest) if self._is_vouched_for(name) else None
        media_type = raw and declared_media_type(raw)
        if raw is None or not media_type:
            try:
                fetched = await self._client(name).get_manifest(name.repository, Reference(digest=digest))
            except Denied as error:
                raise _private(name, error) from error
            raw, media_type = fetched.raw, fetched.media_type
        manifest = parse_manifest(raw, media_type)
        if not isinstance(manifest, ImageManifest) or not manifest.is_publishable:
            raise NotAnImage(f"{name}@{digest} is no container image but {media_type}")
        self._foreign.check(manifest)
        return PublicManifest(raw, manifest)

    async def prove(self, name: RepositoryName, manifest: ImageManifest) -> None:
        """Show that the upstream gives what the manifest names to everybody now; all of it at the same time.

        What the store has is compared with what the upstream gives. Of what it has not, the upstream is only asked whether it is
        there: either it is fetched by `proven_blob`, or the repository has it already, and it is public.
        Raises Denied if something is not public, IntegrityError if it is not what it should be, NotFound, Unavailable.
        """
        if self._is_vouched_for(name):
            return
        blobs = {blob.digest: blob for blob in manifest.references}
        try:
            async with asyncio.TaskGroup() as group:
                for blob in blobs.values():
                    whole = blob.digest == manifest.config.digest and blob.size <= MAX_CONFIG
                    group.create_task(self._prove_blob(name, blob, whole=whole))
        except ExceptionGroup as failures:
            error = failures.exceptions[0]
            raise (_private(name, error) if isinstance(error, Denied) else error) from error

    async def proven_blob(self, name: RepositoryName, blob: Descriptor) -> Path:
        """As `blob`; and if `prove` could not compare the blob because the store did not have it, it is done now.

        Raises what `blob` and `prove` raise.
        """
        path = await self.blob(name, blob)
        if (name, blob.digest) not in self._shown and not self._is_vouched_for(name):
            try:
                await self._prove_blob(name, blob)
            except Denied as error:
                raise _private(name, error) from error
        return path

    async def blob(self, name: RepositoryName, blob: Descriptor) -> Path:
        """The verified file of a blob in the mirror's store, fetched if it is not there.

        Raises Denied, NotFound, Unavailable, StorageFull, IntegrityError.
        """
        with self.open(name, blob) as reader:
            return await reader.stored()

    async def stored(self, digest: Digest) -> Path | None:
        """The file of a blob, if the mirror's store has it."""
        return await self._file(digest)

    def open(self, name: RepositoryName, blob: Descriptor) -> BlobReader:
        """A reader of a blob, from the mirror's store or while it arrives there; to be closed. Raises NotFound, Unavailable."""
        home = self._foreign.home(name, blob)
        return self._fetcher.fetch(self._client(home), home.repository, blob.digest, blob.size)

    async def small_blob(self, name: RepositoryName, blob: Descriptor, limit: int) -> bytes:
        """Content of a blob of at most `limit` bytes. Raises what `blob` raises, and InvalidInput if it is larger."""
        if blob.size > limit:
            raise InvalidInput(f"{name}@{blob.digest} has {blob.size} bytes, more than the {limit} that are read of such a thing")
        await self.blob(name, blob)
        return await asyncio.to_thread(self._store.read, blob.digest, limit)

    async def _prove_blob(self, name: RepositoryName, blob: Descriptor, *, whole: bool = False) -> None:
        home = self._foreign.home(name, blob)
        client = self._client(home)
        if whole or self._proof.is_small(blob):
            await self._proof.of_whole(client, home.repository, blob)
        elif (file := await self._file(blob.digest)) is not None:
            await self._proof.of_part(client, home.repository, blob, file)
        else:
            await client.head_blob(home.repository, blob.digest)
            return
        self._shown[name, blob.digest] = None

    async def _file(self, digest: Digest) -> Path | None:
        path = self._store.path(digest)
        return path if await asyncio.to_thread(path.exists) else None

    async def _stored(self, digest: Digest) -> bytes | None:
        try:
            return await asyncio.to_thread(self._store.read, digest, self._max_manifest_bytes)
        except NotFound:
            return None

    def _client(self, name: RepositoryName) -> UpstreamClient:
        trusted = self._trusted.get(name.registry) if self._is_vouched_for(name) else None
        client = trusted or self._clients.get(name.registry)
        if client is None:
            raise NotFound(f"{name.registry} is no upstream of this mirror any more")
        return client


def _private(name: RepositoryName, error: Exception) -> Denied:
    return Denied(
        f"{name} is not public; make it public there, or ask this mirror's operator to vouch for it in the policy ({error})"
    )
