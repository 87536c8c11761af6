"""Opens what sends clients elsewhere for blobs, as the settings say."""

from __future__ import annotations

from contextlib import AsyncExitStack

from mirror.background import running
from mirror.config.models import Config
from mirror.jobs.packed_layers import PackedIndex, PackedLayers
from mirror.proxy.client_address import AddressRanges
from mirror.proxy.redirects import Redirects
from mirror.redirect.asking import PlaceClient, open_place_session
from mirror.redirect.places import Place
from mirror.redirect.redirector import Redirector
from mirror.redirect.witness import Witness, WitnessLimits
from mirror.state.engine import Database


async def open_redirects(config: Config, database: Database, user_agent: str, stack: AsyncExitStack) -> Redirects | None:
    """None if there is no place to send anybody to. Closed with the stack."""
    settings = config.redirect
    if not settings.places:
        return None
    places = [
        Place(name, place.url, AddressRanges.parse(place.clients) if place.clients else None)
        for name, place in settings.places.items()
    ]
    index = PackedIndex(PackedLayers(database), remembered=settings.remembered)
    await stack.enter_async_context(running("packed_layers", index.watch))
    session = open_place_session(user_agent, config.fetch.max_connections)
    stack.push_async_callback(session.close)
    limits = WitnessLimits(settings.fresh, settings.again, settings.believed, settings.remembered)
    redirector = Redirector(
        places,
        index,
        Witness(PlaceClient(session, settings.timeout), limits),
        smallest=settings.smallest,
        patience=settings.patience,
    )
    stack.push_async_callback(redirector.close)
    return Redirects(redirector, settings.direct)
