"""Wires the mirror together: from settings to a web application whose handlers have all that they need."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

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
from mirror.jobs.blob_needs import BlobNeeds
from mirror.jobs.conditions import Condition, Conditions
from mirror.jobs.pins import Pins
from mirror.jobs.publications import PublicationIndex
from mirror.jobs.queue import Queue
from mirror.jobs.repositories import Repositories
from mirror.jobs.statuses import Statuses
from mirror.jobs.usage import Usage
from mirror.metrics import Metrics
from mirror.observe.events import PullQueue
from mirror.observe.intake import Intake
from mirror.observe.nested import Fetch, NestedIndexes
from mirror.observe.recorder import Recorder
from mirror.oci.digest import Digest
from mirror.oci.reference import Reference, RepositoryName, canonical_registry
from mirror.proxy.access import Access
from mirror.proxy.admission import bounded_requests
from mirror.proxy.blob_response import SendLimits
from mirror.proxy.client_address import AddressRanges
from mirror.proxy.client_limits import ClientGate, ClientLimits
from mirror.proxy.cvmfs_files import CvmfsFiles
from mirror.proxy.errors import REQUEST_ID_HEADER, answer_errors
from mirror.proxy.exchange import current_exchange
from mirror.proxy.guard import Guard
from mirror.proxy.listing import Discovery
from mirror.proxy.passwords import PasswordFile
from mirror.proxy.registry import Registry
from mirror.proxy.routes import UpstreamNames
from mirror.proxy.status import HealthProbe, StatusApi
from mirror.proxy.tokens import Issuer, TokenVerifier
from mirror.proxy.warm import WarmAnswers
from mirror.report.accesslog import RequestKind
from mirror.state.engine import Database
from mirror.state.migrate import migrate
from mirror.store.blobs import BlobStore
from mirror.store.evictor import Evictor
from mirror.store.indexes import Indexes
from mirror.store.links import Links
from mirror.store.tags import Tags
from mirror.upstream.auth import TokenCache
from mirror.upstream.client import UpstreamClient
from mirror.upstream.session import open_session

USER_AGENT = f"debark/{version('debark')}"

_DRAIN_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Mirror:
    """A wired mirror, ready to be served."""

    application: web.Application
    repositories: Repositories


@asynccontextmanager
async def open_mirror(config: Config, metrics: Metrics, publisher_probe: HealthProbe | None) -> AsyncIterator[Mirror]:
    """All parts, open for the length of the block.

    publisher_probe: says what is wrong with the publisher; None if this process runs none.
    Raises InvalidInput, ConfigError, StorageFull, Unavailable if a part cannot be opened.
    """
    async with AsyncExitStack() as stack:
        store = BlobStore(config.data, config.store.min_free)
        database = Database(wiring.database(config))
        stack.push_async_callback(database.close)
        await migrate(database)
        await stack.enter_async_context(running("sweep", lambda: sweep_parts(store, config.store.keep_parts)))
        tags = Tags(database, remembered=config.memory.tags)
        links = Links(database, remembered=config.memory.links)
        statuses = Statuses(database)
        repositories = Repositories(database)
        publications = PublicationIndex(statuses)
        await stack.enter_async_context(running("publications", publications.watch))
        await stack.enter_async_context(running("job_counts", lambda: count_jobs(statuses, metrics)))
        conditions = Conditions(database)
        await stack.enter_async_context(running("conditions", lambda: show_conditions(conditions, metrics)))
        pulls = PullQueue(pulls=config.memory.pulls, manifest_bytes=config.memory.pulls_size, on_drop=metrics.pull_event_dropped)
        clients, guards = await _open_clients(config, metrics, stack)
        manifests = ManifestFetcher(store, tags, links, wiring.manifest_limits(config))
        stack.push_async_callback(manifests.close)
        if config.publish.enabled:
            nested = NestedIndexes(_inner_indexes(clients, manifests))
            intake = Intake(statuses, tags, Indexes(database), nested, wiring.platforms(config))
            recorder = _recorder(pulls, config, database, statuses, intake)
            stack.push_async_callback(recorder.drain, _DRAIN_SECONDS)
            await stack.enter_async_context(running("recorder", recorder.run))
        evictor = _evictor(config, store, database, metrics)
        await stack.enter_async_context(running("eviction", evictor.run))
        blobs = BlobFetcher(store, wiring.fetch_limits(config), on_end=metrics.fill, make_room=evictor.make_room)
        stack.push_async_callback(blobs.close)
        listings = Listings(manifests, ListingLimits(config.tags.ttl, config.tags.hold))
        stack.push_async_callback(listings.close)
        default = canonical_registry(config.default_upstream)
        names = UpstreamNames(wiring.upstream_names(config), default, wiring.server_names(config))
        access = Access(links, clients, guards)
        registry = Registry(
            upstreams=names,
            clients=clients,
            access=access,
            manifests=manifests,
            blobs=blobs,
            discovery=Discovery(clients, access, listings),
            publications=publications,
            pulls=pulls if config.publish.enabled else None,
            limits=SendLimits(config.server.slow_bytes, config.server.slow_time),
            warm=WarmAnswers(min(1.0, config.tags.ttl), server=USER_AGENT),
        )
        probes = _probes(store, blobs, statuses) | ({"publisher": publisher_probe} if publisher_probe else {})
        probes |= _publisher_probes(conditions) if config.publish.enabled else {}
        status = StatusApi(statuses, repositories, names, config.server.public_url, probes, pins=Pins(database))
        metrics.watch_disk(DataDirectory(config.data).free_bytes)
        middlewares = [answer_errors, _guard(config).middleware(), bounded_requests(config.server.max_requests)]
        application = web.Application(middlewares=middlewares)
        application.on_response_prepare.append(_sign)
        application.add_routes([*registry.routes(), *status.routes()])
        application.router.add_get(
            "/cvmfs/{fqrn}/{path:.+}", CvmfsFiles(config.data / "cvmfs", send_seconds=config.server.slow_time).get
        )
        if config.metrics.enabled:
            application.router.add_get("/metrics", _metrics_handler(metrics))
        yield Mirror(application, repositories)


def _evictor(config: Config, store: BlobStore, database: Database, metrics: Metrics) -> Evictor:
    needs = BlobNeeds(database, store, live_seconds=config.store.live, max_manifest_bytes=config.fetch.max_manifest)
    policy = wiring.eviction_policy(config)
    return Evictor(store, needs, policy, on_evicted=metrics.evicted, on_census=metrics.stored)


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


async def _open_clients(
    config: Config, metrics: Metrics, stack: AsyncExitStack
) -> tuple[dict[str, UpstreamClient], dict[str, UpstreamClient]]:
    """Clients by upstream with the mirror's rights; and anonymous ones of those whose private content is not shared."""
    known = wiring.upstreams(config)
    session = open_session(known.values(), user_agent=USER_AGENT, max_connections=config.fetch.max_connections)
    stack.push_async_callback(session.close)
    tokens = TokenCache()
    retries = {name: wiring.upstream_retry(config.upstreams[name]) for name in known}

    def client(name: str, *, anonymous: bool = False) -> UpstreamClient:
        count = metrics.upstream_request
        return UpstreamClient(session, known[name], anonymous=anonymous, tokens=tokens, retry=retries[name], on_request=count)

    clients = {name: client(name) for name in known}
    guards = {
        name: client(name, anonymous=True)
        for name, upstream in known.items()
        if upstream.credential is not None and config.upstreams[name].private == "refuse"
    }
    for opened in (*clients.values(), *guards.values()):
        stack.push_async_callback(opened.close)
    return clients, guards


def _inner_indexes(clients: Mapping[str, UpstreamClient], manifests: ManifestFetcher) -> Fetch:
    async def fetch(name: RepositoryName, digest: Digest) -> tuple[bytes, str]:
        answer = await manifests.get(clients[name.registry], name, Reference(digest=digest))
        return answer.raw, answer.media_type

    return fetch


def _recorder(pulls: PullQueue, config: Config, database: Database, statuses: Statuses, intake: Intake) -> Recorder:
    queue = Queue(database, policy=wiring.publish_retry(config))
    return Recorder(pulls, queue=queue, statuses=statuses, intake=intake, usage=Usage(database))


def _probes(store: BlobStore, blobs: BlobFetcher, statuses: Statuses) -> dict[str, HealthProbe]:
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

    return {"store": store_probe, "state": state_probe}


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
    response.headers[REQUEST_ID_HEADER] = current_exchange(request).request_id


def _metrics_handler(metrics: Metrics) -> Handler:
    async def handle(request: web.Request) -> web.Response:
        current_exchange(request).kind = RequestKind.STATUS
        body, content_type = metrics.render()
        return web.Response(body=body, headers={"Content-Type": content_type})

    return handle
