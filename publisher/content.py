"""Opens the way to public content: clients without credentials, and the mirror's own store behind them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.metadata import version

import structlog

from mirror.config import wiring
from mirror.config.models import Config
from mirror.errors import InvalidInput
from mirror.fetch.blobs import BlobFetcher
from mirror.oci.reference import RepositoryName
from mirror.store.blobs import BlobStore
from mirror.upstream.client import UpstreamClient
from mirror.upstream.model import Upstream
from mirror.upstream.session import open_session
from mirror.upstream.token_cache import TokenCache
from publisher.foreign import ForeignLayers
from publisher.proof import Proof, ProofSettings
from publisher.public import PublicContent

log = structlog.get_logger()

USER_AGENT = f"debark-publisher/{version('debark')}"


@dataclass(frozen=True, slots=True)
class Clients:
    """Clients of all upstreams, by registry.

    anonymous: without credentials. trusted: with the mirror's, as far as there are any, for repositories that are vouched for.
    """

    anonymous: Mapping[str, UpstreamClient]
    trusted: Mapping[str, UpstreamClient]


def open_clients(config: Config, stack: AsyncExitStack) -> Clients:
    """All clients, closed with the stack."""
    known = wiring.upstreams(config, anonymous=True)
    session = open_session(known.values(), user_agent=USER_AGENT, max_connections=config.fetch.max_connections)
    stack.push_async_callback(session.close)
    tokens = TokenCache()

    def client(upstream: Upstream, *, anonymous: bool) -> UpstreamClient:
        retry = wiring.upstream_retry(config.upstreams[upstream.name])
        made = UpstreamClient(session, upstream, anonymous=anonymous, tokens=tokens, retry=retry, background=True)
        stack.push_async_callback(made.close)
        return made

    return Clients(
        {name: client(upstream, anonymous=True) for name, upstream in known.items()},
        {upstream.name: client(upstream, anonymous=False) for upstream in _with_credentials(config)},
    )


async def open_content(
    config: Config, store: BlobStore, stack: AsyncExitStack, is_vouched_for: Callable[[RepositoryName], bool]
) -> PublicContent:
    """Content through the mirror's own store. is_vouched_for: by the policy, whenever it is asked."""
    clients = open_clients(config, stack)
    fetcher = BlobFetcher(store, wiring.fetch_limits(config))
    stack.push_async_callback(fetcher.close)
    upstreams = [client.upstream for client in clients.anonymous.values()]
    return PublicContent(
        store,
        fetcher,
        clients.anonymous,
        config.fetch.max_manifest,
        proof=Proof(ProofSettings(config.publish.proof)),
        trusted=clients.trusted,
        is_vouched_for=is_vouched_for,
        foreign=ForeignLayers(upstreams, fetch=config.publish.foreign_layers == "fetch"),
    )


def _with_credentials(config: Config) -> list[Upstream]:
    """Upstreams for which this process has a credential; a publisher under a user of its own may not read the files."""
    try:
        known = wiring.upstreams(config)
    except InvalidInput as error:
        log.warning("credentials_not_read", reason=str(error), effect="namespaces that are vouched for are read without them")
        return []
    return [upstream for upstream in known.values() if upstream.credential is not None]
