"""Manifests by tag: the upstream is asked as rarely as is right.

- A tag is fresh for a while. Then one HEAD, shared by all who wait for it, tells whether it moved; a manifest that is here
  already is not fetched again. Only a tag that was never seen is fetched by GET at once. A tag that is asked for shortly before
  its time is up is refreshed in the background, so that nobody waits for tags in use.
- If the upstream cannot be used, the last known answer is given, marked stale; then it is left alone for a moment. If it takes
  long, those who wait get the last known answer, and the next ones its answer. While it is left alone after many failures, the
  last known answer is given at once, and the upstream asked again in the background when it is time.
- A stale answer is not given for a tag whose image the mirror could not deliver: a client that hears so at the manifest can still
  pull from elsewhere, and many cannot any more when a blob is missing.
- Tags are not refreshed ahead while the upstream grants few pulls.
- Processes that share a store take turns to ask: who comes second finds in SQL and in the store what the first one was told.
- If the upstream says that there is no such tag, the tag is forgotten, and the upstream not asked again for a moment.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

import structlog
from cachetools import TTLCache

from mirror.errors import IntegrityError, InvalidInput, MirrorError, NotFound, Unavailable
from mirror.fetch.manifest_answer import ManifestAnswer, ManifestLimits, mark
from mirror.fetch.manifest_content import Content, ManifestContents, recall
from mirror.fetch.ports import TagStore
from mirror.fetch.result import CacheResult
from mirror.oci.digest import Digest
from mirror.oci.manifest import ImageManifest, parse_manifest
from mirror.oci.reference import Reference, RepositoryName
from mirror.store.tags import TagRecord
from mirror.upstream.client import UpstreamClient
from mirror.upstream.flight import SingleFlight
from mirror.upstream.model import Failure, UpstreamUnavailable

log = structlog.get_logger()

_NO_BLOBS_EITHER = frozenset({Failure.UNREACHABLE, Failure.TIMEOUT, Failure.LOST, Failure.ERROR, Failure.SUSPENDED})
"""Failures of an upstream that let nobody expect blobs of it; one that throttles goes on giving those."""


class TagAnswers:
    """Answers requests for tags."""

    def __init__(
        self,
        contents: ManifestContents,
        tags: TagStore,
        limits: ManifestLimits,
        *,
        by_digest: Callable[[UpstreamClient, RepositoryName, Digest], Awaitable[ManifestAnswer]],
        turn: Callable[[str], AbstractAsyncContextManager[bool]],
        clock: Callable[[], float],
        is_at_hand: Callable[[Digest], Awaitable[bool]] | None,
    ) -> None:
        """by_digest: the manifest that a tag leads to. turn: of a key, between processes. For the rest see `ManifestFetcher`."""
        self._contents = contents
        self._tags = tags
        self._limits = limits
        self._by_digest = by_digest
        self._turn = turn
        self._clock = clock
        self._is_at_hand = is_at_hand
        self._held: TTLCache[tuple[RepositoryName, str], MirrorError] = TTLCache(
            limits.max_remembered, limits.hold_seconds, timer=clock
        )
        self._absent: TTLCache[tuple[RepositoryName, str], NotFound] = TTLCache(
            limits.max_remembered, limits.absent_seconds, timer=clock
        )
        self._ahead: set[asyncio.Task[None]] = set()
        self._flights: SingleFlight[tuple[RepositoryName, str], ManifestAnswer] = SingleFlight()

    @property
    def is_refreshing(self) -> bool:
        """Whether an upstream is being asked now."""
        return bool(self._flights)

    async def close(self) -> None:
        """Give up what is under way."""
        for task in self._ahead:
            task.cancel()
        await asyncio.gather(*self._ahead, return_exceptions=True)
        await self._flights.close()

    async def get(self, client: UpstreamClient, name: RepositoryName, tag: str, oldest: float | None) -> ManifestAnswer:
        """The manifest. oldest: seconds that an answer may be old, if the client wants it fresher than usual."""
        record = await recall(self._tags.get(name, tag))
        if record is None:
            if oldest is None:
                self._refuse_absent(name, tag)
            answer, joined = await self._shared_refresh(client, name, tag, None, oldest)
            return mark(answer, joined)
        age, lifetime = self._clock() - record.checked_at, self._limits.tag_seconds
        held = self._held.get((name, tag))
        if age < self._oldest(oldest):
            if held is None and age > lifetime * (1 - self._limits.early) and _may_ask_ahead(client):
                self._refresh_ahead(client, name, tag, record)
            return await self._by_digest(client, name, record.digest)
        if held is not None:
            return await self._stale(name, record, held)
        suspension = client.suspension
        if suspension is not None:
            with contextlib.suppress(Unavailable):
                answer = await self._stale(name, record, _suspended(name, suspension))
                if client.is_probe_due:
                    self._refresh_ahead(client, name, tag, record)
                return answer
        try:
            async with asyncio.timeout(self._limits.patience_seconds):
                answer, joined = await self._shared_refresh(client, name, tag, record, oldest)
        except TimeoutError:
            slow = UpstreamUnavailable(f"upstream {name.registry} takes long to say what {name}:{tag} is", Failure.TIMEOUT)
            with contextlib.suppress(Unavailable):
                answer = await self._stale(name, record, slow)
                self._held[name, tag] = slow
                return answer
            answer, joined = await self._shared_refresh(client, name, tag, record, oldest)
        return mark(answer, joined)

    def _oldest(self, wanted: float | None) -> float:
        """Seconds that a tag's answer may be old."""
        return self._limits.tag_seconds if wanted is None else min(wanted, self._limits.tag_seconds)

    async def _shared_refresh(
        self, client: UpstreamClient, name: RepositoryName, tag: str, record: TagRecord | None, oldest: float | None
    ) -> tuple[ManifestAnswer, bool]:
        return await self._flights.run((name, tag), lambda: self._refresh(client, name, tag, record, oldest))

    def _refresh_ahead(self, client: UpstreamClient, name: RepositoryName, tag: str, record: TagRecord) -> None:
        """Ask the upstream while the last answer is still good; what comes of it is for the next requests to see."""
        if self._flights.is_under_way((name, tag)):
            return

        early = self._limits.tag_seconds * (1 - self._limits.early)

        async def refresh() -> None:
            with contextlib.suppress(MirrorError):
                await self._shared_refresh(client, name, tag, record, early)

        task = asyncio.create_task(refresh())
        self._ahead.add(task)
        task.add_done_callback(self._ahead.discard)

    def _refuse_absent(self, name: RepositoryName, reference: str) -> None:
        """Raise NotFound if the upstream has said so a moment ago."""
        absent = self._absent.get((name, reference))
        if absent is not None:
            raise NotFound(str(absent))

    async def _refresh(
        self, client: UpstreamClient, name: RepositoryName, tag: str, record: TagRecord | None, oldest: float | None
    ) -> ManifestAnswer:
        """record: what this process knew. oldest: as in `get`, for what another process may know."""
        began = self._clock()
        async with self._turn(f"{name}:{tag}") as has_waited:
            if has_waited or record is not None:
                after = max(record.checked_at if record is not None else 0.0, min(began, self._clock() - self._oldest(oldest)))
                answer = await self._found_by_others(name, tag, after)
                if answer is not None:
                    return answer if record is not None else replace(answer, result=CacheResult.JOINED)
            return await self._refresh_alone(client, name, tag, record)

    async def _found_by_others(self, name: RepositoryName, tag: str, after: float) -> ManifestAnswer | None:
        """What another process was told of the tag later than that (Unix seconds)."""
        record = await recall(self._tags.look(name, tag))
        if record is None or record.checked_at <= after:
            return None
        content = await self._contents.of_repository(name, record.digest)
        return ManifestAnswer(content.raw, content.media_type, record.digest, CacheResult.HIT) if content is not None else None

    async def _refresh_alone(
        self, client: UpstreamClient, name: RepositoryName, tag: str, record: TagRecord | None
    ) -> ManifestAnswer:
        try:
            answer = await self._ask(client, name, tag, record)
        except NotFound as error:
            self._absent[name, tag] = error
            await recall(self._tags.forget(name, tag))
            raise
        except (Unavailable, IntegrityError) as error:
            if record is None:
                raise
            answer = await self._stale(name, record, error)
            self._held[name, tag] = error
            log.warning("manifest_stale", name=str(name), tag=tag, reason=str(error))
            return answer
        checked = TagRecord(answer.digest, answer.media_type, len(answer.raw), self._clock())
        await recall(self._tags.put(name, tag, checked))
        return answer

    async def _ask(self, client: UpstreamClient, name: RepositoryName, tag: str, record: TagRecord | None) -> ManifestAnswer:
        if record is not None:
            info = await client.head_manifest(name.repository, Reference(tag=tag))
            content = await self._contents.find(info.digest) if info.digest is not None else None
            if info.digest is not None and content is not None:
                await self._contents.link(name, info.digest, content)
                return ManifestAnswer(content.raw, content.media_type, info.digest, CacheResult.HIT)
        return await self._contents.keep(name, await client.get_manifest(name.repository, Reference(tag=tag)))

    async def _stale(self, name: RepositoryName, record: TagRecord, error: MirrorError) -> ManifestAnswer:
        content = await self._contents.of_repository(name, record.digest)
        if content is None:
            raise error
        if (
            isinstance(error, UpstreamUnavailable)
            and error.failure in _NO_BLOBS_EITHER
            and not await self._is_deliverable(content)
        ):
            raise Unavailable(
                f"{name}@{record.digest} is known, but not all of its blobs are here, and they cannot be had now: {error}",
                error.retry_after,
            ) from error
        age = max(self._clock() - record.checked_at, 0.0)
        return ManifestAnswer(content.raw, content.media_type, record.digest, CacheResult.STALE, age)

    async def _is_deliverable(self, content: Content) -> bool:
        """Whether all blobs of an image are at hand; of an index that is not asked, for nobody wants all of it."""
        if self._is_at_hand is None:
            return True
        try:
            manifest = parse_manifest(content.raw, content.media_type)
        except InvalidInput:
            return True
        # What has addresses of its own is not asked of registries.
        blobs = [blob for blob in manifest.references if not blob.urls] if isinstance(manifest, ImageManifest) else []
        for blob in blobs:
            if not await self._is_at_hand(blob.digest):
                return False
        return True


def _may_ask_ahead(client: UpstreamClient) -> bool:
    return client.is_probe_due if client.is_suspended else not client.budget.is_low


def _suspended(name: RepositoryName, why: Failure) -> UpstreamUnavailable:
    return UpstreamUnavailable(f"upstream {name.registry} is not asked for a while, after many failures", why)
