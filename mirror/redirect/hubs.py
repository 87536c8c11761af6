"""Sending clients to where an upstream itself sends who asks for a blob: its object store, at an address signed for a while.

Only for what is not in the store, and only as an anonymous client is sent: the address lets whoever has it read the blob. It is
asked for each time, by a request for the blob's first byte, so that it is seen to serve the blob.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import structlog

from mirror.errors import MirrorError
from mirror.oci.digest import Digest
from mirror.oci.reference import RepositoryName
from mirror.store.blobs import BlobStore
from mirror.upstream.client import UpstreamClient

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Hub:
    """An upstream that may be left to serve its blobs itself. client: an anonymous one.

    always: whenever the blob is not in the store; else only if there is no room for it.
    """

    client: UpstreamClient
    always: bool


class Hubs:
    """Upstreams for which that is allowed."""

    def __init__(self, hubs: Mapping[str, Hub], store: BlobStore, make_room: Callable[[int], Awaitable[None]]) -> None:
        """hubs: by registry. make_room: frees space for so many bytes more, if it can."""
        self._hubs = hubs
        self._store = store
        self._make_room = make_room

    async def find(self, name: RepositoryName, digest: Digest, size: int | None) -> str | None:
        """The URL at which the upstream has the blob; None if the mirror is to serve it. size: in bytes, if it is known."""
        hub = self._hubs.get(name.registry)
        if hub is None:
            return None
        try:
            if self._store.size(digest) is not None or not (hub.always or await self._is_full(size or 0)):
                return None
            return await hub.client.blob_location(name.repository, digest)
        except MirrorError as error:
            log.info("hub_not_asked", registry=name.registry, digest=str(digest), reason=str(error), effect="it is served here")
            return None

    async def _is_full(self, size: int) -> bool:
        if self._store.shortage(size) <= 0:
            return False
        await self._make_room(size)
        return self._store.shortage(size) > 0
