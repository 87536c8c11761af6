"""Who may read what through the mirror (design, rules of safety 1 and 2).

A mirror that has a credential for an upstream can read more than its clients may. Unless the operator said that everybody may
read what the credential can (`private = "serve"`), a repository is served only if the upstream gives it to an anonymous client.
And a blob is served under a repository's name only if a manifest of that repository names it, or the upstream itself says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Protocol

from cachetools import TTLCache

from mirror.errors import Denied, NotFound, Unavailable
from mirror.oci.digest import Digest
from mirror.oci.manifest import Descriptor
from mirror.oci.reference import Reference, RepositoryName
from mirror.upstream.client import UpstreamClient


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
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        """clients: by registry, with the mirror's rights. guards: anonymous ones, where private content stays private.

        remembered, seconds: how many answers of upstreams are kept, and for how long.
        """
        self._links = links
        self._clients = clients
        self._guards = guards
        self._public: TTLCache[RepositoryName, bool] = TTLCache(remembered, seconds, timer)
        self._confirmed: TTLCache[tuple[RepositoryName, Digest], int | None] = TTLCache(remembered, seconds, timer)

    async def check_manifest(self, name: RepositoryName, reference: Reference) -> None:
        """Raise Denied if a client of this mirror must not read it; Unavailable if that cannot be told now."""
        guard = self._guards.get(name.registry)
        if guard is None or name in self._public:
            return
        try:
            await guard.head_manifest(name.repository, reference)
        except (Denied, NotFound) as error:
            raise _private(name) from error
        self._public[name] = True

    async def check_blob(self, name: RepositoryName, digest: Digest) -> int | None:
        """Size in bytes of the blob, None if nobody says.

        Raises NotFound if the repository does not have it, Denied if clients of this mirror must not read it, Unavailable.
        """
        guard = self._guards.get(name.registry)
        if guard is not None and name not in self._public:
            try:
                await guard.head_blob(name.repository, digest)
            except (Denied, NotFound) as error:
                raise _private(name) from error
            self._public[name] = True
        try:
            linked = await self._links.find(name, digest)
        except Unavailable:
            linked = None  # The state database is away: the upstream knows as well.
        if linked is not None:
            return linked.size
        key = (name, digest)
        if key not in self._confirmed:
            self._confirmed[key] = await self._clients[name.registry].head_blob(name.repository, digest)
        return self._confirmed[key]


def _private(name: RepositoryName) -> Denied:
    return Denied(
        f"{name} is not public: only this mirror's own credential can read it, and the operator does not share that "
        f'(setting private of upstream "{name.registry}")'
    )
