"""Wires the publisher together and runs it: state, anonymous clients, repositories, worker, housekeeping."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import timedelta
from importlib.metadata import version

import structlog

from mirror.background import running
from mirror.config import wiring
from mirror.config.models import Config
from mirror.data import DataDirectory
from mirror.fetch.blobs import BlobFetcher
from mirror.jobs.queue import Queue
from mirror.jobs.repositories import Repositories
from mirror.state.engine import Database
from mirror.state.migrate import migrate
from mirror.store.blobs import BlobStore
from mirror.upstream.auth import TokenCache
from mirror.upstream.client import UpstreamClient
from mirror.upstream.session import open_session
from publisher.alone import only_publisher
from publisher.announce import Announcer
from publisher.catalog_memory import CatalogMemory
from publisher.cvmfs.cuts import CutLimits, GrowthLimits
from publisher.layer_settings import layer_limits, layer_policy, permission_policy
from publisher.lease import RepositoryLease
from publisher.public import PublicContent
from publisher.spool import RepositorySettings
from publisher.storage import open_storage, pipeline_limits
from publisher.stratum0 import Stratum0, open_or_create, renew_whitelist
from publisher.unpack import Unpacker, UnpackLimits
from publisher.worker import Target, Worker, WorkerSettings

log = structlog.get_logger()

USER_AGENT = f"debark-publisher/{version('debark')}"

_HOUSEKEEPING_SECONDS = 3600.0


async def run(config: Config, stop: asyncio.Event) -> None:
    """Publish until `stop` is set.

    Raises Conflict if another publisher works on the same data directory; InvalidInput, ConfigError, NotFound,
    RepositoryDamaged, StorageFull, Unavailable if it cannot start.
    """
    data = DataDirectory(config.data)
    async with AsyncExitStack() as stack:
        stack.enter_context(only_publisher(data))
        database = Database(wiring.database(config))
        stack.push_async_callback(database.close)
        await migrate(database)
        repositories = Repositories(database)
        content = await _open_content(config, stack)
        owner = f"{socket.gethostname()}:{data.root}"
        targets: dict[str, Target] = {}
        limits = UnpackLimits(layer_limits(config.publish), images=config.publish.images)
        for fqrn in config.publish.repositories:
            stratum0 = await asyncio.to_thread(_open, fqrn, config, data)
            stack.callback(stratum0.pipeline.close)
            await repositories.put(stratum0.facts(await asyncio.to_thread(stratum0.repository.manifest)))
            unpacker = Unpacker(content, stratum0, limits, layer_policy(config.publish), permission_policy(config.publish))
            stack.push_async_callback(unpacker.close)
            targets[fqrn] = Target(stratum0, unpacker, RepositoryLease(repositories, fqrn, owner, config.publish.lease))
        await stack.enter_async_context(running("housekeeping", lambda: _keep_house(config, repositories, targets)))
        settings = WorkerSettings(
            owner=owner,
            images=config.publish.images,
            batch=config.publish.batch,
            lease=config.publish.lease,
            cuts=CutLimits(most=config.publish.catalog_entries),
            growth=GrowthLimits(entries=config.publish.growing_catalog_entries),
            podman_store=config.publish.podman_store,
        )
        queue = Queue(database, policy=wiring.publish_retry(config))
        stores = {fqrn: target.stratum0.repository.store for fqrn, target in targets.items()}
        announcer = Announcer(config.publish.announce, stores)
        await stack.enter_async_context(running("announcements", announcer.run))
        await Worker(queue, repositories, content, targets, settings, on_revision=announcer.announce).run(stop)


async def _open_content(config: Config, stack: AsyncExitStack) -> PublicContent:
    """Content through the mirror's own store, by clients that have no credentials."""
    known = wiring.upstreams(config, anonymous=True)
    session = open_session(known.values(), user_agent=USER_AGENT, max_connections=config.fetch.max_connections)
    stack.push_async_callback(session.close)
    tokens = TokenCache()
    clients = {
        name: UpstreamClient(
            session, upstream, anonymous=True, tokens=tokens, retry=wiring.upstream_retry(config.upstreams[name])
        )
        for name, upstream in known.items()
    }
    for client in clients.values():
        stack.push_async_callback(client.close)
    store = BlobStore(config.data, config.store.min_free)
    fetcher = BlobFetcher(store, wiring.fetch_limits(config))
    stack.push_async_callback(fetcher.close)
    return PublicContent(store, fetcher, clients, config.fetch.max_manifest)


def _open(fqrn: str, config: Config, data: DataDirectory) -> Stratum0:
    publish = config.publish
    storage = open_storage(fqrn, config, data)
    settings = RepositorySettings(publish.compressor, publish.ttl, publish.whiteouts)
    lifetime = timedelta(seconds=publish.whitelist_lifetime)
    limits = pipeline_limits(publish, storage)
    memory = CatalogMemory(publish.catalog_memory)
    return open_or_create(fqrn, storage, data, settings, limits, whitelist_lifetime=lifetime, memory=memory)


async def _keep_house(config: Config, repositories: Repositories, targets: Mapping[str, Target]) -> None:
    """Now and then: whitelists signed again ahead of their end, repositories measured."""
    while True:
        await asyncio.sleep(_HOUSEKEEPING_SECONDS)
        for target in targets.values():
            stratum0 = target.stratum0
            lifetime = timedelta(seconds=config.publish.whitelist_lifetime)
            await asyncio.to_thread(renew_whitelist, stratum0.repository, lifetime)
            await asyncio.to_thread(stratum0.measure)
            await repositories.put(stratum0.facts(await asyncio.to_thread(stratum0.repository.manifest)))
