"""Client of one upstream: a method for each endpoint of pull and content discovery (OCI distribution specification 1.1).

Bodies are never decompressed and never rewritten. Whoever holds a client reads with its rights; one made with `anonymous=True`
reads what everybody may, and so proves that something is public.
"""

from __future__ import annotations

import asyncio
import copy
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp

from mirror.errors import IntegrityError, InvalidInput
from mirror.oci.digest import Digest
from mirror.oci.listing import next_page, parse_referrers, parse_tag_list
from mirror.oci.manifest import (
    ACCEPTED_TYPES,
    OCI_INDEX,
    OCI_MANIFEST,
    SCHEMA1_TYPES,
    declared_media_type,
    is_media_type,
)
from mirror.oci.reference import Reference
from mirror.upstream.auth import Authenticator
from mirror.upstream.blob_body import body_pieces
from mirror.upstream.body import read_limited
from mirror.upstream.budget import Budget, BudgetWatch
from mirror.upstream.gate import Gate
from mirror.upstream.model import (
    Credential,
    Failure,
    FetchedManifest,
    ManifestInfo,
    Upstream,
    UpstreamRequest,
    UpstreamUnavailable,
)
from mirror.upstream.pages import MAX_BYTES, Page, all_pages
from mirror.upstream.policy import SHORT_REQUESTS, RetryPolicy
from mirror.upstream.retrying import retrying
from mirror.upstream.token_cache import TokenCache
from mirror.upstream.transport import Transport

T = TypeVar("T")

_CONTENT_RANGE = re.compile(r"bytes (?:([0-9]{1,19})-([0-9]{1,19})|\*)/([0-9]{1,19}|\*)", re.ASCII)
_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]{1,500}"', re.ASCII)
_LIST_TYPES = f"application/json, {OCI_INDEX}, */*;q=0.1"
_BUDGET_SECONDS = 60.0
"""How old what is known of a budget may be where it stops work in the background: a HEAD tells, and costs none of it."""
_PAGE = 1000
"""Tags of one page that are asked for: what large registries allow at most."""
_VAGUE_TYPES = frozenset({"", "application/json", "application/octet-stream", "text/plain", "text/html"})


@dataclass(frozen=True, slots=True)
class BlobStream:
    """A blob on its way: `chunks` begins at the offset that was asked for.

    status: 200 or 206 as the upstream answered, 416 if the blob ends at or before the offset (there are no chunks then).
    total: size in bytes of the whole blob, None if the upstream does not say. etag: to go on with this very representation by
    `If-Range`, None if the upstream gave none that is good for it (RFC 9110, section 13.1.5: a strong one).
    A chunk is good until the next one is asked for; a later use of it may raise ValueError.
    """

    status: int
    total: int | None
    chunks: AsyncIterator[bytes | memoryview]
    etag: str | None = None


class UpstreamClient:
    """Reads from one upstream."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        upstream: Upstream,
        *,
        anonymous: bool = False,
        tokens: TokenCache | None = None,
        retry: RetryPolicy = SHORT_REQUESTS,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        on_request: Callable[[UpstreamRequest], None] = lambda _: None,
        gate: Gate | None = None,
        on_budget: Callable[[Budget], None] = lambda _: None,
        background: bool = False,
    ) -> None:
        """anonymous: never use the upstream's credential. tokens: may be shared by clients of several upstreams.

        session: of `mirror.upstream.session`, which guards the addresses that are dialled. on_request: called for each request.
        gate: shared by the clients of this upstream; None: this client has one of its own. on_budget: called with what the
        upstream says of it. background: what this client fetches can wait, so that it leaves the reserve of the budget to others.
        """
        self.upstream = upstream
        self.anonymous = anonymous or upstream.credential is None
        self._authenticator = Authenticator(session, upstream, None if anonymous else upstream.credential, tokens or TokenCache())
        self._gate = gate or Gate(upstream)
        self._transport = Transport(session, upstream, self._authenticator, self._gate, on_request)
        self._retry = retry
        self._sleep = sleep
        self._background = background
        self.budget = BudgetWatch(upstream.reserve, time.monotonic, on_budget)

    def ways(self, repository: str) -> tuple[tuple[UpstreamClient, str], ...]:
        """Whom to ask for a blob of this repository, in order, and by which name; this client comes last."""
        return ((self, repository),)

    @property
    def suspension(self) -> Failure | None:
        """Why the upstream is left alone, so that requests are refused or probes: SUSPENDED or THROTTLED. None: it is not."""
        return self._gate.suspension

    @property
    def is_suspended(self) -> bool:
        """Whether it is left alone."""
        return self.suspension is not None

    @property
    def is_probe_due(self) -> bool:
        """Whether it is time to look whether a suspended upstream is back."""
        return self._gate.breaker.is_due

    def acting_as(self, credential: Credential) -> UpstreamClient:
        """The same upstream, read with somebody else's rights. Limits and connections are shared; to be closed as well."""
        authenticator = self._authenticator.acting_as(credential)
        other = copy.copy(self)
        other.anonymous = False
        other._authenticator = authenticator  # noqa: SLF001 - one of us
        other._transport = self._transport.acting_as(authenticator)  # noqa: SLF001
        return other

    async def close(self) -> None:
        """Give up token requests that are under way; the session stays open."""
        await self._authenticator.close()

    async def head_manifest(self, repository: str, reference: Reference) -> ManifestInfo:
        """Ask what a tag or digest stands for; most upstreams do not count it as a pull.

        Raises NotFound, Denied, UpstreamUnavailable, IntegrityError.
        """
        return await self._with_retries(repository, lambda: self._head_manifest(repository, reference))

    async def get_manifest(self, repository: str, reference: Reference) -> FetchedManifest:
        """A manifest or index, verified by the digest that was asked for or else by the one that the upstream states.

        Raises NotFound, Denied, UpstreamUnavailable, IntegrityError, and InvalidInput for Docker's schema 1.
        """
        if self._background and self.budget.is_low:
            await self._leave_reserve(repository, reference)
        return await self._with_retries(repository, lambda: self._get_manifest(repository, reference))

    async def head_blob(self, repository: str, digest: Digest) -> int | None:
        """Size in bytes of a blob, None if the upstream has it but does not say. Raises NotFound, Denied, UpstreamUnavailable."""
        return await self._with_retries(repository, lambda: self._head_blob(repository, digest))

    async def tags(self, repository: str) -> list[str]:
        """Every tag of a repository, in the upstream's order. Raises NotFound, Denied, UpstreamUnavailable, IntegrityError."""
        pages = await self._pages(f"/v2/{repository}/tags/list?n={_PAGE}", repository, f"the tag list of {repository}")
        with _understood(self.upstream.name):
            return [tag for page in pages for tag in parse_tag_list(page)]

    async def referrers(self, repository: str, subject: Digest) -> list[dict[str, Any]]:
        """Descriptors of everything that refers to a manifest, unchanged.

        Raises NotFound if the upstream has no referrers API (nor, then, the list), Denied, UpstreamUnavailable, IntegrityError.
        """
        what = f"the list of referrers of {repository}@{subject}"
        pages = await self._pages(f"/v2/{repository}/referrers/{subject}", repository, what)
        with _understood(self.upstream.name):
            return [descriptor for page in pages for descriptor in parse_referrers(page)]

    @asynccontextmanager
    async def open_blob(
        self,
        repository: str,
        digest: Digest,
        offset: int = 0,
        length: int | None = None,
        *,
        etag: str | None = None,
        insist: bool = False,
    ) -> AsyncIterator[BlobStream]:
        """A blob from `offset` bytes on, unverified. Waits in order while too many transfers from this upstream are running.

        length: bytes to ask for, at least 1; the upstream may send more, up to the blob's end. etag: of the stream that is gone
        on with. insist: somebody is in the middle of reading it: ask also while the upstream is left alone, and before others.

        One try: going on after a failure is for the caller, who knows where. Raises NotFound, Denied, UpstreamUnavailable, and
        IntegrityError for an encoded or contradictory answer; reading the chunks raises UpstreamUnavailable.
        """
        what = _blob_name(repository, digest)
        end = "" if length is None else str(offset + length - 1)
        headers = {"Range": f"bytes={offset}-{end}"} if offset or end else {}
        if headers and etag is not None:
            headers["If-Range"] = etag
        async with self._gate.transfers.slot(repository, urgent=insist):
            path = f"/v2/{repository}/blobs/{digest}"
            response = await self._transport.send(
                "GET", path, headers, repository=repository, what=what, endless=True, insist=insist
            )
            try:
                status = response.status
                if status not in (200, 206, 416):
                    raise await self._transport.failure(response, what)
                if status != 416:
                    self._refuse_encoding(response, what)
                total, skip = self._place(response, offset, what)
                async with aclosing(self._chunks(response, skip, what) if status != 416 else _no_chunks()) as chunks:
                    yield BlobStream(status, total, chunks, _strong_etag(response))
            finally:
                # A body that was not read to its end is of no use to the next request on this connection.
                response.close()

    async def blob_location(self, repository: str, digest: Digest) -> str | None:
        """The address that the upstream sends a client to for a blob, seen to serve it; None if it serves the blob itself.

        Raises NotFound, Denied, UpstreamUnavailable, IntegrityError.
        """
        what = _blob_name(repository, digest)
        path = f"/v2/{repository}/blobs/{digest}"
        async with self._gate.requests.slot(repository):
            response = await self._transport.send("GET", path, {"Range": "bytes=0-0"}, repository=repository, what=what)
            try:
                if response.status not in (200, 206):
                    raise await self._transport.failure(response, what)
                self._refuse_encoding(response, what)
                return str(response.url) if response.url.origin() != self.upstream.url.origin() else None
            finally:
                response.close()

    async def _chunks(self, response: aiohttp.ClientResponse, skip: int, what: str) -> AsyncGenerator[bytes | memoryview, None]:
        pieces = body_pieces(response, self.upstream.read_timeout)
        with self._transport.wrapped(what):
            async with aclosing(pieces):
                async for piece in pieces:
                    if skip < len(piece):
                        yield piece[skip:]
                    skip = max(skip - len(piece), 0)

    def _place(self, response: aiohttp.ClientResponse, offset: int, what: str) -> tuple[int | None, int]:
        """Size of the whole blob, and how many bytes of the body come before the offset."""
        if response.status == 200:
            return _length(response), offset
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
        if match is None:
            raise IntegrityError(f"upstream {self.upstream.name} answers {response.status} without a Content-Range for {what}")
        total = None if match.group(3) == "*" else int(match.group(3))
        if response.status == 206 and (match.group(1) is None or int(match.group(1)) != offset):
            raise IntegrityError(f"upstream {self.upstream.name} answers with another range of {what} than asked for")
        return total, 0

    def _refuse_encoding(self, response: aiohttp.ClientResponse, what: str) -> None:
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            raise IntegrityError(f"upstream {self.upstream.name} sends {what} encoded as {encoding[:40]!r}, though asked not to")

    async def _pages(self, first: str, repository: str, what: str) -> list[bytes]:
        async def ask(path: str, limit: int) -> Page:
            return await self._with_retries(repository, lambda: self._page(path, repository, what, limit))

        return await all_pages(ask, self.upstream.url, first, what)

    async def _page(self, path: str, repository: str, what: str, limit: int) -> Page:
        response = await self._transport.send("GET", path, {"Accept": _LIST_TYPES}, repository=repository, what=what)
        try:
            if response.status != 200:
                raise await self._transport.failure(response, what)
            self._refuse_encoding(response, what)
            with self._transport.wrapped(what):
                raw = await read_limited(response, limit)
            if raw is None:
                raise IntegrityError(f"upstream {self.upstream.name} sends more than {MAX_BYTES} bytes as {what}")
            return Page(raw, next_page(response.headers.getall("Link", [])))
        finally:
            response.close()

    async def _head_manifest(self, repository: str, reference: Reference) -> ManifestInfo:
        what = _manifest_name(repository, reference)
        response = await self._manifest_request("HEAD", repository, reference, what)
        try:
            if response.status != 200:
                raise await self._transport.failure(response, what)
            return ManifestInfo(self._stated_digest(response, what), _content_type(response) or None, _length(response))
        finally:
            response.release()

    async def _get_manifest(self, repository: str, reference: Reference) -> FetchedManifest:
        what = _manifest_name(repository, reference)
        response = await self._manifest_request("GET", repository, reference, what)
        try:
            if response.status != 200:
                raise await self._transport.failure(response, what)
            self._refuse_encoding(response, what)
            limit = self.upstream.max_manifest_bytes
            with self._transport.wrapped(what):
                raw = await read_limited(response, limit)
            if raw is None:
                raise IntegrityError(f"upstream {self.upstream.name} sends more than {limit} bytes as {what}")
            media_type = _media_type(_content_type(response), raw)
            if media_type in SCHEMA1_TYPES:
                # Before its digest is looked at, which is not that of these bytes: signatures are left out of it.
                raise InvalidInput(
                    f"upstream {self.upstream.name} has {what} only in Docker's schema 1 ({media_type}), "
                    "which this mirror does not serve; push it again with a current tool"
                )
            digest = reference.digest or self._stated_digest(response, what) or Digest.of(raw)
            if Digest.of(raw, digest.algorithm) != digest:
                raise IntegrityError(f"upstream {self.upstream.name} sends {what} with another digest than {digest}")
            return FetchedManifest(raw, media_type, digest)
        finally:
            response.close()

    async def _manifest_request(self, method: str, repository: str, reference: Reference, what: str) -> aiohttp.ClientResponse:
        path = f"/v2/{repository}/manifests/{reference}"
        headers = {"Accept": ", ".join(ACCEPTED_TYPES)}
        response = await self._transport.send(method, path, headers, repository=repository, what=what)
        self.budget.note(response.headers)
        return response

    async def _leave_reserve(self, repository: str, reference: Reference) -> None:
        """Raises UpstreamUnavailable if the upstream still grants too few pulls for work that can wait."""
        if self.budget.age > _BUDGET_SECONDS:
            await self.head_manifest(repository, reference)
        known = self.budget.known
        if known is not None and self.budget.is_low:
            raise UpstreamUnavailable(
                f"upstream {self.upstream.name} grants {known.remaining} of {known.limit} pulls for now; "
                f"{_manifest_name(repository, reference)} waits, so that they are there for clients",
                Failure.THROTTLED,
                _BUDGET_SECONDS,
            )

    async def _head_blob(self, repository: str, digest: Digest) -> int | None:
        what = _blob_name(repository, digest)
        response = await self._transport.send("HEAD", f"/v2/{repository}/blobs/{digest}", {}, repository=repository, what=what)
        try:
            if response.status != 200:
                raise await self._transport.failure(response, what)
            return _length(response)
        finally:
            response.release()

    def _stated_digest(self, response: aiohttp.ClientResponse, what: str) -> Digest | None:
        text = response.headers.get("Docker-Content-Digest", "").strip()
        if not text:
            return None
        try:
            return Digest.parse(text)
        except InvalidInput as error:
            raise IntegrityError(f"upstream {self.upstream.name} states no digest for {what}, but {text[:100]!r}") from error

    async def _with_retries(self, repository: str, attempt: Callable[[], Awaitable[T]]) -> T:
        async def in_turn() -> T:
            async with self._gate.requests.slot(repository):
                return await attempt()

        return await retrying(in_turn, self._retry, self._sleep)


@contextmanager
def _understood(upstream: str) -> Iterator[None]:
    """What an upstream sends is its mistake, not that of the one who asked."""
    try:
        yield
    except InvalidInput as error:
        raise IntegrityError(f"upstream {upstream} sends nonsense: {error}") from error


async def _no_chunks() -> AsyncGenerator[bytes, None]:
    nothing: tuple[bytes, ...] = ()
    for chunk in nothing:
        yield chunk


def _length(response: aiohttp.ClientResponse) -> int | None:
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def _strong_etag(response: aiohttp.ClientResponse) -> str | None:
    text = response.headers.get("ETag", "").strip()
    return text if _STRONG_ETAG.fullmatch(text) else None


def _content_type(response: aiohttp.ClientResponse) -> str:
    return response.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def _media_type(stated: str, raw: bytes) -> str:
    """The media type of a manifest: the header's, or the document's own where the header says nothing of use."""
    if stated not in _VAGUE_TYPES and is_media_type(stated):
        return stated
    return declared_media_type(raw) or OCI_MANIFEST


def _manifest_name(repository: str, reference: Reference) -> str:
    return f"manifest {repository}{'@' if reference.digest else ':'}{reference}"


def _blob_name(repository: str, digest: Digest) -> str:
    return f"blob {repository}@{digest}"
