"""A blob read by a thread while it arrives, so that unpacking goes on beside the transfer and is nearly done when that ends."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from threading import Event

from mirror.errors import Unavailable
from mirror.fetch.reader import FileSpan

_LOOK_SECONDS = 0.2
"""How long a thread waits for more bytes before it looks whether it is still wanted."""


class ArrivingBlob:
    """The bytes of a blob in order, for one thread; to be made in the event loop's.

    The last byte comes only when the whole is verified (`mirror.fetch.fill`): who has read to the end has read the right content.
    """

    def __init__(self, spans: AsyncGenerator[FileSpan | bytes, None], stopping: Event) -> None:
        """spans: as `BlobReader.spans` gives them from the start. stopping: set when nobody wants the content any more."""
        self._spans = spans
        self._stopping = stopping
        self._loop = asyncio.get_running_loop()
        self._span: FileSpan | bytes | None = b""
        self._at = 0

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes, as soon as there are any; empty at the end. Blocking.

        Raises what stands in the transfer's way (Unavailable, IntegrityError, NotFound, Denied), Unavailable when stopped.
        """
        self._check_wanted()
        while self._span is not None:
            data = self._take(self._span, size)
            if data:
                self._at += len(data)
                return data
            self._span, self._at = self._wait(), 0
        return b""

    def _take(self, span: FileSpan | bytes, size: int) -> bytes:
        if isinstance(span, bytes):
            return span[self._at : self._at + size]
        return os.pread(span.file.fileno(), min(size, span.length - self._at), span.offset + self._at)

    def _wait(self) -> FileSpan | bytes | None:
        """The next piece; None at the end."""
        step = asyncio.run_coroutine_threadsafe(self._next(), self._loop)
        while True:
            try:
                return step.result(_LOOK_SECONDS)
            except TimeoutError:
                if step.done():
                    raise
            try:
                self._check_wanted()
            except Unavailable:
                step.cancel()
                raise

    async def _next(self) -> FileSpan | bytes | None:
        return await anext(self._spans, None)

    def _check_wanted(self) -> None:
        if self._stopping.is_set():
            raise Unavailable("the publisher is stopping; the layer is unpacked when it runs again")
