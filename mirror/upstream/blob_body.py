"""The body of a blob's answer, in pieces that are worth a thread's while.

aiohttp makes an object of each piece that arrives and wakes its reader for it, which for a gigabyte costs more CPU than hashing.
So the rest of a large body is received straight into two buffers that take turns, one being filled while the other one is read.
The price is that the connection cannot be used again, since aiohttp does not see where the body ends. Smaller bodies, and those
whose length is not known, are read through aiohttp.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

import aiohttp

LARGE_BYTES = 8 << 20
"""Of a body, from which on a new connection for the next request costs less than reading through aiohttp."""
BUFFER_BYTES = 1 << 20
ENOUGH_BYTES = 512 << 10
"""A piece this large is given out without waiting for more."""
GATHER_SECONDS = 0.01
"""For which a smaller piece waits to become larger; the first one never does."""


async def body_pieces(response: aiohttp.ClientResponse, read_timeout: float) -> AsyncGenerator[bytes | memoryview, None]:
    """The body in order. A piece is good until the next one is asked for; a later use of it raises ValueError.

    read_timeout: seconds of silence before it is given up. Raises what the HTTP client raises. The caller closes the response.
    """
    content = response.content
    first = await content.readany()
    while more := content.read_nowait():
        first += more
    # Nothing can have arrived since: from here on, what comes is received by one of the two.
    receiver = _take_over(response)
    try:
        if first:
            yield first
        if receiver is None:
            while piece := await _gathered(content):
                yield piece
            return
        while await receiver.arrival(read_timeout):
            with receiver.piece() as part:
                yield part
    finally:
        if receiver is not None:
            receiver.close()


async def _gathered(content: aiohttp.StreamReader) -> bytes:
    """What comes next, and what else comes within a moment; empty at the end."""
    pieces = [await content.readany()]
    length = len(pieces[0])
    # A failure behind the first piece is met again by whoever asks for more.
    with suppress(aiohttp.ClientError, OSError):
        async with asyncio.timeout(GATHER_SECONDS):
            while pieces[-1] and length < ENOUGH_BYTES:
                pieces.append(await content.readany())
                length += len(pieces[-1])
    return b"".join(pieces)


def _take_over(response: aiohttp.ClientResponse) -> _Receiver | None:
    """A receiver of the rest of the body, from now on; None if that is better left to aiohttp."""
    length, connection = response.content_length, response.connection
    handler = connection.protocol if connection is not None else None
    if length is None or "Transfer-Encoding" in response.headers or handler is None or handler.transport is None:
        return None
    missing = length - response.content.total_bytes
    if missing < LARGE_BYTES:
        return None
    # Its clock for silence stops, too.
    handler.pause_reading()
    return _Receiver(handler, handler.transport, missing)


class _Receiver(asyncio.BufferedProtocol):
    """Takes a connection over in the middle of a body, and gives it back to be closed."""

    def __init__(self, handler: asyncio.Protocol, transport: asyncio.Transport, missing: int) -> None:
        """handler: whose connection it is. missing: bytes of the body that have not arrived; no more than these are received."""
        self._handler = handler
        self._transport = transport
        self._missing = missing
        self._filling, self._other = memoryview(bytearray(BUFFER_BYTES)), memoryview(bytearray(BUFFER_BYTES))
        self._filled = 0
        self._wanted = 0
        self._waiter: asyncio.Future[None] | None = None
        self._lost: BaseException | None = None
        transport.set_protocol(self)
        transport.resume_reading()

    async def arrival(self, seconds: float) -> bool:
        """Wait for a piece; whether there is one. Raises TimeoutError after so long, OSError if there will be none, too early."""
        await self._until(1, seconds)
        with suppress(TimeoutError):
            await self._until(ENOUGH_BYTES, GATHER_SECONDS)
        if not self._filled and self._missing:
            raise ConnectionResetError("the connection was closed") from self._lost
        return self._filled > 0

    def piece(self) -> memoryview:
        """What has arrived since the last one, which must not be used any more: from here on its buffer is filled again."""
        piece = self._filling[: self._filled]
        self._filling, self._other = self._other, self._filling
        self._filled = 0
        if self._missing:
            self._transport.resume_reading()
        return piece

    def close(self) -> None:
        """Let the handler know what becomes of its connection."""
        self._transport.set_protocol(self._handler)

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Where to put what comes: never empty, for reading is paused when there is no place or nothing missing."""
        return self._filling[self._filled : self._filled + self._missing]

    def buffer_updated(self, nbytes: int) -> None:
        """So much was put there."""
        self._filled += nbytes
        self._missing -= nbytes
        if self._filled == len(self._filling) or not self._missing:
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more will come."""
        self._lost = exc or EOFError()
        self._wake()
        self._handler.connection_lost(exc)

    async def _until(self, wanted: int, seconds: float) -> None:
        """Return when so much is there, or all that will be. Raises TimeoutError."""
        self._wanted = wanted
        if not self._is_enough():
            self._waiter = asyncio.get_running_loop().create_future()
            async with asyncio.timeout(seconds):
                await self._waiter

    def _is_enough(self) -> bool:
        return self._filled >= self._wanted or not self._missing or self._lost is not None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done() and self._is_enough():
            self._waiter.set_result(None)
