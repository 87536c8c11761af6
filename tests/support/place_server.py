"""A web server that holds CVMFS repositories, or pretends to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

FQRN = "layers.example.org"


class PlaceServer:
    """Files by their paths below `/cvmfs/`; all can be changed while it runs."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.status: int | None = None
        """In place of any file."""
        self.hangs = False
        self.asked: list[tuple[str, str]] = []
        """Method, and path below `/cvmfs/`."""
        self.url = ""

    def publish(self, revision: int, fqrn: str = FQRN, name: str = "") -> None:
        """Have a repository in this revision; name: the one that its manifest states, if another."""
        lines = [f"C{'ab' * 20}", "Rd41d8cd98f00b204e9800998ecf8427e", "D60", f"S{revision}", f"N{name or fqrn}", f"X{'cd' * 20}"]
        payload = "".join(f"{line}\n" for line in lines).encode()
        self.files[f"{fqrn}/.cvmfspublished"] = payload + b"--\n" + b"ef" * 20 + b"\n" + bytes(range(256))

    def count(self, method: str, path: str = "") -> int:
        return sum(1 for asked, of in self.asked if asked == method and path in of)

    async def handle(self, request: web.Request) -> web.Response:
        path = request.match_info["path"]
        self.asked.append((request.method, path))
        if self.hangs:
            await asyncio.sleep(60)
        if self.status is not None:
            return web.Response(status=self.status, headers={"Location": "/cvmfs/elsewhere"})
        data = self.files.get(path)
        return web.Response(status=404) if data is None else web.Response(body=data)


@asynccontextmanager
async def place_server() -> AsyncIterator[PlaceServer]:
    place = PlaceServer()
    application = web.Application()
    application.router.add_get("/cvmfs/{path:.+}", place.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        place.url = f"http://127.0.0.1:{runner.addresses[0][1]}/cvmfs"
        yield place
    finally:
        await runner.cleanup()
