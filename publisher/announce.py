"""Tells replicas of a new revision, so that they need not wait for their next look.

What is sent is the message that CernVM-FS's notification service takes, as `cvmfs_swissknife notify -p` sends it; a replica that
`debark-publisher replicate --follow --listen` keeps, and a CernVM-FS gateway, understand it. Nobody waits for it, and nothing
depends on it: who misses it finds the revision by looking.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import aiohttp
import structlog

from mirror.errors import MirrorError
from publisher.cvmfs.manifest import MANIFEST_NAME
from publisher.objects.store import ObjectSource

_TIMEOUT = aiohttp.ClientTimeout(total=10.0)

log = structlog.get_logger()


class Announcer:
    """Announces revisions of some repositories to all who are to hear of them."""

    def __init__(self, urls: Sequence[str], sources: Mapping[str, ObjectSource]) -> None:
        """urls: such as `http://stratum1.example.org:8090/api/v1`; sources: the repositories by fqrn."""
        self._urls = urls
        self._sources = sources
        self._waiting: dict[str, None] = {}
        self._any = asyncio.Event()

    def announce(self, fqrn: str) -> None:
        """Announce what the repository shows now, as soon as possible; returns at once."""
        if self._urls:
            self._waiting[fqrn] = None
            self._any.set()

    async def run(self) -> None:
        """Send announcements until cancelled."""
        async with aiohttp.ClientSession(timeout=_TIMEOUT, cookie_jar=aiohttp.DummyCookieJar()) as session:
            while True:
                await self._any.wait()
                self._any.clear()
                waiting, self._waiting = list(self._waiting), {}
                await asyncio.gather(*[self._announce(session, fqrn) for fqrn in waiting])

    async def _announce(self, session: aiohttp.ClientSession, fqrn: str) -> None:
        try:
            manifest = await asyncio.to_thread(self._sources[fqrn].read_file, MANIFEST_NAME)
        except MirrorError as error:
            log.warning("announcement_failed", fqrn=fqrn, reason=str(error))
            return
        message = {
            "version": 1,
            "timestamp": f"{datetime.now(UTC):%d %b %Y %H:%M:%S}",
            "type": "activity",
            "repository": fqrn,
            "manifest": base64.b64encode(manifest).decode(),
        }
        data = json.dumps(message).encode()
        await asyncio.gather(*[_send(session, f"{url}/notifications/publish", fqrn, data) for url in self._urls])


async def _send(session: aiohttp.ClientSession, url: str, fqrn: str, data: bytes) -> None:
    try:
        async with session.post(url, data=data, allow_redirects=False) as response:
            status = response.status
    except (aiohttp.ClientError, OSError, ValueError) as error:
        log.warning("announcement_failed", fqrn=fqrn, url=url, reason=str(error) or type(error).__name__)
        return
    if status not in (200, 404):
        log.warning("announcement_failed", fqrn=fqrn, url=url, reason=f"status {status}")
