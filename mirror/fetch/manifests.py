"""Manifests by tag and by digest: from memory, from the store, or from the upstream, which is asked as rarely as is right.

- By digest, what is here is right for ever; it is given out under a repository's name only if that repository is known to
  have it.
- By tag: see `mirror.fetch.tag_answers`.
- Processes that share a store take turns to ask: who comes second finds in SQL and in the store what the first one was told.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

from cachetools import TTLCache

from mirror.errors import NotFound
from mirror.fetch.manifest_answer import ManifestAnswer, ManifestLimits, mark
from mirror.fetch.manifest_content import ManifestContents
from mirror.fetch.ports import LinkStore, TagStore
from mirror.fetch.result import CacheResult
from mirror.fetch.tag_answers import TagAnswers
from mirror.fetch.turns import Turns
from mirror.oci.accept import ANYTHING, Accept
from mirror.oci.digest import Digest
from mirror.oci.reference import Reference, RepositoryName
from mirror.store.blobs import BlobStore
from mirror.upstream.client import UpstreamClient
from mirror.upstream.flight import SingleFlight

__all__ = ["ManifestAnswer", "ManifestFetcher", "ManifestLimits"]


class ManifestFetcher:
    """Answers requests for manifests."""

    def __init__(
        self,
        store: BlobStore,
        tags: TagStore,
        links: LinkStore,
        limits: ManifestLimits | None = None,
        *,
        turns: Turns | None = None,
        clock: Callable[[], float] = time.time,
        is_at_hand: Callable[[Digest], Awaitable[bool]] | None = None,
    ) -> None:
        """turns: with other processes of this store; None if there are none.

        clock: Unix seconds; the time of a tag's last check is kept beyond this process's life.
        is_at_hand: whether a blob can be delivered without asking an upstream for it; None: all can.
        """
        limits = limits or ManifestLimits()
        self._limits = limits
        self._turns = turns
        self._contents = ManifestContents(store, links, limits)
        self._absent: TTLCache[tuple[RepositoryName, Digest], NotFound] = TTLCache(
            limits.max_remembered, limits.absent_seconds, timer=clock
        )
        self._flights: SingleFlight[tuple[RepositoryName, Digest], ManifestAnswer] = SingleFlight()
        self._by_tag = TagAnswers(
            self._contents, tags, limits, by_digest=self._by_digest, turn=self._turn, clock=clock, is_at_hand=is_at_hand
        )

    async def get(
        self,
        client: UpstreamClient,
        name: RepositoryName,
        reference: Reference,
        *,
        revalidate: bool = False,
        accept: Accept = ANYTHING,
    ) -> ManifestAnswer:
        """The manifest or index that the reference leads to. Raises NotFound, Denied, Unavailable, IntegrityError.

        revalidate: ask the upstream even if what is known is fresh, but not if it was asked a moment ago.
        accept: what the client takes; by digest that changes nothing.
        """
        if reference.digest is not None:
            return await self._by_digest(client, name, reference.digest)
        oldest = self._limits.revalidate_seconds if revalidate else None
        return await self._by_tag.get(client, name, str(reference), oldest, accept)

    @property
    def is_refreshing(self) -> bool:
        """Whether an upstream is being asked for a tag now."""
        return self._by_tag.is_refreshing

    async def close(self) -> None:
        """Give up what is under way."""
        await self._by_tag.close()
        await self._flights.close()

    async def _by_digest(self, client: UpstreamClient, name: RepositoryName, digest: Digest) -> ManifestAnswer:
        content = await self._contents.of_repository(name, digest)
        if content is not None:
            return content.answer(digest, CacheResult.HIT)
        absent = self._absent.get((name, digest))
        if absent is not None:
            raise NotFound(str(absent))
        answer, joined = await self._flights.run((name, digest), lambda: self._fetch_digest(client, name, digest))
        return mark(answer, joined)

    async def _fetch_digest(self, client: UpstreamClient, name: RepositoryName, digest: Digest) -> ManifestAnswer:
        async with self._turn(f"{name}@{digest}", client) as has_waited:
            content = await self._contents.of_repository(name, digest) if has_waited else None
            if content is not None:
                return content.answer(digest, CacheResult.JOINED)
            return await self._ask_digest(client, name, digest)

    async def _ask_digest(self, client: UpstreamClient, name: RepositoryName, digest: Digest) -> ManifestAnswer:
        reference, content = Reference(digest=digest), None
        try:
            if await self._contents.is_here(digest):
                # On behalf of another repository; that this one has it too costs no more than a question.
                info = await client.head_manifest(name.repository, reference)
                content = await self._contents.adopt(name, digest, info.media_type)
            if content is None:
                return await self._contents.keep(name, await client.get_manifest(name.repository, reference))
        except NotFound as error:
            self._absent[name, digest] = error
            raise
        return content.answer(digest, CacheResult.HIT)

    def _turn(self, key: str, client: UpstreamClient) -> AbstractAsyncContextManager[bool]:
        if self._turns is None:
            return contextlib.nullcontext(False)
        # In this time an upstream answers, or the one who asks gives up, or tries again.
        return self._turns.turn(key, client.upstream.connect_timeout + client.upstream.read_timeout)
