"""Wires the publisher together and runs it: state, anonymous clients, repositories, worker, housekeeping."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import structlog

from mirror.background import running
from mirror.config import wiring
from mirror.config.models import Config
from mirror.data import DataDirectory
from mirror.errors import Unavailable
from mirror.jobs.amounts import Amounts
from mirror.jobs.blocks import Blocks
from mirror.jobs.conditions import Conditions
from mirror.jobs.queue import Queue
from mirror.jobs.removals import Removals
from mirror.jobs.repositories import Repositories
from mirror.jobs.waiting import WaitingReasons
from mirror.state.engine import Database
from mirror.state.migrate import migrate
from mirror.store.blobs import BlobStore
from publisher.admission import Admission
from publisher.alone import only_publisher
from publisher.announce import Announcer
from publisher.audit import FILE_NAME, Act, AuditLog
from publisher.catalog_memory import CatalogMemory
from publisher.content import open_content
from publisher.cvmfs.cuts import CutLimits, GrowthLimits
from publisher.disk import DiskGate
from publisher.layer_settings import layer_limits, layer_policy, permission_policy
from publisher.lease import RepositoryLease
from publisher.lookout import Lookout
from publisher.owner import owner_name
from publisher.packed_layers import PackedLayers
from publisher.policy.watermark import Watermark
from publisher.policy_file import PolicyFile
from publisher.remover import Remover
from publisher.revisions import RevisionSettings, Target
from publisher.spool import RepositorySettings, Spool
from publisher.storage import open_storage, pipeline_limits
from publisher.stratum0 import Stratum0, open_or_create, renew_whitelist
from publisher.unpack import Unpacker, UnpackLimits
from publisher.worker import Guards, Worker, WorkerSettings

log = structlog.get_logger()

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
        owner = owner_name(data)
        policy = PolicyFile(Path(config.publish.policy_file) if config.publish.policy_file else None)
        audit = AuditLog(data.logs / FILE_NAME)
        if policy.digest is not None:
            audit.record(Act.POLICY, sha256=policy.digest)
        store = BlobStore(config.data, config.store.min_free)
        content = await open_content(config, store, stack, policy.is_vouched_for)
        targets: dict[str, Target] = {}
        limits = UnpackLimits(layer_limits(config.publish), images=config.publish.images)
        for fqrn in config.publish.repositories:
            stratum0 = await asyncio.to_thread(_open, fqrn, config, data, audit)
            stack.callback(stratum0.pipeline.close)
            await repositories.put(stratum0.facts(await asyncio.to_thread(stratum0.repository.manifest)))
            packed = await asyncio.to_thread(_packed_layers, config, stratum0)
            policies = layer_policy(config.publish), permission_policy(config.publish)
            unpacker = Unpacker(content, stratum0, limits, *policies, packed=packed)
            stack.push_async_callback(unpacker.close)
            targets[fqrn] = Target(stratum0, unpacker, RepositoryLease(repositories, fqrn, owner, config.publish.lease))
        await stack.enter_async_context(running("housekeeping", lambda: _keep_house(config, repositories, targets, audit)))
        revisions = RevisionSettings(
            batch=config.publish.batch,
            cuts=CutLimits(most=config.publish.catalog_entries),
            growth=GrowthLimits(entries=config.publish.growing_catalog_entries),
            podman_store=config.publish.podman_store,
        )
        settings = WorkerSettings(owner, images=config.publish.images, lease=config.publish.lease, revisions=revisions)
        queue = Queue(database, policy=wiring.publish_retry(config))
        stores = {fqrn: target.stratum0.repository.store for fqrn, target in targets.items()}
        announcer = Announcer(config.publish.announce, stores)
        await stack.enter_async_context(running("announcements", announcer.run))
        disk = DiskGate(_places(config, data), Watermark(config.publish.min_free, config.publish.resume_free))
        lookout = Lookout(policy, disk, audit, publisher=owner, conditions=Conditions(database), waiting=WaitingReasons(database))
        await lookout.look()
        await stack.enter_async_context(running("lookout", lookout.run))
        admission = Admission(policy, Blocks(database), Amounts(database), queue, owner=owner)
        guards = Guards(admission, disk, audit)
        worker = Worker(queue, repositories, content, targets, settings, guards=guards, on_revision=announcer.announce)
        remover = Remover(
            Removals(database),
            repositories,
            store,
            audit,
            targets,
            cuts=revisions.cuts,
            growth=revisions.growth,
            max_manifest_bytes=config.fetch.max_manifest,
            is_busy=worker.is_busy,
            on_revision=announcer.announce,
        )
        await stack.enter_async_context(running("removals", remover.run))
        await worker.run(stop)


def _packed_layers(config: Config, stratum0: Stratum0) -> PackedLayers | None:
    """What keeps the blobs of layers, if they are to be kept."""
    if not config.publish.packed_layers:
        return None
    repository = stratum0.repository
    return PackedLayers(repository.store, repository.spool.directory, config.publish.packed_largest)


def _places(config: Config, data: DataDirectory) -> list[Path]:
    """Directories on the disks that publishing fills."""
    publish = config.publish
    return [data.spool, *(data.cvmfs / fqrn for fqrn in publish.repositories if not publish.storage_of(fqrn))]


def _open(fqrn: str, config: Config, data: DataDirectory, audit: AuditLog) -> Stratum0:
    publish = config.publish
    is_new = not Spool(data.spool / fqrn).is_set_up
    storage = open_storage(fqrn, config, data)
    settings = RepositorySettings(publish.compressor, publish.ttl, publish.whiteouts)
    lifetime = timedelta(seconds=publish.whitelist_lifetime)
    limits = pipeline_limits(publish, storage)
    memory = CatalogMemory(publish.catalog_memory)
    stratum0 = open_or_create(fqrn, storage, data, settings, limits, whitelist_lifetime=lifetime, memory=memory)
    if is_new:
        audit.record(Act.MADE, fqrn=fqrn, revision=1)
    return stratum0


async def _keep_house(config: Config, repositories: Repositories, targets: Mapping[str, Target], audit: AuditLog) -> None:
    """Now and then: whitelists signed again ahead of their end, repositories measured."""
    while True:
        await asyncio.sleep(_HOUSEKEEPING_SECONDS)
        for target in targets.values():
            stratum0 = target.stratum0
            lifetime = timedelta(seconds=config.publish.whitelist_lifetime)
            if await asyncio.to_thread(renew_whitelist, stratum0.repository, lifetime):
                with contextlib.suppress(Unavailable):  # it is logged, and shown in /healthz
                    await asyncio.to_thread(audit.record, Act.SIGNED, fqrn=stratum0.fqrn, what="whitelist")
            await asyncio.to_thread(stratum0.measure)
            await repositories.put(stratum0.facts(await asyncio.to_thread(stratum0.repository.manifest)))
