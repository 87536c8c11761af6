"""Manifests by tag and by digest: from memory, from the store, or from the upstream, which is asked as rarely as is right.

- By digest, what is here is right for ever; it is given out under a repository's name only if that repository is known to
  have it.
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

Failures of the store or of SQL are logged and cost the next request more; they never fail a pull.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import TypeVar

import structlog
from cachetools import LRUCache, TTLCache

from mirror.errors import IntegrityError, InvalidInput, MirrorError, NotFound, Unavailable
from mirror.fetch.ports import LinkStore, TagStore
from mirror.fetch.result import CacheResult
from mirror.fetch.turns import Turns
from mirror.oci.digest import Digest
from mirror.oci.manifest import Descriptor, ImageManifest, parse_manifest
from mirror.oci.reference import Reference, RepositoryName
from mirror.store.blobs import BlobStore
from mirror.store.tags import TagRecord
from mirror.upstream.client import UpstreamClient
from mirror.upstream.flight import SingleFlight
from mirror.upstream.model import Failure, FetchedManifest, UpstreamUnavailable

log = structlog.get_logger()
T = TypeVar("T")

_NO_BLOBS_EITHER = frozenset({Failure.UNREACHABLE, Failure.TIMEOUT, Failure.LOST, Failure.ERROR, Failure.SUSPENDED})
"""Failures of an upstream that let nobody expect blobs of it; one that throttles goes on giving those."""


@dataclass(frozen=True, slots=True)
class ManifestAnswer:
    """A manifest for a request."""

    raw: bytes
    """Byte for byte as the upstream gave it."""
    media_type: str
    digest: Digest
    result: CacheResult
    age: float | None = None
    """Seconds since the upstream said so, of a stale answer."""


@dataclass(frozen=True, slots=True)
class ManifestLimits:
    """Bounds of fetching manifests; times in seconds."""

    tag_seconds: float = 60.0
    """How long a tag's answer is fresh."""
    hold_seconds: float = 5.0
    """How long an upstream that failed for a tag is not asked for it again, if there is a last known answer."""
    memory_bytes: int = 64 << 20
    """Of manifests kept in memory."""
    max_remembered: int = 50_000
    """Pairs of repository and digest, failed tags, and names that do not exist, kept in memory; so many of each."""
    max_manifest_bytes: int = 4 << 20
    absent_seconds: float = 10.0
    """How long an upstream's word counts that it does not have something."""
    patience_seconds: float = 5.0
    """How long an upstream may take for a tag, if there is a last known answer, until that is given."""
    revalidate_seconds: float = 5.0
    """How old an answer must be for a client's `no-cache` to make the mirror ask again."""
    early: float = 0.2
    """The last share of a tag's time in which asking for it refreshes it in the background."""


@dataclass(frozen=True, slots=True)
class _Content:
    raw: bytes
    media_type: str


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
        self._is_at_hand = is_at_hand
        self._store = store
        self._tags = tags
        self._links = links
        self._limits = limits or ManifestLimits()
        self._turns = turns
        self._clock = clock
        self._contents: LRUCache[Digest, _Content] = LRUCache(
            self._limits.memory_bytes, getsizeof=lambda content: len(content.raw) + 512
        )
        self._served: LRUCache[tuple[RepositoryName, Digest], bool] = LRUCache(self._limits.max_remembered)
        self._held: TTLCache[tuple[RepositoryName, str], MirrorError] = TTLCache(
            self._limits.max_remembered, self._limits.hold_seconds, timer=clock
        )
        self._absent: TTLCache[tuple[RepositoryName, str], NotFound] = TTLCache(
            self._limits.max_remembered, self._limits.absent_seconds, timer=clock
        )
        self._ahead: set[asyncio.Task[None]] = set()
        self._tag_flights: SingleFlight[tuple[RepositoryName, str], ManifestAnswer] = SingleFlight()
        self._digest_flights: SingleFlight[tuple[RepositoryName, Digest], ManifestAnswer] = SingleFlight()

    async def get(
        self, client: UpstreamClient, name: RepositoryName, reference: Reference, *, revalidate: bool = False
    ) -> ManifestAnswer:
        """The manifest or index that the reference leads to. Raises NotFound, Denied, Unavailable, IntegrityError.

        revalidate: ask the upstream even if what is known is fresh, but not if it was asked a moment ago.
        """
        if reference.digest is not None:
            return await self._by_digest(client, name, reference.digest)
        return await self._by_tag(client, name, str(reference), self._limits.revalidate_seconds if revalidate else None)

    @property
    def is_refreshing(self) -> bool:
        """Whether an upstream is being asked for a tag now."""
        return bool(self._tag_flights)

    async def close(self) -> None:
        """Give up what is under way."""
        for task in self._ahead:
            task.cancel()
        await asyncio.gather(*self._ahead, return_exceptions=True)
        await self._tag_flights.close()
        await self._digest_flights.close()

    # By digest

    async def _by_digest(self, client: UpstreamClient, name: RepositoryName, digest: Digest) -> ManifestAnswer:
        content = await self._local(name, digest)
        if content is not None:
            return ManifestAnswer(content.raw, content.media_type, digest, CacheResult.HIT)
        self._refuse_absent(name, str(digest))
        answer, joined = await self._digest_flights.run((name, digest), lambda: self._fetch_digest(client, name, digest))
        return _mark(answer, joined)

    async def _fetch_digest(self, client: UpstreamClient, name: RepositoryName, digest: Digest) -> ManifestAnswer:
        async with self._turn(f"{name}@{digest}", client) as has_waited:
            content = await self._local(name, digest) if has_waited else None
            if content is not None:
                return ManifestAnswer(content.raw, content.media_type, digest, CacheResult.JOINED)
            return await self._ask_digest(client, name, digest)

    async def _ask_digest(self, client: UpstreamClient, name: RepositoryName, digest: Digest) -> ManifestAnswer:
        reference = Reference(digest=digest)
        content = await self._content(digest)
        try:
            if content is None:
                return await self._keep(name, await client.get_manifest(name.repository, reference))
            # It is here on behalf of another repository; that this one has it too costs no more than a question.
            await client.head_manifest(name.repository, reference)
        except NotFound as error:
            self._absent[name, str(digest)] = error
            raise
        await self._link(name, digest, content)
        return ManifestAnswer(content.raw, content.media_type, digest, CacheResult.HIT)

    # By tag

    async def _by_tag(self, client: UpstreamClient, name: RepositoryName, tag: str, oldest: float | None) -> ManifestAnswer:
        """oldest: seconds that an answer may be old, if the client wants it fresher than usual."""
        record = await self._recall(self._tags.get(name, tag))
        if record is None:
            if oldest is None:
                self._refuse_absent(name, tag)
            answer, joined = await self._shared_refresh(client, name, tag, None, oldest)
            return _mark(answer, joined)
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
        return _mark(answer, joined)

    def _oldest(self, wanted: float | None) -> float:
        """Seconds that a tag's answer may be old."""
        return self._limits.tag_seconds if wanted is None else min(wanted, self._limits.tag_seconds)

    async def _shared_refresh(
        self, client: UpstreamClient, name: RepositoryName, tag: str, record: TagRecord | None, oldest: float | None
    ) -> tuple[ManifestAnswer, bool]:
        return await self._tag_flights.run((name, tag), lambda: self._refresh(client, name, tag, record, oldest))

    def _refresh_ahead(self, client: UpstreamClient, name: RepositoryName, tag: str, record: TagRecord) -> None:
        """Ask the upstream while the last answer is still good; what comes of it is for the next requests to see."""
        if self._tag_flights.is_under_way((name, tag)):
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
        """record: what this process knew. oldest: as in `_by_tag`, for what another process may know."""
        began = self._clock()
        async with self._turn(f"{name}:{tag}", client) as has_waited:
            if has_waited or record is not None:
                after = max(record.checked_at if record is not None else 0.0, min(began, self._clock() - self._oldest(oldest)))
                answer = await self._found_by_others(name, tag, after)
                if answer is not None:
                    return answer if record is not None else replace(answer, result=CacheResult.JOINED)
            return await self._refresh_alone(client, name, tag, record)

    async def _found_by_others(self, name: RepositoryName, tag: str, after: float) -> ManifestAnswer | None:
        """What another process was told of the tag later than that (Unix seconds)."""
        record = await self._recall(self._tags.look(name, tag))
        if record is None or record.checked_at <= after:
            return None
        content = await self._local(name, record.digest)
        return ManifestAnswer(content.raw, content.media_type, record.digest, CacheResult.HIT) if content is not None else None

    async def _refresh_alone(
        self, client: UpstreamClient, name: RepositoryName, tag: str, record: TagRecord | None
    ) -> ManifestAnswer:
        try:
            answer = await self._ask(client, name, tag, record)
        except NotFound as error:
            self._absent[name, tag] = error
            await self._try(self._tags.forget(name, tag))
            raise
        except (Unavailable, IntegrityError) as error:
            if record is None:
                raise
            answer = await self._stale(name, record, error)
            self._held[name, tag] = error
            log.warning("manifest_stale", name=str(name), tag=tag, reason=str(error))
            return answer
        checked = TagRecord(answer.digest, answer.media_type, len(answer.raw), self._clock())
        await self._try(self._tags.put(name, tag, checked))
        return answer

    async def _ask(self, client: UpstreamClient, name: RepositoryName, tag: str, record: TagRecord | None) -> ManifestAnswer:
        if record is not None:
            info = await client.head_manifest(name.repository, Reference(tag=tag))
            content = await self._content(info.digest) if info.digest is not None else None
            if info.digest is not None and content is not None:
                await self._link(name, info.digest, content)
                return ManifestAnswer(content.raw, content.media_type, info.digest, CacheResult.HIT)
        return await self._keep(name, await client.get_manifest(name.repository, Reference(tag=tag)))

    async def _stale(self, name: RepositoryName, record: TagRecord, error: MirrorError) -> ManifestAnswer:
        content = await self._local(name, record.digest)
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

    async def _is_deliverable(self, content: _Content) -> bool:
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

    def _turn(self, key: str, client: UpstreamClient) -> AbstractAsyncContextManager[bool]:
        if self._turns is None:
            return contextlib.nullcontext(False)
        # In this time an upstream answers, or the one who asks gives up, or tries again.
        return self._turns.turn(key, client.upstream.connect_timeout + client.upstream.read_timeout)

    # What is here

    async def _local(self, name: RepositoryName, digest: Digest) -> _Content | None:
        """The manifest, if it is here and the repository is known to have it."""
        if self._served.get((name, digest)) is None and await self._recall(self._links.find(name, digest)) is None:
            return None
        content = self._contents.get(digest) or await self._content(digest)
        if content is not None:
            self._served[name, digest] = True
        return content

    async def _content(self, digest: Digest) -> _Content | None:
        """The manifest, if it is here on behalf of whatever repository."""
        known = self._contents.get(digest)
        if known is not None:
            return known
        descriptor = await self._recall(self._links.manifest(digest))
        if descriptor is None:
            return None
        try:
            raw = await asyncio.to_thread(self._store.read, digest, self._limits.max_manifest_bytes)
        except MirrorError as error:
            if not isinstance(error, NotFound):
                log.warning("manifest_unreadable", digest=str(digest), reason=str(error))
            return None
        if Digest.of(raw, digest.algorithm) != digest:
            log.error("manifest_damaged", digest=str(digest), path=str(self._store.path(digest)))
            await asyncio.to_thread(self._store.delete, digest)
            return None
        content = _Content(raw, descriptor.media_type)
        self._remember(digest, content)
        return content

    async def _keep(self, name: RepositoryName, fetched: FetchedManifest) -> ManifestAnswer:
        content = _Content(fetched.raw, fetched.media_type)
        try:
            await asyncio.to_thread(self._store.put, fetched.digest, fetched.raw)
        except Unavailable as error:
            log.warning("manifest_not_kept", digest=str(fetched.digest), reason=str(error))
        self._remember(fetched.digest, content)
        await self._link(name, fetched.digest, content)
        return ManifestAnswer(fetched.raw, fetched.media_type, fetched.digest, CacheResult.MISS)

    async def _link(self, name: RepositoryName, digest: Digest, content: _Content) -> None:
        self._served[name, digest] = True
        try:
            references = parse_manifest(content.raw, content.media_type).references
        except InvalidInput as error:
            log.warning("manifest_not_understood", name=str(name), digest=str(digest), reason=str(error))
            references = ()
        await self._try(self._links.add(name, Descriptor(content.media_type, digest, len(content.raw)), references))

    def _remember(self, digest: Digest, content: _Content) -> None:
        if len(content.raw) <= self._limits.memory_bytes // 8:
            self._contents[digest] = content

    async def _recall(self, question: Awaitable[T | None]) -> T | None:
        try:
            return await question
        except Unavailable as error:
            log.warning("state_unavailable", reason=str(error))
            return None

    async def _try(self, note: Awaitable[None]) -> None:
        await self._recall(note)


def _mark(answer: ManifestAnswer, joined: bool) -> ManifestAnswer:
    return replace(answer, result=CacheResult.JOINED) if joined and answer.result is CacheResult.MISS else answer


def _may_ask_ahead(client: UpstreamClient) -> bool:
    return client.is_probe_due if client.is_suspended else not client.budget.is_low


def _suspended(name: RepositoryName, why: Failure) -> UpstreamUnavailable:
    return UpstreamUnavailable(f"upstream {name.registry} is not asked for a while, after many failures", why)
