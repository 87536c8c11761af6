"""A repository's files over HTTP: one client for the blocking source and for replication.

`publisher.objects.curl` does the protocol. No answer is read beyond the bytes that the caller allows, and none may take for ever:
silence and crawling both end it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Self, TypeVar

from yarl import URL

from mirror.errors import InvalidInput, NotFound
from mirror.upstream.model import Failure, UpstreamUnavailable
from mirror.upstream.policy import RetryPolicy, is_server_error, parse_retry_after
from publisher.errors import RepositoryDamaged
from publisher.objects.curl import Answer, Connections, Patience, Request

Result = TypeVar("Result")

ATTEMPTS = RetryPolicy(attempts=4, first_delay=0.25, longest_delay=10.0)
_FRESH = "Cache-Control: no-cache"
_SHORT = 1 << 20
"""An answer of no more bytes needs no watch over silence: the time for the whole of it is short enough."""
_SURE_SECONDS = 2.0
"""A file that was changed so shortly before it was served may change again within the second that its validators can tell."""


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What is accepted of a web server; seconds and bytes."""

    connections: int = 200
    connect_seconds: float = 10.0
    silence_seconds: float = 30.0
    """Without a byte."""
    slowest_rate: int = 4096
    """Bytes a second, on average over a whole answer, below which it is given up."""
    attempts: RetryPolicy = ATTEMPTS
    """For everything that may pass by itself: no connection, a broken one, silence, server errors, throttling."""
    file_bytes: int = 1 << 20
    """Largest named file, certificate or meta-info."""
    object_bytes: int = 1 << 30
    """Largest object that the blocking source takes into memory."""
    streamed_bytes: int = 1 << 40
    """Largest object that it gives a piece at a time."""

    def __post_init__(self) -> None:
        """Raises InvalidInput where nothing could ever be read."""
        if min(self.connections, self.connect_seconds, self.silence_seconds, self.slowest_rate) <= 0:
            raise InvalidInput("connections, time-outs and rates of a repository's web server must be more than 0")


@dataclass(frozen=True, slots=True)
class Validators:
    """What a server said of a file's version, to ask whether there is another one; RFC 9110, section 8.8."""

    etag: str | None
    modified: str | None


class Body:
    """An answer's content, of at most the bytes that were allowed; to be used in a `with`, which frees the connection."""

    def __init__(self, answer: Answer, limit: int, offset: int) -> None:
        """Not to be called directly: `RepositoryClient.begin` is."""
        self._answer = answer
        self._left = limit - offset
        self._limit = limit
        self.offset = offset
        """Bytes of the file before those that come."""
        self.length = None if answer.length is None else offset + answer.length
        """Bytes of the file, if the server says it."""
        self.is_unchanged = answer.status == 304
        """Whether the server says that the caller has it already."""

    async def read(self) -> bytes:
        """The next bytes that arrived; empty at the end. Raises RepositoryDamaged when there are too many, Unavailable."""
        if self.length is not None and self.length > self._limit:
            raise self._too_large()
        piece = await self._answer.read()
        self._left -= len(piece)
        if self._left < 0:
            raise self._too_large()
        return piece

    async def whole(self) -> bytes:
        """All of it. Raises RepositoryDamaged when it is too much, Unavailable."""
        first = await self.read()
        if self.offset + len(first) == self.length:
            return first
        pieces = [first]
        while piece := await self.read():
            pieces.append(piece)
        return b"".join(pieces)

    @property
    def validators(self) -> Validators | None:
        """To be used the next time; None where they could hide a change."""
        header = self._answer.header
        etag, modified = header("etag"), header("last-modified")
        if modified is not None and not _is_settled(modified, header("date")):
            return None
        return Validators(etag, modified) if etag or modified else None

    @property
    def if_range(self) -> str | None:
        """What the rest is to be asked for with, so that it comes only from this very version; RFC 9110, section 13.1.5."""
        header = self._answer.header
        etag, modified = header("etag"), header("last-modified")
        if etag is not None and not etag.startswith("W/"):
            return etag
        return modified if modified is not None and _is_settled(modified, header("date")) else None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._answer.release()

    def _too_large(self) -> RepositoryDamaged:
        return RepositoryDamaged(
            f"{self._answer.what} has more than the {self._limit} bytes that it may have; it was not read on"
        )


class RepositoryClient:
    """Reads one repository; for one event loop, any number of tasks."""

    def __init__(
        self, connections: Connections, base: URL, limits: HttpLimits, sleep: Callable[[float], Awaitable[None]]
    ) -> None:
        """Not to be called directly: `open_client` is."""
        self._connections = connections
        self._base = str(base)
        self.limits = limits
        self._sleep = sleep
        self._patience: dict[int, Patience] = {}

    @property
    def url(self) -> str:
        """Of the repository."""
        return self._base

    async def read(self, path: str, limit: int, *, fresh: bool = False) -> bytes:
        """A whole file below the repository's root, tried several times.

        fresh: past all caches on the way. Raises NotFound, RepositoryDamaged if it has more than `limit` bytes, Unavailable.
        """

        async def once() -> bytes:
            async with await self.begin(path, limit, fresh=fresh) as body:
                return await body.whole()

        return await self.retrying(once)

    async def read_if_changed(
        self, path: str, limit: int, known: Validators | None, *, fresh: bool = False
    ) -> tuple[bytes, Validators | None] | None:
        """A file with its validators; None if the known ones still hold. Tried once. Raises as `read`."""
        headers = [_FRESH] if fresh else []
        if known and known.etag:
            headers.append(f"If-None-Match: {known.etag}")
        elif known and known.modified:
            headers.append(f"If-Modified-Since: {known.modified}")
        async with await self._ask(path, limit, headers, may_be_unchanged=known is not None) as body:
            if body.is_unchanged:
                return None
            return await body.whole(), body.validators

    async def exists(self, path: str) -> bool:
        """Whether a file is there, tried several times. Raises Unavailable."""

        async def once() -> bool:
            try:
                async with await self._ask(path, 0, is_head=True):
                    return True
            except NotFound:
                return False

        return await self.retrying(once)

    async def begin(self, path: str, limit: int, *, fresh: bool = False, offset: int = 0, if_range: str | None = None) -> Body:
        """A file's content, to be read as it arrives; tried once.

        offset: bytes that the caller has already; they come again if the server has another version of the file than `if_range`
        says, or serves no parts: see `Body.offset`. Raises NotFound, Unavailable; reading it, RepositoryDamaged if the file has
        more than `limit` bytes.
        """
        headers = [_FRESH] if fresh else []
        if offset:
            condition = [f"If-Range: {if_range}"] if if_range else []
            body = await self._ask_from(offset, path, limit, [*headers, f"Range: bytes={offset}-", *condition])
            if body is not None:
                return body
        return await self._ask(path, limit, headers)

    async def retrying(self, once: Callable[[], Awaitable[Result]], gained: Callable[[], int] = lambda: 0) -> Result:
        """Do something with this client until it succeeds, or fails for good, or was tried often enough.

        gained: how far it has come; tries are counted from the last one that came further than all before.
        """
        failures, best = 0, 0
        while True:
            try:
                return await once()
            except UpstreamUnavailable as error:
                if gained() > best:
                    failures, best = 0, gained()
                failures += 1
                pause = self.limits.attempts.delay(failures, random.random(), error.retry_after)  # noqa: S311 (spreads load)
                if pause is None or error.failure is Failure.PROTOCOL:
                    raise
            await self._sleep(pause)

    async def _ask(
        self, path: str, limit: int, headers: Sequence[str] = (), *, may_be_unchanged: bool = False, is_head: bool = False
    ) -> Body:
        answer = await self._answer(path, limit, headers, is_head=is_head)
        if answer.status == 200 or (answer.status == 304 and may_be_unchanged):
            return Body(answer, limit, 0)
        answer.release()
        raise _refusal(answer)

    async def _ask_from(self, offset: int, path: str, limit: int, headers: Sequence[str]) -> Body | None:
        """The rest of a file, or all of it; None if the server misunderstands, or has nothing after the offset."""
        answer = await self._answer(path, limit, headers)
        if answer.status == 200:
            return Body(answer, limit, 0)
        if answer.status == 206 and (answer.header("content-range") or "").startswith(f"bytes {offset}-"):
            return Body(answer, limit, offset)
        answer.release()
        if answer.status in {206, 416}:
            return None
        raise _refusal(answer)

    async def _answer(self, path: str, limit: int, headers: Sequence[str], *, is_head: bool = False) -> Answer:
        return await self._connections.ask(Request(f"{self._base}/{path}", self._patience_for(limit), headers, is_head))

    def _patience_for(self, limit: int) -> Patience:
        """By the bytes that may come, in powers of two: there are few of them."""
        scale = limit.bit_length()
        found = self._patience.get(scale)
        if found is None:
            limits = self.limits
            connect, silence = limits.connect_seconds, limits.silence_seconds
            total = connect + silence + (1 << scale) / limits.slowest_rate
            found = self._patience[scale] = Patience(connect, total, silence if limit > _SHORT else None)
        return found


@asynccontextmanager
async def open_client(
    url: str, limits: HttpLimits | None = None, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> AsyncIterator[RepositoryClient]:
    """A client for the repository at a URL such as `http://stratum0.example.org/cvmfs/layers.example.org`.

    Raises InvalidInput for what is no such URL.
    """
    base = parse_url(url)
    limits = limits or HttpLimits()
    connections = Connections(limits.connections)
    try:
        yield RepositoryClient(connections, base, limits, sleep)
    finally:
        connections.close()


def parse_url(url: str) -> URL:
    """The base URL of a repository, without a slash at its end. Raises InvalidInput."""
    try:
        base = URL(url.rstrip("/"))
    except ValueError as error:
        raise InvalidInput(f"'{url[:200]}' is not a web address: {error}") from error
    if base.scheme not in {"http", "https"} or not base.host or base.query_string or base.fragment:
        raise InvalidInput(f"'{url[:200]}' is not the web address of a repository: http(s)://<host>/<path> is")
    if base.user is not None or base.password is not None:
        raise InvalidInput("the web address of a repository holds no user name and no password")
    return base


def _refusal(answer: Answer) -> Exception:
    status, what = answer.status, answer.what
    if status == 404:
        return NotFound(f"{what} does not exist")
    if status == 429 or is_server_error(status):
        retry_after = parse_retry_after(answer.header("retry-after"), time.time())
        failure = Failure.THROTTLED if status == 429 else Failure.ERROR
        return UpstreamUnavailable(f"{what}: the server answers with status {status}", failure, retry_after)
    if 300 <= status < 400:
        location = (answer.header("location") or "nowhere")[:200]
        return UpstreamUnavailable(
            f"{what}: the server redirects to {location!r}, which is not followed; give the address where the files are",
            Failure.PROTOCOL,
        )
    return UpstreamUnavailable(f"{what}: the server answers with status {status}", Failure.PROTOCOL)


def _is_settled(modified: str, date: str | None) -> bool:
    try:
        age = parsedate_to_datetime(date or "") - parsedate_to_datetime(modified)
    except (ValueError, TypeError):
        return False
    return age.total_seconds() >= _SURE_SECONDS
