"""The HTTP session that all upstream clients of a process share.

Its resolver refuses names that lead to addresses outside the public Internet, unless the operator's configuration says that the
name may: so no redirect, no token service and no changed DNS record makes the server talk to a neighbour. The check is where the
connection is made, not before it, so there is no time between the two.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from fnmatch import fnmatchcase

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from mirror.upstream.model import Upstream
from mirror.upstream.trust import is_public_address

READ_BUFFER = 1 << 20
"""Bytes of one answer that may wait to be processed before the sender is slowed down."""


class GuardedResolver(AbstractResolver):
    """A resolver that knows which names may lead to private addresses."""

    def __init__(self, inner: AbstractResolver, private_hosts: Iterable[str]) -> None:
        """private_hosts: host names or patterns (`*` for any characters) that may be anywhere."""
        self._inner = inner
        self._private_hosts = tuple(host.lower() for host in private_hosts)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AddressFamily.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The host's addresses. Raises OSError if none of them may be dialled."""
        found = await self._inner.resolve(host, port, family)
        if any(fnmatchcase(host.lower(), pattern) for pattern in self._private_hosts):
            return found
        allowed = [result for result in found if is_public_address(result["host"])]
        if not allowed:
            raise OSError(
                None, f"{host} has no public address; if it is right, list it in trusted_hosts and set allow_private_addresses"
            )
        return allowed

    async def close(self) -> None:
        """Close the inner resolver."""
        await self._inner.close()


def open_session(
    upstreams: Iterable[Upstream], *, user_agent: str, max_connections: int = 256, max_idle_seconds: float = 30.0
) -> aiohttp.ClientSession:
    """A session for the clients of these upstreams; to be called in a running event loop, and closed by the caller."""
    private: list[str] = []
    for upstream in upstreams:
        private.append(upstream.url.host or "")
        if upstream.allow_private_addresses:
            private.extend(pattern.partition(":")[0] for pattern in upstream.trusted_hosts)
    connector = aiohttp.TCPConnector(
        limit=max_connections,
        keepalive_timeout=max_idle_seconds,
        resolver=GuardedResolver(aiohttp.ThreadedResolver(), private),
    )
    return aiohttp.ClientSession(
        connector=connector,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": user_agent},
        read_bufsize=READ_BUFFER,
        timeout=aiohttp.ClientTimeout(total=None),
    )
