"""What blobs are needed for, as the state database and the manifests in the store tell."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence

from sqlalchemy import select

from mirror.errors import InvalidInput, MirrorError
from mirror.jobs.model import State
from mirror.oci.digest import Digest
from mirror.oci.manifest import Index, declared_media_type, parse_manifest
from mirror.state.engine import Database
from mirror.state.schema import images, layers, tags, usage
from mirror.store.blobs import BlobStore
from mirror.store.evictor import Needed

_AHEAD = [State.QUEUED, *(state for state in State if state.is_running)]
_ROWS = 500
"""Digests asked for in one statement."""


class BlobNeeds:
    """Implements `mirror.store.evictor.Needs`."""

    def __init__(
        self,
        database: Database,
        store: BlobStore,
        *,
        live_seconds: float,
        max_manifest_bytes: int,
        manifests: int = 5000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """live_seconds: how long ago a manifest may have been asked for. manifests: so many of each kind are looked at."""
        self._database = database
        self._store = store
        self._live_seconds = live_seconds
        self._max_manifest_bytes = max_manifest_bytes
        self._manifests = manifests
        self._clock = clock

    async def look(self) -> Needed:
        """As it is now. Raises Unavailable."""
        since = self._clock() - self._live_seconds
        waiting = select(images.c.manifest_digest).where(images.c.state.in_([state.value for state in _AHEAD]))
        tagged = select(tags.c.digest).where(tags.c.checked_at >= since).order_by(tags.c.checked_at.desc())
        used = select(usage.c.manifest_digest).where(usage.c.last_used >= since).order_by(usage.c.last_used.desc())
        found = []
        async with self._database.read() as connection:
            for statement in (waiting.order_by(images.c.queued_at), tagged, used):
                texts = (await connection.execute(statement.limit(self._manifests))).scalars()
                found.append([Digest.parse(text) for text in texts])
        busy = await asyncio.to_thread(self._named, found[0])
        live = await asyncio.to_thread(self._named, [*found[1], *found[2]])
        return Needed(busy, live)

    async def held(self, digests: Sequence[Digest]) -> frozenset[Digest]:
        """Those that a CVMFS repository holds as layers. Raises Unavailable."""
        found: set[Digest] = set()
        async with self._database.read() as connection:
            for first in range(0, len(digests), _ROWS):
                wanted = [str(digest) for digest in digests[first : first + _ROWS]]
                rows = await connection.execute(select(layers.c.digest).where(layers.c.digest.in_(wanted)).distinct())
                found.update(Digest.parse(text) for text in rows.scalars())
        return frozenset(found)

    def _named(self, manifests: Iterable[Digest]) -> frozenset[Digest]:
        """These manifests, and all that they name; of an index, what those of its manifests name that were pulled."""
        named: set[Digest] = set()
        seen: set[Digest] = set()
        waiting = list(manifests)
        while waiting:
            digest = waiting.pop()
            if digest in seen:
                continue
            seen.add(digest)
            named.add(digest)
            try:
                raw = self._store.read(digest, self._max_manifest_bytes)
                manifest = parse_manifest(raw, declared_media_type(raw) or "")
            except (InvalidInput, MirrorError):
                continue
            references = [reference.digest for reference in manifest.references]
            if isinstance(manifest, Index):
                waiting += references
            named.update(references)
        return frozenset(named)
