"""Who may read what through the mirror (design, rules of safety 1 and 2).

A mirror that has a credential for an upstream can read more than its clients may. Unless the operator said that everybody may
read what the credential can (`private = "serve"`), a repository is served only if the upstream gives it to an anonymous client.
And a blob is served under a repository's name only if a manifest of that repository names it, or the upstream itself says so.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

import structlog
from cachetools import TTLCache

from mirror.errors import Denied, Unavailable
from mirror.oci.digest import Digest
from mirror.oci.manifest import Descriptor
from mirror.oci.reference import Reference, RepositoryName
from mirror.upstream.client import UpstreamClient

log = structlog.get_logger()


class Links(Protocol):
    """Which repository names which content."""

    async def find(self, name: RepositoryName, digest: Digest) -> Descriptor | None:
        """The content as the repository's manifests describe it; None if none of them names it. Raises Unavailable."""


class Access:
    """Decides, remembering each answer for a while."""

    def __init__(
        self,
        links: Links,
        clients: Mapping[str, UpstreamClient],
        guards: Mapping[str, UpstreamClient],
        *,
        remembered: int = 50_000,
        seconds: float = 600.0,
        longest: float = 86_400.0,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        """clients: by registry, with the mirror's rights. guards: anonymous ones, where private content stays private.

        remembered, seconds: how many answers of upstreams are kept, and for how long. longest: seconds for which a repository
        that was shown to be public counts as public while the upstream cannot be asked again.
        """
        self._links = links
        self._clients = clients
        self._guards = guards
        self._seconds = seconds
        self._timer = timer
        # When each repository was last seen to be public.
        self._public: TTLCache[RepositoryName, float] = TTLCache(remembered, max(longest, seconds), timer)
        self._confirmed: TTLCache[tuple[RepositoryName, Digest], int | None] = TTLCache(remembered, seconds, timer)

    async def check_manifest(self, name: RepositoryName, reference: Reference) -> None:
        """Raise Denied or NotFound if a client of this mirror must not read it; Unavailable if that cannot be told now."""
        guard = self._guards.get(name.registry)
        if guard is not None:
            await self._check_public(name, lambda: guard.head_manifest(name.repository, reference))

    async def check_listing(self, name: RepositoryName) -> None:
        """Raise Denied or NotFound if a client of this mirror must not know what is in it; Unavailable if that cannot be told."""
        guard = self._guards.get(name.registry)
        if guard is not None:
            await self._check_public(name, lambda: guard.tags(name.repository))

    async def check_blob(self, name: RepositoryName, digest: Digest) -> int | None:
        """Size in bytes of the blob, None if nobody says.

        Raises NotFound if the repository does not have it, Denied if clients of this mirror must not read it, Unavailable.
        """
        guard = self._guards.get(name.registry)
        if guard is not None:
            await self._check_public(name, lambda: guard.head_blob(name.repository, digest))
        try:
            linked = await self._links.find(name, digest)
        except Unavailable:
            linked = None  # The state database is away: the upstream knows as well.
        if linked is not None:
            return linked.size
        key = (name, digest)
        with contextlib.suppress(KeyError):
            return self._confirmed[key]
        size = await self._clients[name.registry].head_blob(name.repository, digest)
        self._confirmed[key] = size
        return size

    async def _check_public(self, name: RepositoryName, ask: Callable[[], Awaitable[object]]) -> None:
        """ask: for anything of the repository, as nobody."""
        seen = self._public.get(name)
        if seen is not None and self._timer() - seen < self._seconds:
            return
        try:
            await ask()
        except Denied as error:
            self._public.pop(name, None)
            raise _private(name) from error
        except Unavailable as error:
            if seen is None:
                raise
            log.warning("taken_for_public", name=str(name), reason=str(error))
            return
        self._public[name] = self._timer()


def _private(name: RepositoryName) -> Denied:
    return Denied(
        f"{name} is not public: only this mirror's own credential can read it, and the operator does not share that "
        f'(setting private of upstream "{name.registry}")'
    )
