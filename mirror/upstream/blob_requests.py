"""Requests for blobs of one upstream, one try each (OCI distribution specification 1.1, "Pulling blobs")."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

import aiohttp

from mirror.errors import IntegrityError
from mirror.oci.digest import Digest
from mirror.upstream.blob_body import body_pieces
from mirror.upstream.body import refuse_encoding, stated_length
from mirror.upstream.model import Upstream
from mirror.upstream.transport import Transport

_CONTENT_RANGE = re.compile(r"bytes (?:([0-9]{1,19})-([0-9]{1,19})|\*)/([0-9]{1,19}|\*)", re.ASCII)
_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]{1,500}"', re.ASCII)


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


class BlobRequests:
    """Asks for blobs; waiting in order and trying again are the caller's. Raises NotFound, Denied, UpstreamUnavailable."""

    def __init__(self, transport: Transport, upstream: Upstream) -> None:
        self._transport = transport
        self._upstream = upstream

    async def size(self, repository: str, digest: Digest) -> int | None:
        """See `UpstreamClient.head_blob`."""
        what = _blob_name(repository, digest)
        response = await self._transport.send("HEAD", f"/v2/{repository}/blobs/{digest}", {}, repository=repository, what=what)
        try:
            if response.status != 200:
                raise await self._transport.failure(response, what)
            return stated_length(response)
        finally:
            response.release()

    @asynccontextmanager
    async def open(
        self, repository: str, digest: Digest, offset: int, length: int | None, *, etag: str | None, insist: bool
    ) -> AsyncIterator[BlobStream]:
        """See `UpstreamClient.open_blob`."""
        what = _blob_name(repository, digest)
        end = "" if length is None else str(offset + length - 1)
        headers = {"Range": f"bytes={offset}-{end}"} if offset or end else {}
        if headers and etag is not None:
            headers["If-Range"] = etag
        path = f"/v2/{repository}/blobs/{digest}"
        response = await self._transport.send("GET", path, headers, repository=repository, what=what, endless=True, insist=insist)
        try:
            status = response.status
            if status not in (200, 206, 416):
                raise await self._transport.failure(response, what)
            if status != 416:
                refuse_encoding(response, self._upstream.name, what)
            total, skip = self._place(response, offset, what)
            async with aclosing(self._chunks(response, skip, what) if status != 416 else _no_chunks()) as chunks:
                yield BlobStream(status, total, chunks, _strong_etag(response))
        finally:
            # A body that was not read to its end is of no use to the next request on this connection.
            response.close()

    async def location(self, repository: str, digest: Digest) -> str | None:
        """See `UpstreamClient.blob_location`."""
        what = _blob_name(repository, digest)
        path = f"/v2/{repository}/blobs/{digest}"
        response = await self._transport.send("GET", path, {"Range": "bytes=0-0"}, repository=repository, what=what)
        try:
            if response.status not in (200, 206):
                raise await self._transport.failure(response, what)
            refuse_encoding(response, self._upstream.name, what)
            return str(response.url) if response.url.origin() != self._upstream.url.origin() else None
        finally:
            response.close()

    async def _chunks(self, response: aiohttp.ClientResponse, skip: int, what: str) -> AsyncGenerator[bytes | memoryview, None]:
        pieces = body_pieces(response, self._upstream.read_timeout)
        with self._transport.wrapped(what):
            async with aclosing(pieces):
                async for piece in pieces:
                    if skip < len(piece):
                        yield piece[skip:]
                    skip = max(skip - len(piece), 0)

    def _place(self, response: aiohttp.ClientResponse, offset: int, what: str) -> tuple[int | None, int]:
        """Size of the whole blob, and how many bytes of the body come before the offset."""
        if response.status == 200:
            return stated_length(response), offset
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
        if match is None:
            raise IntegrityError(f"upstream {self._upstream.name} answers {response.status} without a Content-Range for {what}")
        total = None if match.group(3) == "*" else int(match.group(3))
        if response.status == 206 and (match.group(1) is None or int(match.group(1)) != offset):
            raise IntegrityError(f"upstream {self._upstream.name} answers with another range of {what} than asked for")
        return total, 0


async def _no_chunks() -> AsyncGenerator[bytes, None]:
    nothing: tuple[bytes, ...] = ()
    for chunk in nothing:
        yield chunk


def _strong_etag(response: aiohttp.ClientResponse) -> str | None:
    text = response.headers.get("ETag", "").strip()
    return text if _STRONG_ETAG.fullmatch(text) else None


def _blob_name(repository: str, digest: Digest) -> str:
    return f"blob {repository}@{digest}"
