"""Clients of registries in tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from mirror.upstream.client import UpstreamClient
from mirror.upstream.model import Upstream
from mirror.upstream.policy import RetryPolicy
from mirror.upstream.session import open_session

QUICK = RetryPolicy(attempts=3, first_delay=0.001, longest_delay=0.01)


def upstream(url: str, **settings: Any) -> Upstream:
    """An upstream named `hub.test` at this address."""
    return Upstream(**{"name": "hub.test", "base_url": url, "connect_timeout": 2.0, "read_timeout": 2.0, **settings})


@asynccontextmanager
async def client_of(url: str, *, anonymous: bool = False, **settings: Any) -> AsyncIterator[UpstreamClient]:
    """A client with a session of its own; settings are those of `Upstream`."""
    wanted = upstream(url, **settings)
    async with session_for(wanted) as session:
        client = UpstreamClient(session, wanted, anonymous=anonymous, retry=QUICK)
        try:
            yield client
        finally:
            await client.close()


@asynccontextmanager
async def session_for(*upstreams: Upstream) -> AsyncIterator[aiohttp.ClientSession]:
    """A session for these upstreams."""
    async with open_session(upstreams, user_agent="debark-tests") as session:
        yield session
