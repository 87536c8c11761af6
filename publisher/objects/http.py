"""A repository read over HTTP by blocking callers: `ls`, `cat` and `check` on the web address of any stratum 0 or 1."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack
from typing import Any, Self, TypeVar

from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.objects.http_client import HttpLimits, RepositoryClient, open_client
from publisher.objects.names import named_file

Result = TypeVar("Result")


class HttpObjectSource:
    """The object source protocol over HTTP; safe for several threads, which share connections. To be closed, or used in a `with`.

    An event loop in a thread of its own does the requests, so it must not be called from within one.
    """

    def __init__(self, url: str, limits: HttpLimits | None = None) -> None:
        """url: of the repository, such as `http://stratum1.example.org/cvmfs/layers.example.org`. Raises InvalidInput."""
        self._limits = limits or HttpLimits()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="http-objects", daemon=True)
        self._thread.start()
        self._closing = AsyncExitStack()
        try:
            self._client: RepositoryClient = self._run(self._closing.enter_async_context(open_client(url, self._limits)))
        except BaseException:
            self._stop()
            raise

    def get(self, content: ContentHash, kind: ObjectKind) -> bytes:
        """The stored (compressed) bytes, not yet verified.

        Raises NotFound, Unavailable, RepositoryDamaged if there are more of them than the limits allow.
        """
        return self._run(self._client.read(content.object_path(kind), self._limits.object_bytes))

    def pieces(self, content: ContentHash, kind: ObjectKind) -> Iterator[bytes]:
        """What `get` gives, a piece at a time, as it arrives; not tried again. Raises as `get`."""
        path = content.object_path(kind)
        body = self._run(self._client.begin(path, self._limits.streamed_bytes))
        try:
            while piece := self._run(body.read()):
                yield piece
        finally:
            self._run(body.__aexit__(None, None, None))

    def read_file(self, name: str) -> bytes:
        """A named file of the repository's root. Raises as `get`, and InvalidInput for another name."""
        return self._run(self._client.read(named_file(name), self._limits.file_bytes))

    def contains(self, content: ContentHash, kind: ObjectKind) -> bool:
        """Whether the object is there. Raises Unavailable."""
        return self._run(self._client.exists(content.object_path(kind)))

    def close(self) -> None:
        """End the connections and the thread; closing twice does no harm."""
        if not self._loop.is_closed():
            try:
                self._run(self._closing.aclose())
            finally:
                self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
