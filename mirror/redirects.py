"""Opens what sends clients elsewhere for blobs, as the settings say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack

from mirror.background import running
from mirror.config.models import Config
from mirror.jobs.packed_layers import PackedIndex, PackedLayers
from mirror.proxy.client_address import AddressRanges
from mirror.proxy.redirects import Redirects
from mirror.redirect.asking import PlaceClient, open_place_session
from mirror.redirect.hubs import Hub, Hubs
from mirror.redirect.places import Place
from mirror.redirect.redirector import Redirector
from mirror.redirect.witness import Witness, WitnessLimits
from mirror.state.engine import Database
from mirror.store.blobs import BlobStore
from mirror.upstream.client import UpstreamClient


async def open_redirects(
    config: Config, database: Database, user_agent: str, hubs: Hubs | None, stack: AsyncExitStack
) -> Redirects | None:
    """None if nobody is ever sent elsewhere. hubs: None if no upstream may be left to serve its blobs. Closed with the stack."""
    redirector = await _redirector(config, database, user_agent, stack) if config.redirect.places else None
    return Redirects(redirector, hubs, config.redirect.direct) if redirector or hubs else None


def open_hubs(
    config: Config,
    clients: Mapping[str, UpstreamClient],
    guards: Mapping[str, UpstreamClient],
    store: BlobStore,
    make_room: Callable[[int], Awaitable[None]],
) -> Hubs | None:
    """Upstreams that may be left to serve their blobs. clients: of all; guards: anonymous ones, where those are not."""
    hubs: dict[str, Hub] = {}
    for name, upstream in config.active_upstreams.items():
        client = guards.get(name, clients[name])
        if upstream.redirect_blobs != "never" and client.anonymous:
            hubs[name] = Hub(client, upstream.redirect_blobs == "always")
    return Hubs(hubs, store, make_room) if hubs else None


async def _redirector(config: Config, database: Database, user_agent: str, stack: AsyncExitStack) -> Redirector:
    settings = config.redirect
    places = [
        Place(name, place.url, AddressRanges.parse(place.clients) if place.clients else None)
        for name, place in settings.places.items()
    ]
    index = PackedIndex(PackedLayers(database), remembered=settings.remembered)
    await stack.enter_async_context(running("packed_layers", index.watch))
    session = open_place_session(user_agent, config.fetch.max_connections)
    stack.push_async_callback(session.close)
    limits = WitnessLimits(settings.fresh, settings.again, settings.believed, settings.remembered)
    witness = Witness(PlaceClient(session, settings.timeout), limits)
    redirector = Redirector(places, index, witness, smallest=settings.smallest, patience=settings.patience)
    stack.push_async_callback(redirector.close)
    return redirector
