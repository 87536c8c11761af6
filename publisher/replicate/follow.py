"""Keeps a replica current: looks for a new revision every few seconds, and for everything else once in each TTL.

The look is one conditional GET of the manifest. Once in each TTL a whole replication is run, which also takes a whitelist that
was signed again. A publisher that wants to be heard at once can be: whoever receives its announcement, in whatever form, sets the
event `announced` (`announcements.py` has a receiver), and the source is asked in that moment, past all caches.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NoReturn

import structlog

from mirror.errors import InvalidInput, MirrorError
from publisher.cvmfs.manifest import MANIFEST_NAME
from publisher.objects.http_client import RepositoryClient, Validators, open_client
from publisher.replicate.model import Replicated, Replication
from publisher.replicate.replica import Replicator

LONGEST_PAUSE = 300.0
"""Seconds between tries that fail, at the most."""

_LISTENING_PAUSE = 0.1
"""Seconds after an announcement that brought nothing, before the next one is heard: anybody can make them."""

log = structlog.get_logger()


async def follow(
    replication: Replication,
    *,
    poll_seconds: float = 2.0,
    announced: asyncio.Event | None = None,
    on_replicated: Callable[[Replicated], None] = lambda _: None,
    on_failure: Callable[[MirrorError], None] = lambda _: None,
) -> NoReturn:
    """Replicate whenever the source shows something new; returns only by cancellation.

    As `publisher.replicate.replica.replicate`, but failures are told, logged and tried again, with pauses that grow from
    `poll_seconds` to `LONGEST_PAUSE`. announced: set by whoever learns that there is a new revision; cleared here. on_replicated
    is called after each replication, whether it brought something or not. Raises InvalidInput for an impossible URL or interval.
    """
    if poll_seconds <= 0:
        raise InvalidInput("a replica must look for new revisions at an interval of more than 0 seconds")
    async with open_client(replication.source_url, replication.limits.http) as client:
        replicator = Replicator(client, replication)
        watch = _Watch(client, poll_seconds, announced or asyncio.Event())
        failures = 0
        while True:
            try:
                replicated = await replicator.run()
            except MirrorError as error:
                failures += 1
                pause = min(poll_seconds * 2 ** min(failures - 1, 32), LONGEST_PAUSE)
                log.warning("replication_failed", fqrn=replication.fqrn, error=str(error), failures=failures, next_try=pause)
                on_failure(error)
                await watch.pause(pause)
            else:
                failures = 0
                on_replicated(replicated)
                await watch.change(replicated.manifest_file, replicated.manifest.ttl)


class _Watch:
    """Waits for a reason to replicate again."""

    def __init__(self, client: RepositoryClient, poll_seconds: float, announced: asyncio.Event) -> None:
        self._client = client
        self._poll_seconds = poll_seconds
        self._announced = announced
        self._known: Validators | None = None

    async def pause(self, seconds: float) -> bool:
        """Wait, but not beyond an announcement; whether there was one."""
        try:
            await asyncio.wait_for(self._announced.wait(), seconds)
        except TimeoutError:
            return False
        self._announced.clear()
        return True

    async def change(self, manifest_file: bytes, ttl: int) -> None:
        """Return when the source shows another manifest than this, or after `ttl` seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + max(ttl, self._poll_seconds)
        while (left := deadline - loop.time()) > 0:
            announced = await self.pause(min(self._poll_seconds, left))
            if await self._is_other(manifest_file, fresh=announced):
                return
            if announced:
                await asyncio.sleep(min(_LISTENING_PAUSE, self._poll_seconds))

    async def _is_other(self, manifest_file: bytes, *, fresh: bool) -> bool:
        limit = self._client.limits.file_bytes
        try:
            answer = await self._client.read_if_changed(MANIFEST_NAME, limit, None if fresh else self._known, fresh=fresh)
        except MirrorError as error:
            log.debug("poll_failed", error=str(error))
            return False
        if answer is None:
            return False
        found, self._known = answer
        return found != manifest_file
