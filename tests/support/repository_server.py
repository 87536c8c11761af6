"""A web server for a repository that lives in memory or in a directory, and that can be told to misbehave."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Self

from aiohttp import web

from mirror.errors import NotFound
from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.objects.names import parse_object_name
from publisher.objects.store import ObjectSource

Fault = Callable[[web.Request], Awaitable[web.StreamResponse]]


class RepositoryServer:
    """Serves `/cvmfs/<fqrn>/`; faults by path below it, in place of the file."""

    def __init__(self, source: ObjectSource, fqrn: str) -> None:
        self.source = source
        self.faults: dict[str, Fault] = {}
        self.requests: Counter[str] = Counter()
        self.connections: set[object] = set()
        self.on_request: Callable[[str], None] = lambda _: None
        self._fqrn = fqrn
        self._app = web.Application()
        self._app.router.add_get(f"/cvmfs/{fqrn}/{{path:.*}}", self._serve)
        self.url = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        runner = web.AppRunner(self._app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            host, port = runner.addresses[0][:2]
            self.url = f"http://{host}:{port}/cvmfs/{self._fqrn}"
            yield self
        finally:
            await runner.cleanup()

    def spoil(self, content: ContentHash, kind: ObjectKind, fault: Fault) -> None:
        self.faults[content.object_path(kind)] = fault

    @property
    def objects_served(self) -> int:
        return sum(count for path, count in self.requests.items() if path.startswith("data/"))

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        path = request.match_info["path"]
        self.requests[path] += 1
        self.connections.add(request.transport)
        self.on_request(path)
        if path in self.faults:
            return await self.faults[path](request)
        try:
            data = self._read(path)
        except NotFound:
            return web.Response(status=404, text="no such file")
        return web.Response(body=data, headers={"ETag": f'"{ContentHash.of(data)}"'})

    def _read(self, path: str) -> bytes:
        parsed = parse_object_name(path.removeprefix("data/")) if path.startswith("data/") else None
        return self.source.get(*parsed) if parsed else self.source.read_file(path)


class ThreadedServer:
    """The same in a thread, for blocking tests."""

    def __init__(self, server: RepositoryServer) -> None:
        self.server = server
        self._started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))

    async def _run(self) -> None:
        async with self.server.running():
            self._started.set()
            await self._stop.wait()

    def __enter__(self) -> RepositoryServer:
        self._thread.start()
        assert self._started.wait(10)
        return self.server

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()


def status(code: int, **headers: str) -> Fault:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=code, headers=headers)

    return answer


def other_bytes(data: bytes) -> Fault:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(body=data)

    return answer


def endless(sent: list[int]) -> Fault:
    """A body without end; what was sent of it is counted."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(bytes(1 << 16))
            sent.append(1 << 16)

    return answer


def cut_after(data: bytes, length: int) -> Fault:
    """The first bytes of an answer that promises all of them."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(data))})
        await response.prepare(request)
        await response.write(data[:length])
        assert request.transport is not None
        request.transport.abort()
        return response

    return answer


def without_length(data: bytes) -> Fault:
    """A proper body of which nobody knows the size before its end."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(data)
        await response.write_eof()
        return response

    return answer


def silent(seconds: float) -> Fault:
    async def answer(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return web.Response(status=500)

    return answer


def first(times: int, fault: Fault, then: Fault) -> Fault:
    """One answer for the first requests, another one afterwards."""
    seen = 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal seen
        seen += 1
        return await (fault if seen <= times else then)(request)

    return answer
