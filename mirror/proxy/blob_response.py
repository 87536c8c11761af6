"""A blob as an HTTP response: from a file by sendfile, also while the file grows, without a copy of the bytes in this process.

A body that turns out to be wrong, or cannot be gone on with, is never ended as if it were complete: the connection is reset.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import IO, cast

import structlog
from aiohttp import web

from mirror.errors import MirrorError, Unavailable
from mirror.fetch.fill import OpenFile
from mirror.fetch.reader import BlobReader, FileSpan
from mirror.fetch.result import CacheResult
from mirror.oci.codes import ErrorCode, error_body
from mirror.oci.digest import Digest
from mirror.proxy.byte_range import ByteRange, RangeNotSatisfiable, parse_range
from mirror.proxy.conditions import client_has, entity_tag

log = structlog.get_logger()

_COPY_BYTES = 64 * 1024
_WHOLE_BYTES = 32 * 1024
"""Of a stored blob that is answered in one piece, as a manifest is: the system calls of sendfile cost more than a copy."""


@dataclass(frozen=True, slots=True)
class SendLimits:
    """How slow a client may be: so many bytes must have left within so many seconds."""

    slice_bytes: int = 16 << 20
    slice_seconds: float = 900.0


@dataclass(frozen=True, slots=True)
class SentBlob:
    """What became of a response: bytes of the body that were handed to the network, and whether that was all of it."""

    response: web.StreamResponse
    sent: int
    is_complete: bool


def blob_headers(digest: Digest) -> dict[str, str]:
    """What every answer about a blob carries."""
    return {"Docker-Content-Digest": str(digest), "ETag": entity_tag(digest), "Accept-Ranges": "bytes"}


async def send_blob(
    request: web.Request,
    reader: BlobReader,
    digest: Digest,
    headers: Mapping[str, str],
    limits: SendLimits = SendLimits(),
) -> SentBlob:
    """Answer a GET or HEAD: 200, 206, 304 or 416. The caller closes the reader.

    headers: further ones, Content-Type among them. Raises what `BlobReader.started` raises; nothing is sent then.
    """
    total = await reader.started()
    if total is None and request.method == "HEAD":
        total = await _count(reader)
    common = {**headers, **blob_headers(digest)}
    if client_has(request.headers.getall("If-None-Match", ()), digest):
        return _from_memory(web.Response(status=304, headers=common))
    if reader.result is CacheResult.HIT and request.method == "GET" and total is not None and total <= _WHOLE_BYTES:
        return _from_memory(small_blob(request, await _whole(reader, digest, total), digest, headers))
    try:
        wanted = _wanted_range(request, digest, total)
    except RangeNotSatisfiable:
        return _from_memory(_not_satisfiable(total, common))
    response = web.StreamResponse(status=200 if wanted is None else 206, headers=common)
    if wanted is not None:
        response.headers["Content-Range"] = wanted.content_range
        response.content_length = wanted.end - wanted.start
    elif total is not None:
        response.content_length = total
    elif request.version >= (1, 1):
        response.enable_chunked_encoding()
    try:
        await response.prepare(request)
        if request.method == "HEAD":
            await response.write_eof()
            return SentBlob(response, 0, is_complete=True)
    except ConnectionError:
        log.info("client_left", digest=str(digest), sent=0)
        return SentBlob(response, 0, is_complete=False)
    return await _Sender(request, response, limits).send(reader, digest, wanted)


def small_blob(request: web.Request, data: bytes, digest: Digest, headers: Mapping[str, str]) -> web.Response:
    """The same answer from memory. headers: further ones, Content-Type among them."""
    common = {**headers, **blob_headers(digest)}
    if client_has(request.headers.getall("If-None-Match", ()), digest):
        return web.Response(status=304, headers=common)
    try:
        wanted = _wanted_range(request, digest, len(data))
    except RangeNotSatisfiable:
        return _not_satisfiable(len(data), common)
    if wanted is None:
        return web.Response(body=data, headers=common)
    part = data[wanted.start : wanted.end]
    return web.Response(status=206, body=part, headers={**common, "Content-Range": wanted.content_range})


class _Sender:
    """Sends the body of one response."""

    def __init__(self, request: web.Request, response: web.StreamResponse, limits: SendLimits) -> None:
        self._request = request
        self._response = response
        self._limits = limits
        self._sent = 0
        transport = request.transport
        is_encrypted = transport is not None and transport.get_extra_info("sslcontext") is not None
        # Whether this process has to see the bytes. The event loop's sendfile would read 16 KiB at a time for TLS, in a thread.
        self._is_copied = response.chunked or is_encrypted
        if transport is not None and is_encrypted:
            # The event loop would let half a megabyte wait for a slow client.
            transport.set_write_buffer_limits(_COPY_BYTES)

    async def send(self, reader: BlobReader, digest: Digest, wanted: ByteRange | None) -> SentBlob:
        start, end = (0, None) if wanted is None else (wanted.start, wanted.end)
        try:
            async with aclosing(reader.spans(start, end)) as spans:
                async for span in spans:
                    await self._send_span(span)
            await self._response.write_eof()
        except MirrorError as error:
            log.warning("response_aborted", digest=str(digest), sent=self._sent, reason=str(error))
        except ConnectionError:
            log.info("client_left", digest=str(digest), sent=self._sent)
        except TimeoutError:
            log.info("client_too_slow", digest=str(digest), sent=self._sent)
        except OSError as error:
            log.error("blob_unreadable", digest=str(digest), sent=self._sent, reason=str(error))  # noqa: TRY400 - no bug
        except BaseException:
            # Nothing may follow on this connection, an error page least of all: it would be read as a part of the blob.
            self._abort()
            raise
        else:
            return SentBlob(self._response, self._sent, is_complete=True)
        self._abort()
        return SentBlob(self._response, self._sent, is_complete=False)

    def _abort(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()

    async def _send_span(self, span: FileSpan | bytes) -> None:
        if isinstance(span, bytes):
            async with asyncio.timeout(self._limits.slice_seconds):
                await self._response.write(span)
            self._sent += len(span)
            return
        for part in _parts(span, self._limits.slice_bytes):
            async with asyncio.timeout(self._limits.slice_seconds):
                await (self._copy(part) if self._is_copied else self._sendfile(part))

    async def _copy(self, span: FileSpan) -> None:
        for piece in _parts(span, _COPY_BYTES):
            data = piece.read()
            if len(data) < piece.length:
                raise Unavailable("the store's file is shorter than it was")
            await self._response.write(data)
            self._sent += len(data)
            # A client that takes all at once would keep everybody else waiting until it has the blob.
            await asyncio.sleep(0)

    async def _sendfile(self, span: FileSpan) -> None:
        transport = self._request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has gone")
        window = cast("IO[bytes]", _Window(span.file))
        count = await asyncio.get_running_loop().sendfile(
            cast("asyncio.WriteTransport", transport), window, span.offset, span.length
        )
        self._sent += count
        if count < span.length:
            raise Unavailable("the store's file is shorter than it was")


class _Window:
    """A file with a position of its own over a descriptor that many share, as the event loop's sendfile wants it."""

    def __init__(self, file: OpenFile) -> None:
        self._descriptor = file.fileno()
        self._position = 0

    def fileno(self) -> int:
        return self._descriptor

    def seek(self, position: int) -> int:
        self._position = position
        return position

    def readinto(self, buffer: bytearray | memoryview) -> int:
        count = os.preadv(self._descriptor, [buffer], self._position)
        self._position += count
        return count


def _parts(span: FileSpan, length: int) -> Iterator[FileSpan]:
    end = span.offset + span.length
    return (FileSpan(span.file, offset, min(length, end - offset)) for offset in range(span.offset, end, length))


def _wanted_range(request: web.Request, digest: Digest, total: int | None) -> ByteRange | None:
    if total is None or request.method != "GET":
        return None
    condition = request.headers.get("If-Range")
    if condition is not None and condition.strip() != entity_tag(digest):
        return None
    return parse_range(request.headers.get("Range"), total)


def _from_memory(response: web.Response) -> SentBlob:
    """A response that the server sends by itself."""
    return SentBlob(response, response.content_length or 0, is_complete=True)


async def _whole(reader: BlobReader, digest: Digest, size: int) -> bytes:
    try:
        async with aclosing(reader.spans()) as spans:
            body = b"".join([span if isinstance(span, bytes) else span.read() async for span in spans])
    except OSError as error:
        raise Unavailable(f"the store's file of {digest} cannot be read: {error.strerror}") from error
    if len(body) != size:
        raise Unavailable(f"the store's file of {digest} is shorter than it was")
    return body


async def _count(reader: BlobReader) -> int:
    """Size in bytes of a blob of which the upstream does not say it: HEAD has to tell it, and GET will find the blob stored."""
    size = 0
    async with aclosing(reader.spans()) as spans:
        async for span in spans:
            size += len(span) if isinstance(span, bytes) else span.length
    return size


def _not_satisfiable(total: int | None, headers: Mapping[str, str]) -> web.Response:
    body = error_body(ErrorCode.RANGE_INVALID, f"the blob has {total} bytes")
    return web.Response(
        status=416, body=body, headers={**headers, "Content-Type": "application/json", "Content-Range": f"bytes */{total}"}
    )
