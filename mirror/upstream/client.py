"""Client of one upstream: a method for each endpoint of pull and content discovery (OCI distribution specification 1.1).

Bodies are never decompressed and never rewritten. Whoever holds a client reads with its rights; one made with `anonymous=True`
reads what everybody may, and so proves that something is public.
"""

from __future__ import annotations

import asyncio
import re
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
from mirror.upstream.auth import Authenticator, TokenCache
from mirror.upstream.blob_body import body_pieces
from mirror.upstream.body import read_limited
from mirror.upstream.model import FetchedManifest, ManifestInfo, Upstream, UpstreamRequest
from mirror.upstream.pages import MAX_BYTES, Page, all_pages
from mirror.upstream.policy import SHORT_REQUESTS, RetryPolicy
from mirror.upstream.retrying import retrying
from mirror.upstream.transport import Transport

T = TypeVar("T")

_CONTENT_RANGE = re.compile(r"bytes (?:([0-9]{1,19})-([0-9]{1,19})|\*)/([0-9]{1,19}|\*)", re.ASCII)
_LIST_TYPES = f"application/json, {OCI_INDEX}, */*;q=0.1"
_PAGE = 1000
"""Tags of one page that are asked for: what large registries allow at most."""
_VAGUE_TYPES = frozenset({"", "application/json", "application/octet-stream", "text/plain", "text/html"})


@dataclass(frozen=True, slots=True)
class BlobStream:
    """A blob on its way: `chunks` begins at the offset that was asked for.

    status: 200 or 206 as the upstream answered, 416 if the blob ends at or before the offset (there are no chunks then).
    total: size in bytes of the whole blob, None if the upstream does not say.
    A chunk is good until the next one is asked for; a later use of it may raise ValueError.
    """

    status: int
    total: int | None
    chunks: AsyncIterator[bytes | memoryview]


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
    ) -> None:
        """anonymous: never use the upstream's credential. tokens: may be shared by clients of several upstreams.

        session: of `mirror.upstream.session`, which guards the addresses that are dialled. on_request: called for each request.
        """
        self.upstream = upstream
        self.anonymous = anonymous or upstream.credential is None
        self._authenticator = Authenticator(session, upstream, None if anonymous else upstream.credential, tokens or TokenCache())
        self._transport = Transport(session, upstream, self._authenticator, on_request)
        self._retry = retry
        self._sleep = sleep
        self._transfers = asyncio.Semaphore(upstream.max_transfers)

    async def close(self) -> None:
        """Give up token requests that are under way; the session stays open."""
        await self._authenticator.close()

    async def head_manifest(self, repository: str, reference: Reference) -> ManifestInfo:
        """Ask what a tag or digest stands for; most upstreams do not count it as a pull.

        Raises NotFound, Denied, UpstreamUnavailable, IntegrityError.
        """
        return await self._with_retries(lambda: self._head_manifest(repository, reference))

    async def get_manifest(self, repository: str, reference: Reference) -> FetchedManifest:
        """A manifest or index, verified by the digest that was asked for or else by the one that the upstream states.

        Raises NotFound, Denied, UpstreamUnavailable, IntegrityError, and InvalidInput for Docker's schema 1.
        """
        return await self._with_retries(lambda: self._get_manifest(repository, reference))

    async def head_blob(self, repository: str, digest: Digest) -> int | None:
        """Size in bytes of a blob, None if the upstream has it but does not say. Raises NotFound, Denied, UpstreamUnavailable."""
        return await self._with_retries(lambda: self._head_blob(repository, digest))

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
        self, repository: str, digest: Digest, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[BlobStream]:
        """A blob from `offset` bytes on, unverified. Waits in order while too many transfers from this upstream are running.

        length: bytes to ask for, at least 1; the upstream may send more, up to the blob's end.

        One try: going on after a failure is for the caller, who knows where. Raises NotFound, Denied, UpstreamUnavailable, and
        IntegrityError for an encoded or contradictory answer; reading the chunks raises UpstreamUnavailable.
        """
        what = _blob_name(repository, digest)
        end = "" if length is None else str(offset + length - 1)
        headers = {"Range": f"bytes={offset}-{end}"} if offset or end else {}
        async with self._transfers:
            path = f"/v2/{repository}/blobs/{digest}"
            response = await self._transport.send("GET", path, headers, repository=repository, what=what, endless=True)
            try:
                status = response.status
                if status not in (200, 206, 416):
                    raise await self._transport.failure(response, what)
                if status != 416:
                    self._refuse_encoding(response, what)
                total, skip = self._place(response, offset, what)
                async with aclosing(self._chunks(response, skip, what) if status != 416 else _no_chunks()) as chunks:
                    yield BlobStream(status, total, chunks)
            finally:
                # A body that was not read to its end is of no use to the next request on this connection.
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
            return await self._with_retries(lambda: self._page(path, repository, what, limit))

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
        return await self._transport.send(method, path, headers, repository=repository, what=what)

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

    async def _with_retries(self, attempt: Callable[[], Awaitable[T]]) -> T:
        return await retrying(attempt, self._retry, self._sleep)


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
