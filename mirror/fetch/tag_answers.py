"""Manifests by tag: the upstream is asked as rarely as is right.

- A tag is fresh for a while. Then one HEAD, shared by all who wait for it, tells whether it moved; a manifest that is here
  already is not fetched again. Only a tag that was never seen is fetched by GET at once. A tag that is asked for shortly before
  its time is up is refreshed in the background, so that nobody waits for tags in use.
- If the upstream cannot be used, the last known answer is given, marked stale; then it is left alone for a moment. If it takes
  long, those who wait get the last known answer, and the next ones its answer. While it is left alone after many failures, the
  last known answer is given at once, and the upstream asked again in the background when it is time.
- A stale answer is not given for a tag whose image the mirror could not deliver: a client that hears so at the manifest can still
  pull from elsewhere, and many cannot any more when a blob is missing.
- The upstream is asked for every type of manifest. If a client does not take what a tag then stands for, it is asked with what
  this client takes, and all of this holds for its answer to that.
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
from typing import NamedTuple

import structlog
from cachetools import TTLCache

from mirror.errors import IntegrityError, InvalidInput, MirrorError, NotFound, Unavailable
from mirror.fetch.manifest_answer import ManifestAnswer, ManifestLimits, mark
from mirror.fetch.manifest_content import Content, ManifestContents, recall
from mirror.fetch.ports import TagStore
from mirror.fetch.result import CacheResult
from mirror.oci.accept import EVERYTHING, Accept
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


class _Question(NamedTuple):
    """A tag, and with which types an upstream is asked for it; empty: with all."""

    name: RepositoryName
    tag: str
    accept: str = ""

    def __str__(self) -> str:
        return f"{self.name}:{self.tag}" + (f" as {self.accept}" if self.accept else "")


class TagAnswers:
    """Answers requests for tags."""

    def __init__(
        self,
        contents: ManifestContents,
        tags: TagStore,
        limits: ManifestLimits,
        *,
        by_digest: Callable[[UpstreamClient, RepositoryName, Digest], Awaitable[ManifestAnswer]],
        turn: Callable[[str, UpstreamClient], AbstractAsyncContextManager[bool]],
        clock: Callable[[], float],
        is_at_hand: Callable[[Digest], Awaitable[bool]] | None,
    ) -> None:
        """by_digest: the manifest that a tag leads to. turn: of a key, between processes that ask this upstream.

        For the rest see `ManifestFetcher`.
        """
        self._contents = contents
        self._tags = tags
        self._limits = limits
        self._by_digest = by_digest
        self._turn = turn
        self._clock = clock
        self._is_at_hand = is_at_hand
        self._held: TTLCache[_Question, MirrorError] = TTLCache(limits.max_remembered, limits.hold_seconds, timer=clock)
        self._absent: TTLCache[_Question, NotFound] = TTLCache(limits.max_remembered, limits.absent_seconds, timer=clock)
        self._ahead: set[asyncio.Task[None]] = set()
        self._flights: SingleFlight[_Question, ManifestAnswer] = SingleFlight()

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

    async def get(
        self, client: UpstreamClient, name: RepositoryName, tag: str, oldest: float | None, accept: Accept
    ) -> ManifestAnswer:
        """The manifest. oldest: seconds that an answer may be old, if the client wants it fresher than usual."""
        answer = await self._answer(client, _Question(name, tag), oldest)
        if accept.takes(answer.media_type):
            return answer
        other = await self._answer(client, _Question(name, tag, accept.asks_for), oldest)
        return other if other.digest == answer.digest else replace(other, instead_of=answer)

    async def _answer(self, client: UpstreamClient, asked: _Question, oldest: float | None) -> ManifestAnswer:
        record = await recall(self._tags.get(*asked))
        if record is None:
            if oldest is None:
                self._refuse_absent(asked)
            answer, joined = await self._shared_refresh(client, asked, None, oldest)
            return mark(answer, joined)
        age, lifetime = self._clock() - record.checked_at, self._limits.tag_seconds
        held = self._held.get(asked)
        if held is None and asked.accept:
            held = self._held.get(_Question(asked.name, asked.tag))
        if age < self._oldest(oldest):
            if held is None and age > lifetime * (1 - self._limits.early) and _may_ask_ahead(client):
                self._refresh_ahead(client, asked, record)
            return await self._by_digest(client, asked.name, record.digest)
        if held is not None:
            return await self._stale(asked.name, record, held)
        suspension = client.suspension
        if suspension is not None:
            with contextlib.suppress(Unavailable):
                answer = await self._stale(asked.name, record, _suspended(asked.name, suspension))
                if client.is_probe_due:
                    self._refresh_ahead(client, asked, record)
                return answer
        try:
            async with asyncio.timeout(self._limits.patience_seconds):
                answer, joined = await self._shared_refresh(client, asked, record, oldest)
        except TimeoutError:
            slow = UpstreamUnavailable(f"upstream {asked.name.registry} takes long to say what {asked} is", Failure.TIMEOUT)
            with contextlib.suppress(Unavailable):
                answer = await self._stale(asked.name, record, slow)
                self._held[asked] = slow
                return answer
            answer, joined = await self._shared_refresh(client, asked, record, oldest)
        return mark(answer, joined)

    def _oldest(self, wanted: float | None) -> float:
        """Seconds that a tag's answer may be old."""
        return self._limits.tag_seconds if wanted is None else min(wanted, self._limits.tag_seconds)

    async def _shared_refresh(
        self, client: UpstreamClient, asked: _Question, record: TagRecord | None, oldest: float | None
    ) -> tuple[ManifestAnswer, bool]:
        return await self._flights.run(asked, lambda: self._refresh(client, asked, record, oldest))

    def _refresh_ahead(self, client: UpstreamClient, asked: _Question, record: TagRecord) -> None:
        """Ask the upstream while the last answer is still good; what comes of it is for the next requests to see."""
        if self._flights.is_under_way(asked):
            return

        early = self._limits.tag_seconds * (1 - self._limits.early)

        async def refresh() -> None:
            with contextlib.suppress(MirrorError):
                await self._shared_refresh(client, asked, record, early)

        task = asyncio.create_task(refresh())
        self._ahead.add(task)
        task.add_done_callback(self._ahead.discard)

    def _refuse_absent(self, asked: _Question) -> None:
        """Raise NotFound if the upstream has said so a moment ago."""
        absent = self._absent.get(asked)
        if absent is not None:
            raise NotFound(str(absent))

    async def _refresh(
        self, client: UpstreamClient, asked: _Question, record: TagRecord | None, oldest: float | None
    ) -> ManifestAnswer:
        """record: what this process knew. oldest: as in `get`, for what another process may know."""
        began = self._clock()
        async with self._turn(str(asked), client) as has_waited:
            if has_waited or record is not None:
                after = max(record.checked_at if record is not None else 0.0, min(began, self._clock() - self._oldest(oldest)))
                answer = await self._found_by_others(asked, after)
                if answer is not None:
                    return answer if record is not None else replace(answer, result=CacheResult.JOINED)
            return await self._refresh_alone(client, asked, record)

    async def _found_by_others(self, asked: _Question, after: float) -> ManifestAnswer | None:
        """What another process was told of the tag later than that (Unix seconds)."""
        record = await recall(self._tags.look(*asked))
        if record is None or record.checked_at <= after:
            return None
        content = await self._contents.of_repository(asked.name, record.digest)
        return content.answer(record.digest, CacheResult.HIT) if content is not None else None

    async def _refresh_alone(self, client: UpstreamClient, asked: _Question, record: TagRecord | None) -> ManifestAnswer:
        try:
            answer = await self._ask(client, asked, record)
        except NotFound as error:
            self._absent[asked] = error
            await recall(self._tags.forget(*asked))
            raise
        except (Unavailable, IntegrityError) as error:
            if record is None:
                raise
            answer = await self._stale(asked.name, record, error)
            self._held[asked] = error
            log.warning("manifest_stale", name=str(asked.name), tag=asked.tag, reason=str(error))
            return answer
        checked = TagRecord(answer.digest, answer.media_type, len(answer.raw), self._clock())
        await recall(self._tags.put(asked.name, asked.tag, checked, asked.accept))
        return answer

    async def _ask(self, client: UpstreamClient, asked: _Question, record: TagRecord | None) -> ManifestAnswer:
        name, reference, accept = asked.name, Reference(tag=asked.tag), asked.accept or EVERYTHING
        if record is not None:
            info = await client.head_manifest(name.repository, reference, accept)
            content = await self._contents.adopt(name, info.digest, info.media_type) if info.digest is not None else None
            if info.digest is not None and content is not None:
                return content.answer(info.digest, CacheResult.HIT)
        try:
            return await self._contents.keep(name, await client.get_manifest(name.repository, reference, accept))
        except InvalidInput:
            # Some turn everything into schema 1 rather than say no: nobody is served by that.
            usual = await self._usual(asked) if asked.accept else None
            if usual is None:
                raise
            return usual

    async def _usual(self, asked: _Question) -> ManifestAnswer | None:
        """What the tag stands for to others, if that is here."""
        record = await recall(self._tags.get(asked.name, asked.tag))
        content = await self._contents.of_repository(asked.name, record.digest) if record is not None else None
        if record is None or content is None:
            return None
        return content.answer(record.digest, CacheResult.HIT)

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
        return content.answer(record.digest, CacheResult.STALE, age)

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
