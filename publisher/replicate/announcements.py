"""Where a replica hears that its source has a new revision, so that it need not wait for its next look.

It takes what `cvmfs_swissknife notify -p -u http://<listener>/api/v1 -r <repository>` sends, as the notification service of a
CernVM-FS gateway does, and what a debark publisher sends. An announcement is a reason to look at the source and nothing more:
nobody is asked who he is, and nothing of what he says is believed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import structlog
from aiohttp import web

from mirror.errors import Unavailable

PUBLISH_PATH = "/api/v1/notifications/publish"

_MOST_BYTES = 64 << 10
"""Of an announcement; it holds a repository manifest, of about 1 kB."""

log = structlog.get_logger()


class Announcements:
    """Answers announcements about one repository."""

    def __init__(self, fqrn: str, announced: asyncio.Event) -> None:
        """announced: set by each of them."""
        self._fqrn = fqrn
        self._announced = announced

    def application(self) -> web.Application:
        """To be run by a web server."""
        application = web.Application(client_max_size=_MOST_BYTES)
        application.router.add_post(PUBLISH_PATH, self._take)
        return application

    async def _take(self, request: web.Request) -> web.Response:
        try:
            message: Any = json.loads(await request.read())
        except (ValueError, RecursionError):
            return _answer(400, "no JSON")
        if not isinstance(message, dict) or message.get("type") != "activity":
            return _answer(400, 'no message of the type "activity"')
        if message.get("repository") != self._fqrn:
            return _answer(404, "another repository is replicated here")
        log.debug("revision_announced", fqrn=self._fqrn, by=request.remote)
        self._announced.set()
        return _answer(200, None)


@asynccontextmanager
async def listening(host: str, port: int, fqrn: str, announced: asyncio.Event) -> AsyncIterator[str]:
    """A web server for announcements, for as long as the block takes; its URL, as senders need it.

    port: 0 takes any. Raises Unavailable if it cannot listen there.
    """
    runner = web.AppRunner(Announcements(fqrn, announced).application(), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise Unavailable(f"{host}:{port} cannot be listened on for announcements: {error.strerror or error}") from error
        bound = runner.addresses[0][1]
        yield f"http://{f'[{host}]' if ':' in host else host}:{bound}/api/v1"
    finally:
        await runner.cleanup()


def _answer(status: int, reason: str | None) -> web.Response:
    """As a gateway's notification service says it."""
    body = {"status": "ok"} if reason is None else {"status": "error", "reason": reason}
    return web.json_response(body, status=status)
