"""The bytes of one blob in order, from whatever upstream gives them, gone on with after every failure that allows it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import structlog

from mirror.errors import IntegrityError, MirrorError, Unavailable
from mirror.oci.digest import Digest
from mirror.upstream.blob_requests import BlobStream
from mirror.upstream.client import UpstreamClient
from mirror.upstream.model import Failure, UpstreamUnavailable
from mirror.upstream.policy import SHORT_REQUESTS, RetryPolicy, is_transient

log = structlog.get_logger()

LONG_TRANSFERS = RetryPolicy(attempts=10, first_delay=0.25, longest_delay=10.0)
PROGRESS_BYTES = 64 * 1024
"""A transfer that got this far after a failure counts as recovered: its tries are counted anew."""


@dataclass(frozen=True, slots=True)
class Source:
    """A repository that somebody who wants the blob may read."""

    client: UpstreamClient
    repository: str

    @property
    def name(self) -> str:
        """For logs: upstream and repository."""
        return f"{self.client.upstream.name}/{self.repository}"

    @property
    def ways(self) -> tuple[Source, ...]:
        """Mirrors of the upstream, in order, and the upstream itself."""
        return tuple(Source(client, repository) for client, repository in self.client.ways(self.repository))


@dataclass(frozen=True, slots=True)
class DownloadPolicy:
    """When a transfer is tried again; finite in any case."""

    begin: RetryPolicy = SHORT_REQUESTS
    """Before the first byte: clients still can go elsewhere."""
    resume: RetryPolicy = LONG_TRANSFERS
    """After it: clients have begun to read, and would have to begin anew."""
    max_resumes: int = 100
    """In one transfer, with progress between them or not."""


class Download:
    """One pass over a blob from an offset to its end. `total` is known once the first chunk, or the end, is there."""

    def __init__(
        self,
        sources: Sequence[Source],
        digest: Digest,
        *,
        offset: int,
        size: int | None,
        policy: DownloadPolicy,
        on_start: Callable[[int | None], None],
        on_refusal: Callable[[Source, MirrorError], None],
        in_progress: bool = False,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """sources: tried in order until one gives the blob; may grow meanwhile. size: of the whole blob, if a manifest says so.

        in_progress: somebody has begun to read the blob already.
        on_start: called once with the size of the whole blob when an upstream has begun to give it.
        on_refusal: called when a source cannot give it, before any has begun.
        """
        self._sources = sources
        self._digest = digest
        self._position = offset
        self._total = size
        self._policy = policy
        self._on_start = on_start
        self._on_refusal = on_refusal
        self._sleep = sleep
        self._started = in_progress
        self._validator: tuple[Source, str] | None = None
        self._source = 0
        self._failures = 0
        self._resumes = 0

    async def chunks(self) -> AsyncGenerator[bytes | memoryview, None]:
        """Yield the bytes, as many as the blob has, each chunk good until the next one. To be closed by who leaves early.

        Raises NotFound, Denied, UpstreamUnavailable, and IntegrityError if sizes contradict each other.
        """
        while True:
            began = self._position
            source = self._sources[self._source % len(self._sources)]
            try:
                async with self._open(source) as stream:
                    self._begin(stream)
                    self._validator = (source, stream.etag) if stream.etag is not None else None
                    async for chunk in stream.chunks:
                        self._advance(len(chunk))
                        yield chunk
                if self._total is None or self._position == self._total:
                    return
                error: MirrorError = UpstreamUnavailable(
                    f"upstream {source.client.upstream.name} ended {self._digest} after {self._position} of {self._total} bytes",
                    Failure.LOST,
                )
            except MirrorError as raised:
                if self._started and isinstance(raised, IntegrityError) and self._is_final(began):
                    raise
                error = raised
            if self._position - began >= PROGRESS_BYTES:
                self._failures = 0
            await self._pause_or_raise(source, error)

    def _open(self, source: Source) -> AbstractAsyncContextManager[BlobStream]:
        etag = self._validator[1] if self._validator is not None and self._validator[0] == source else None
        return source.client.open_blob(source.repository, self._digest, self._position, etag=etag, insist=self._started)

    def _is_final(self, began: int) -> bool:
        """Whether a contradiction ends the transfer: its bytes are in, or nobody else can be asked. began: where this try did."""
        return self._position != began or len(self._sources) == 1

    def _begin(self, stream: BlobStream) -> None:
        if self._total is None:
            self._total = stream.total
        elif stream.total is not None and stream.total != self._total:
            raise IntegrityError(f"{self._digest} has {stream.total} bytes upstream, {self._total} were promised")
        if self._total is not None and self._position > self._total:
            raise IntegrityError(f"{self._digest} has {self._total} bytes upstream, fewer than are here already")
        if stream.status == 416 and self._position != self._total:
            raise UpstreamUnavailable(f"upstream refuses to go on with {self._digest} at {self._position}", Failure.PROTOCOL)
        if not self._started:
            self._started = True
            self._on_start(self._total)

    def _advance(self, length: int) -> None:
        self._position += length
        if self._total is not None and self._position > self._total:
            raise IntegrityError(f"{self._digest} has more bytes upstream than the {self._total} promised")

    async def _pause_or_raise(self, source: Source, error: MirrorError) -> None:
        self._failures += 1
        retry_after = error.retry_after if isinstance(error, Unavailable) else None
        # The dice only spread the load.
        dice = random.random()  # noqa: S311
        if self._started:
            self._resumes += 1
            # Somebody is in the middle of reading: even an upstream that asks for a long pause is asked again.
            longest = self._policy.resume.longest_delay
            pause = self._policy.resume.delay(self._failures, dice, min(retry_after or 0.0, longest))
            if pause is None or self._resumes > self._policy.max_resumes:
                raise error
            place = {"digest": str(self._digest), "source": source.name, "offset": self._position}
            log.warning("transfer_interrupted", **place, reason=str(error), pause=round(pause, 3))
            # Another source of the same bytes may be better; with one it is the same again.
            self._source += 1
        else:
            is_last = self._source >= len(self._sources) - 1
            again = is_last and isinstance(error, UpstreamUnavailable) and is_transient(error.failure)
            pause = self._policy.begin.delay(self._failures, dice, retry_after) if again else None
            if pause is None:
                self._on_refusal(source, error)
                self._failures = 0
                self._source += 1
                if self._source >= len(self._sources):
                    raise error
                return
        await self._sleep(pause)
