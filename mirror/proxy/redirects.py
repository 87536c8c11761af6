"""Answers that send a client elsewhere for a blob (307, RFC 9110, section 15.4.8).

What every known client does with them: it follows, verifies what it gets by the digest, and asks here again, with a Range, after
a cut. It may repeat credentials that it has for this host to another port of the same host (containerd 2, containers/image).
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Protocol

from aiohttp import web

from mirror.fetch.result import CacheResult
from mirror.oci.digest import Digest
from mirror.oci.reference import RepositoryName
from mirror.proxy.conditions import client_has
from mirror.proxy.exchange import Exchange

DIRECT_HEADER = "X-Debark-Redirect"
"""With the value `no` a client asks for the blob itself; containerd sends any header that its hosts.toml names."""


class Locator(Protocol):
    """Where else a published blob is."""

    async def find(self, digest: Digest, client: str) -> str | None:
        """The URL of a server that gives the blob to a client with this address; None if there is none now."""


class Origins(Protocol):
    """Where upstreams have blobs."""

    async def find(self, name: RepositoryName, digest: Digest, size: int | None) -> str | None:
        """The URL at which the upstream has the blob; None if the mirror is to serve it."""


@dataclass(frozen=True, slots=True)
class Redirects:
    """Decides who is sent elsewhere."""

    locator: Locator | None
    """None if no servers are named."""
    origins: Origins | None = None
    """None if no upstream may be left to serve its blobs."""
    direct: tuple[str, ...] = ()
    """User-Agents that are not: patterns with `*`."""

    async def answer(
        self, request: web.Request, exchange: Exchange, name: RepositoryName, digest: Digest, size: int | None
    ) -> web.Response | None:
        """What sends the client to another server; None if it is to be served here. Whether it may read the blob is decided.

        size: of the blob in bytes, if it is known.
        """
        if not self._can_follow(request) or client_has(request.headers.getall("If-None-Match", ()), digest):
            return None
        location = await self.locator.find(digest, exchange.client or request.remote or "") if self.locator else None
        if location is None and self.origins is not None:
            location = await self.origins.find(name, digest, size)
        if location is None:
            return None
        exchange.cache = CacheResult.REDIRECTED
        return web.Response(status=307, headers={"Location": location, "Docker-Content-Digest": str(digest)})

    async def lead_to(self, digest: Digest) -> bool:
        """Whether there is a server for everybody that gives the blob, whatever upstreams do."""
        return self.locator is not None and await self.locator.find(digest, "") is not None

    def _can_follow(self, request: web.Request) -> bool:
        # HTTP/1.0 has no 307, and HEAD wants nothing but headers.
        if request.method != "GET" or request.version < (1, 1) or request.headers.get(DIRECT_HEADER, "").lower() == "no":
            return False
        agent = request.headers.get("User-Agent", "")
        return not any(fnmatchcase(agent, pattern) for pattern in self.direct)
