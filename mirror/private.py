"""Wires what tells private content from public, and what serves the private.

For each upstream that clients' credentials are passed to there is a store and caches of its own. Nothing of that is shared with
what is public, with another upstream, or with the publisher: whoever asks another repository for a digest that is there finds
nothing of it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial

from mirror.background import running
from mirror.chores import drop_sightings, sweep_parts
from mirror.config import wiring
from mirror.config.models import Config
from mirror.data import DataDirectory
from mirror.errors import MirrorError
from mirror.fetch.blobs import BlobFetcher
from mirror.fetch.listings import ListingLimits, Listings
from mirror.fetch.manifests import ManifestFetcher
from mirror.fetch.private_memory import RememberedLinks, RememberedTags
from mirror.metrics import Metrics, private_store
from mirror.oci.digest import Digest
from mirror.proxy.client_address import AddressRanges
from mirror.proxy.logins import Logins
from mirror.proxy.public import PublicLimits, PublicRepositories
from mirror.proxy.rights import Rights, RightsLimits
from mirror.proxy.routes import UpstreamNames
from mirror.proxy.seal import Seal, seal_key
from mirror.proxy.ways import Way
from mirror.state.engine import Database
from mirror.store.blobs import BlobStore
from mirror.store.evictor import Evictor, Needed
from mirror.store.sightings import Sightings
from mirror.upstream.client import UpstreamClient


class _NothingNeeded:
    """Implements `mirror.store.evictor.Needs`: the longest unused goes first."""

    async def look(self) -> Needed:
        return Needed(frozenset(), frozenset())

    async def held(self, digests: Sequence[Digest]) -> frozenset[Digest]:  # noqa: ARG002
        return frozenset()


async def open_public(
    config: Config, guards: Mapping[str, UpstreamClient], database: Database, stack: AsyncExitStack, *, has_chores: bool
) -> PublicRepositories:
    """Which repositories anybody may read. guards: anonymous clients of upstreams where that has to be shown.

    has_chores: whether to do what one process of a server does for all of them.
    """
    access, tags = config.access, config.tags
    sightings = Sightings(database)
    limits = PublicLimits(fresh=access.public, kept=access.public_kept, hold=tags.hold, patience=tags.patience)
    public = PublicRepositories(guards, sightings, limits)
    stack.push_async_callback(public.close)
    if has_chores:
        await stack.enter_async_context(running("sightings", lambda: drop_sightings(sightings, access.public_kept)))
    return public


@dataclass(frozen=True, slots=True)
class PrivateContent:
    """What there is for clients' own accounts."""

    rights: Rights
    """Of clients, with the ways to what they may read."""
    fetchers: Mapping[BlobStore, BlobFetcher]

    @property
    def stores(self) -> Collection[BlobStore]:
        """One of each upstream."""
        return self.fetchers.keys()

    @property
    def active_fills(self) -> int:
        """Blobs on their way in."""
        return sum(blobs.active_fills for blobs in self.fetchers.values())

    async def problem(self) -> str | None:
        """Why blobs are not kept now, or one was not lately, for the operator; None if they are."""
        for store, blobs in self.fetchers.items():
            try:
                store.check_space(0)
            except MirrorError as error:
                return str(error)
            if blobs.storage_problem is not None:  # It names the blob, which is nobody's business.
                return f"a blob found no room in {store.layout.root}: free space, or move the data directory"
        return None


async def open_private(
    config: Config, anonymous: Mapping[str, UpstreamClient], metrics: Metrics, stack: AsyncExitStack, *, has_chores: bool
) -> PrivateContent:
    """Open a store and a way for each upstream that clients' credentials are passed to.

    anonymous: clients of upstreams, whose rights are replaced. has_chores: whether to do what one process of a server does for
    all of them. Raises StorageFull, Unavailable.
    """
    ways: dict[str, Way] = {}
    fetchers: dict[BlobStore, BlobFetcher] = {}
    for name in config.passing_upstreams:
        store = BlobStore(DataDirectory(config.data).private / name, config.store.min_free)
        way = await _open_way(config, anonymous[name], store, metrics, stack, has_chores=has_chores)
        ways[name], fetchers[store] = way, way.blobs
    access = config.access
    rights = Rights(ways, RightsLimits(fresh=access.rights, kept=access.rights_kept, wrong=access.wrong_passwords))
    stack.push_async_callback(rights.close)
    return PrivateContent(rights, fetchers)


def open_logins(config: Config, names: UpstreamNames) -> Logins | None:
    """How clients log in; None if no upstream takes their credentials. Raises InvalidInput, Unavailable for the key."""
    passing = frozenset(config.passing_upstreams)
    if not passing:
        return None
    seconds = int(config.access.token_time)
    return Logins(
        names,
        passing,
        Seal(seal_key(DataDirectory(config.data).run / "token_key"), seconds),
        seconds,
        config.server.public_url,
        AddressRanges.parse(config.access.trusted_proxies),
    )


async def _open_way(
    config: Config, client: UpstreamClient, store: BlobStore, metrics: Metrics, stack: AsyncExitStack, *, has_chores: bool
) -> Way:
    label = private_store(client.upstream.name)
    evictor = Evictor(
        store,
        _NothingNeeded(),
        replace(wiring.eviction_policy(config), max_bytes=config.store.private_size),
        on_evicted=partial(metrics.evicted, label),
        on_census=partial(metrics.stored, label),
    )
    if has_chores:
        await stack.enter_async_context(running("private_sweep", lambda: sweep_parts(store, config.store.keep_parts)))
        await stack.enter_async_context(running("private_eviction", evictor.run))
    tags, links = RememberedTags(config.memory.tags), RememberedLinks(config.memory.links)
    blobs = BlobFetcher(store, wiring.fetch_limits(config), on_end=metrics.fill, make_room=evictor.make_room)
    stack.push_async_callback(blobs.close)
    manifests = ManifestFetcher(store, tags, links, wiring.manifest_limits(config), is_at_hand=blobs.is_at_hand)
    stack.push_async_callback(manifests.close)
    listings = Listings(manifests, ListingLimits(config.tags.ttl, config.tags.hold))
    stack.push_async_callback(listings.close)
    return Way(client, manifests, blobs, listings, is_private=True)
