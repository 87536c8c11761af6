"""Wires the mirror together: from settings to a web application whose handlers have all that they need."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from aiohttp import web
from aiohttp.typedefs import Handler

from mirror.background import running
from mirror.chores import count_jobs, show_conditions, sweep_parts
from mirror.config import wiring
from mirror.config.models import Config
from mirror.data import DataDirectory
from mirror.errors import MirrorError
from mirror.fetch.blobs import BlobFetcher
from mirror.fetch.listings import ListingLimits, Listings
from mirror.fetch.manifests import ManifestFetcher
from mirror.fetch.turns import Turns
from mirror.jobs.blob_needs import BlobNeeds
from mirror.jobs.conditions import Condition, Conditions
from mirror.jobs.pins import Pins
from mirror.jobs.publications import PublicationIndex
from mirror.jobs.queue import Queue
from mirror.jobs.repositories import Repositories
from mirror.jobs.statuses import Statuses
from mirror.jobs.usage import Usage
from mirror.metrics import PUBLIC_STORE, Metrics
from mirror.observe.events import PullQueue
from mirror.observe.intake import Intake
from mirror.observe.nested import Fetch, NestedIndexes
from mirror.observe.recorder import Recorder
from mirror.oci.digest import Digest
from mirror.oci.reference import Reference, RepositoryName, canonical_registry
from mirror.private import PrivateContent, open_logins, open_private, open_public
from mirror.proxy.access import Access
from mirror.proxy.blob_response import SendLimits
from mirror.proxy.client_address import AddressRanges
from mirror.proxy.client_limits import ClientGate, ClientLimits
from mirror.proxy.cvmfs_files import CvmfsFiles
from mirror.proxy.entrance import Entrance
from mirror.proxy.errors import REQUEST_ID_HEADER
from mirror.proxy.exchange import current_exchange, exchange_of
from mirror.proxy.guard import Guard
from mirror.proxy.hint_artifacts import HintArtifacts
from mirror.proxy.hint_content import HintContent
from mirror.proxy.listing import Discovery
from mirror.proxy.passwords import PasswordFile
from mirror.proxy.redirects import Redirects
from mirror.proxy.registry import Registry
from mirror.proxy.routes import UpstreamNames
from mirror.proxy.status import HealthProbe, StatusApi, gathered
from mirror.proxy.tokens import Issuer, TokenVerifier
from mirror.proxy.unrouted import complete
from mirror.proxy.warm import WarmAnswers
from mirror.proxy.ways import Way
from mirror.redirects import open_hubs, open_redirects
from mirror.report.accesslog import RequestKind
from mirror.snapshot import Snapshot, exposition
from mirror.state.engine import Database
from mirror.state.migrate import migrate
from mirror.store.blobs import BlobStore
from mirror.store.evictor import Evictor
from mirror.store.indexes import Indexes
from mirror.store.links import Links
from mirror.store.tags import Tags
from mirror.upstream.client import UpstreamClient
from mirror.upstreams import open_upstreams

USER_AGENT = f"debark/{version('debark')}"

_DRAIN_SECONDS = 10.0
_LONGEST_FORM = 64 << 10
"""Bytes; nothing else that a client sends has a body that is read."""


class Server(Protocol):
    """The other processes of the server that this mirror is a part of."""

    @property
    def is_leaving(self) -> bool:
        """Whether the server is about to stop."""

    async def metrics(self) -> Snapshot:
        """Of all processes. Raises Unavailable."""

    async def health(self) -> Mapping[str, str | None]:
        """What is wrong, by part, as all processes see it."""


@dataclass(frozen=True, slots=True)
class Mirror:
    """A wired mirror, ready to be served."""

    application: web.Application
    guard: Guard
    warm: WarmAnswers
    """To be closed when the server begins to stop."""
    max_requests: int
    probes: Mapping[str, HealthProbe]

    async def open_runner(self, **options: Any) -> web.AppRunner:
        """What serves it, set up; to be cleaned up by the caller. options: of the runner."""
        runner = web.AppRunner(self.application, handle_signals=False, **options)
        await runner.setup()
        server = runner.server
        assert server is not None  # noqa: S101 - `setup` has made it
        finish = self.application.on_response_prepare.send
        server.request_handler = Entrance(server.request_handler, self.guard, self.warm, self.max_requests, finish)
        return runner

    async def findings(self) -> dict[str, str]:
        """What is wrong, by part, as this process sees it."""
        return {part: finding for part, finding in (await gathered(self.probes)).items() if finding is not None}


@asynccontextmanager
async def open_mirror(
    config: Config, metrics: Metrics, server: Server | None = None, *, has_chores: bool = True
) -> AsyncIterator[Mirror]:
    """All parts, open for the length of the block.

    server: None if this process is all of it. has_chores: whether to do what one process of a server does for all of them.
    Raises InvalidInput, ConfigError, StorageFull, Unavailable if a part cannot be opened.
    """
    async with AsyncExitStack() as stack:
        store = BlobStore(config.data, config.store.min_free)
        database = Database(wiring.database(config))
        stack.push_async_callback(database.close)
        await migrate(database)
        tags = Tags(database, remembered=config.memory.tags)
        links = Links(database, remembered=config.memory.links)
        statuses = Statuses(database)
        publications = PublicationIndex(statuses)
        await stack.enter_async_context(running("publications", publications.watch))
        conditions = Conditions(database)
        upstreams = await open_upstreams(config, metrics, stack, user_agent=USER_AGENT)
        clients = upstreams.clients
        evictor = _evictor(config, store, database, metrics)
        blobs = BlobFetcher(store, wiring.fetch_limits(config), on_end=metrics.fill, make_room=evictor.make_room)
        stack.push_async_callback(blobs.close)
        hubs = open_hubs(config, clients, upstreams.guards, store, evictor.make_room)
        redirects = await open_redirects(config, database, USER_AGENT, hubs, stack)
        turns = stack.enter_context(closing(Turns(config.data / "run" / "turns")))
        limits, at_hand = wiring.manifest_limits(config), _at_hand(blobs, redirects)
        manifests = ManifestFetcher(store, tags, links, limits, turns=turns, is_at_hand=at_hand)
        stack.push_async_callback(manifests.close)
        pulls = None
        if config.publish.enabled:
            nested = NestedIndexes(_inner_indexes(clients, manifests))
            intake = Intake(statuses, tags, Indexes(database), nested, wiring.platforms(config))
            pulls = await _open_recorder(stack, config, metrics, database, statuses=statuses, intake=intake)
        if has_chores:
            chores = {
                "sweep": lambda: sweep_parts(store, config.store.keep_parts),
                "job_counts": lambda: count_jobs(statuses, metrics),
                "conditions": lambda: show_conditions(conditions, metrics),
                "eviction": evictor.run,
            }
            for chore, run in chores.items():
                await stack.enter_async_context(running(chore, run))
        listings = Listings(manifests, ListingLimits(config.tags.ttl, config.tags.hold))
        stack.push_async_callback(listings.close)
        default = canonical_registry(config.default_upstream)
        names = UpstreamNames(wiring.upstream_names(config), default, wiring.server_names(config))
        ways = {name: Way(client, manifests, blobs, listings) for name, client in clients.items()}
        private = await open_private(config, upstreams.guards, metrics, stack, has_chores=has_chores)
        public = await open_public(config, upstreams.guards, database, stack, has_chores=has_chores)
        access, logins = Access(links, ways, public, private.rights), open_logins(config, names)
        warm = WarmAnswers(
            min(1.0, config.tags.ttl), server=USER_AGENT, pulls=pulls, passes_credentials=bool(config.passing_upstreams)
        )
        hints = _open_hints(config, publications, statuses, links, stack)
        registry = Registry(
            upstreams=names,
            access=access,
            discovery=Discovery(access, hints),
            publications=publications,
            pulls=pulls,
            limits=SendLimits(config.server.slow_bytes, config.server.slow_time),
            warm=warm,
            logins=logins,
            redirects=redirects,
            hint_content=HintContent(access, hints) if hints is not None else None,
        )
        publisher_probes = _publisher_probes(conditions) if config.publish.enabled else {}
        probes = {**_probes(store, blobs, private, statuses), "upstreams": upstreams.problem, **publisher_probes}
        status = StatusApi(
            statuses,
            Repositories(database),
            names,
            config.server.public_url,
            probes,
            cvmfs_url=config.server.cvmfs_url,
            pins=Pins(database),
            elsewhere=server.health if server else None,
            needed=_needs([store, *private.stores], server),
        )
        metrics.watch_disk(DataDirectory(config.data).free_bytes)
        metrics.watch_fills(lambda: blobs.active_fills + private.active_fills)
        routes = [*registry.routes(), *status.routes(), *(logins.routes() if logins else [])]
        yield Mirror(
            _application(config, routes, _metrics_handler(metrics, server)),
            _guard(config),
            warm,
            config.server.max_requests,
            probes,
        )


def _application(config: Config, routes: list[web.RouteDef], metrics_handler: Handler) -> web.Application:
    files = CvmfsFiles(config.data / "cvmfs", send_seconds=config.server.slow_time)
    routes.append(web.get("/cvmfs/{fqrn}/{path:.+}", files.get))
    if config.metrics.enabled:
        routes.append(web.get("/metrics", metrics_handler))
    application = web.Application(client_max_size=_LONGEST_FORM)
    application.on_response_prepare.append(_sign)
    application.add_routes(complete(routes))
    return application


def _at_hand(blobs: BlobFetcher, redirects: Redirects | None) -> Callable[[Digest], Awaitable[bool]]:
    """Whether clients get a blob even while its upstream is away."""

    async def is_at_hand(digest: Digest) -> bool:
        return await blobs.is_at_hand(digest) or (redirects is not None and await redirects.lead_to(digest))

    return is_at_hand


def _evictor(config: Config, store: BlobStore, database: Database, metrics: Metrics) -> Evictor:
    needs = BlobNeeds(database, store, live_seconds=config.store.live, max_manifest_bytes=config.fetch.max_manifest)
    policy = wiring.eviction_policy(config)
    return Evictor(
        store, needs, policy, on_evicted=partial(metrics.evicted, PUBLIC_STORE), on_census=partial(metrics.stored, PUBLIC_STORE)
    )


def _guard(config: Config) -> Guard:
    """Who may use this mirror. Raises InvalidInput for a file of users or keys that cannot be used."""
    access = config.access
    issuers = [Issuer(name, issuer.audience, Path(issuer.keys_file)) for name, issuer in access.issuers.items()]
    return Guard(
        ClientGate(ClientLimits(access.requests, access.rate, access.burst)),
        allowed=AddressRanges.parse(access.allow),
        proxies=AddressRanges.parse(access.trusted_proxies),
        passwords=PasswordFile(Path(access.users_file)) if access.users_file else None,
        tokens=TokenVerifier(issuers) if issuers else None,
    )


def _inner_indexes(clients: Mapping[str, UpstreamClient], manifests: ManifestFetcher) -> Fetch:
    async def fetch(name: RepositoryName, digest: Digest) -> tuple[bytes, str]:
        answer = await manifests.get(clients[name.registry], name, Reference(digest=digest))
        return answer.raw, answer.media_type

    return fetch


def _open_hints(
    config: Config, publications: PublicationIndex, statuses: Statuses, links: Links, stack: AsyncExitStack
) -> HintArtifacts | None:
    if not (config.publish.enabled and config.publish.hint_artifacts):
        return None
    hints = HintArtifacts(publications, statuses, links)
    stack.push_async_callback(hints.close)
    return hints


async def _open_recorder(
    stack: AsyncExitStack, config: Config, metrics: Metrics, database: Database, *, statuses: Statuses, intake: Intake
) -> PullQueue:
    """Where pulls are put to be recorded."""
    pulls = PullQueue(pulls=config.memory.pulls, manifest_bytes=config.memory.pulls_size, on_drop=metrics.pull_event_dropped)
    queue = Queue(database, policy=wiring.publish_retry(config))
    recorder = Recorder(pulls, queue=queue, statuses=statuses, intake=intake, usage=Usage(database))
    stack.push_async_callback(recorder.drain, _DRAIN_SECONDS)
    await stack.enter_async_context(running("recorder", recorder.run))
    return pulls


def _probes(store: BlobStore, blobs: BlobFetcher, private: PrivateContent, statuses: Statuses) -> dict[str, HealthProbe]:
    async def store_probe() -> str | None:
        try:
            store.check_space(0)
        except MirrorError as error:
            return str(error)
        return blobs.storage_problem

    async def state_probe() -> str | None:
        try:
            await statuses.serial()
        except MirrorError as error:
            return str(error)
        return None

    probes: dict[str, HealthProbe] = {"store": store_probe, "state": state_probe}
    return probes | ({"private_store": private.problem} if private.stores else {})


def _needs(stores: Sequence[BlobStore], server: Server | None) -> dict[str, HealthProbe]:
    """What must be well for this server to get traffic."""

    async def accepting() -> str | None:
        return "the server is stopping" if server is not None and server.is_leaving else None

    async def readable() -> str | None:
        try:
            for store in stores:
                await asyncio.to_thread(store.check_readable)
        except MirrorError as error:
            return str(error)
        return None

    return {"server": accepting, "store": readable}


def _publisher_probes(conditions: Conditions) -> dict[str, HealthProbe]:
    """What publishers say is wrong with them."""

    def probe(condition: Condition) -> HealthProbe:
        async def ask() -> str | None:
            try:
                return (await conditions.all()).get(condition)
            except MirrorError:
                return None  # The probe of the state database says so.

        return ask

    return {f"publisher_{condition.value}": probe(condition) for condition in Condition}


async def _sign(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = USER_AGENT
    exchange = exchange_of(request)
    if exchange is not None:  # The server library answers by itself what it takes for a mistake of ours.
        response.headers[REQUEST_ID_HEADER] = exchange.request_id


def _metrics_handler(metrics: Metrics, server: Server | None) -> Handler:
    async def handle(request: web.Request) -> web.Response:
        current_exchange(request).kind = RequestKind.STATUS
        body, content_type = exposition(await server.metrics() if server is not None else metrics.snapshot())
        return web.Response(body=body, headers={"Content-Type": content_type})

    return handle
