"""One replication: from what the source shows to the same revision in a store of one's own.

Everything is in the order that leaves a valid replica wherever it stops (repository format, section 9): history, objects,
catalogs bottom-up, certificate, meta-info, the replica's own reference log, whitelist, manifest.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

import structlog

from mirror.errors import MirrorError
from publisher.cvmfs import codec
from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.cvmfs.history import History
from publisher.cvmfs.manifest import RepositoryManifest
from publisher.cvmfs.reflog import Reflog
from publisher.errors import RepositoryDamaged
from publisher.objects.http_client import RepositoryClient, open_client
from publisher.replicate.fetch import ObjectFetcher, stored_limit
from publisher.replicate.model import Extent, OnStep, Replicated, Replication, Step, ignore_step
from publisher.replicate.own import OwnFiles, Shown
from publisher.replicate.recovery import FlushJournal
from publisher.replicate.source import read_metadata, read_shown
from publisher.replicate.walk import CatalogWalk, Root
from publisher.replicate.workbench import Threads, Workbench
from publisher.spool import Spool

log = structlog.get_logger()


async def replicate(replication: Replication, *, allow_older: bool = False, on_step: OnStep = ignore_step) -> Replicated:
    """Bring a replica to the revision that its source shows; returns when clients of the replica see it.

    allow_older: take a revision older than the replica's, too. on_step is called in the event loop and in threads.

    What was stored before a failure or a kill is not fetched again. Raises Denied if the source does not permit replication,
    Untrusted, RepositoryDamaged for what is missing or wrong at the source, Conflict if another process writes the replica,
    InvalidInput for an impossible URL, NotFound if there is no repository, StorageFull, Unavailable.
    """
    async with open_client(replication.source_url, replication.limits.http) as client:
        return await Replicator(client, replication, allow_older=allow_older, on_step=on_step).run()


@dataclass(frozen=True, slots=True)
class _Goal:
    """What is to be in the store in the end."""

    shown: Shown
    certificate: bytes
    """Stored form, as is the history."""
    history: bytes | None
    roots: list[Root]
    """The current one first."""

    @property
    def manifest(self) -> RepositoryManifest:
        return self.shown.manifest


class Replicator:
    """Replicates one repository, as often as it is told."""

    def __init__(
        self,
        client: RepositoryClient,
        replication: Replication,
        *,
        allow_older: bool = False,
        on_step: OnStep = ignore_step,
    ) -> None:
        """As `replicate`; client: of the source."""
        store, clock = replication.store, replication.clock
        self._client = client
        self._task = replication
        self._limits = replication.limits
        self._spool = Spool(replication.spool)
        self._own = OwnFiles(replication.fqrn, store, self._spool, clock, on_step)
        self._journal = FlushJournal(replication.spool, store, clock)
        self._allow_older = allow_older
        self._on_step = on_step

    async def run(self) -> Replicated:
        """One replication. Raises as `replicate`."""
        task, began = self._task, time.monotonic()
        self._spool.create()
        with self._spool.lock(0):
            self._on_step(Step.BEGIN)
            threads = Threads(self._limits.threads)
            bench = Workbench(task.store, self._own.scratch, self._limits, threads, task.on_progress, self._on_step)
            try:
                before = await threads.run(partial(self._own.shown, task.master_key))
                goal = await self._goal(before)
                reflog = await threads.run(self._own.reflog)
                skipped: list[ContentHash] = []
                if not await threads.run(partial(self._is_reached, goal, before, reflog)):
                    skipped = await self._reach(bench, goal, before, reflog)
                await threads.run(partial(self._own.show, goal.shown, before))
                await threads.run(self._journal.end)
                self._on_step(Step.END)
            finally:
                bench.close()
        changed = before is None or before.manifest.root != goal.manifest.root
        result = Replicated(
            goal.manifest, goal.shown.manifest_file, changed, bench.progress, tuple(skipped), time.monotonic() - began
        )
        _report(result)
        return result

    async def _goal(self, before: Shown | None) -> _Goal:
        task = self._task
        shown, certificate = await read_shown(
            self._client, task.fqrn, task.master_key, before, clock=task.clock, allow_older=self._allow_older
        )
        manifest = shown.manifest
        follow = self._limits.revisions if task.extent is Extent.SINCE and before is not None else 0
        roots = [Root(manifest.root, manifest.catalog_size or 0, follow=follow)]
        if manifest.history is None:
            return _Goal(shown, certificate, None, roots)
        limit = self._limits.history_bytes
        history = await read_metadata(self._client, manifest.history, ObjectKind.HISTORY, stored_limit(limit))
        try:
            tags = History(codec.decompress(history, limit), task.fqrn).tags().values()
        except RepositoryDamaged as error:
            raise RepositoryDamaged(f"the history {manifest.history} cannot be read: {error}") from error
        if task.extent is not Extent.CURRENT:
            sizes = {tag.root: tag.size for tag in tags if tag.root != manifest.root}
            roots += [Root(root, size, may_lack=manifest.garbage_collectable) for root, size in sizes.items()]
        return _Goal(shown, certificate, history, roots)

    def _is_reached(self, goal: _Goal, before: Shown | None, reflog: Reflog) -> bool:
        """Whether the replica shows this already, with everything that was asked for, and nothing died in between."""
        if before is None or before.manifest_file != goal.shown.manifest_file or self._journal.is_left:
            return False
        known = reflog.references()
        return all(root.content in known and self._task.store.contains(root.content, ObjectKind.CATALOG) for root in goal.roots)

    async def _reach(self, bench: Workbench, goal: _Goal, before: Shown | None, reflog: Reflog) -> list[ContentHash]:
        """Store all that the revision needs, the reference log included; the roots that the source has not."""
        run, put, manifest = bench.threads.run, bench.store.put, goal.manifest
        await run(self._own.begin)
        doubtful = await run(self._journal.begin)
        is_complete = False
        try:
            if goal.history is not None and manifest.history is not None:
                self._on_step(Step.HISTORY)
                await run(partial(put, manifest.history, ObjectKind.HISTORY, goal.history))
            walk = await self._walk(bench, goal, before, reflog.references().keys(), doubtful)
            self._on_step(Step.CERTIFICATE)
            await run(partial(put, manifest.certificate, ObjectKind.CERTIFICATE, goal.certificate))
            if manifest.metainfo is not None:
                limit = self._limits.http.file_bytes
                metainfo = await read_metadata(self._client, manifest.metainfo, ObjectKind.METAINFO, limit)
                await run(partial(put, manifest.metainfo, ObjectKind.METAINFO, metainfo))
            self._on_step(Step.FLUSH)
            await run(self._journal.flush)
            await run(partial(self._own.write_reflog, reflog, manifest, walk.taken))
            is_complete = True
        finally:
            await run(partial(self._own.end, is_complete=is_complete))
        return walk.skipped

    async def _walk(
        self,
        bench: Workbench,
        goal: _Goal,
        before: Shown | None,
        known_roots: Collection[ContentHash],
        doubtful: Collection[ContentHash],
    ) -> CatalogWalk:
        async with AsyncExitStack() as afterwards:
            try:
                async with asyncio.TaskGroup() as group:
                    fetcher = ObjectFetcher(self._client, bench, group)
                    afterwards.push_async_callback(fetcher.close)
                    walk = CatalogWalk(
                        bench,
                        fetcher,
                        group,
                        doubtful=doubtful,
                        known_roots=known_roots,
                        collectable=goal.manifest.garbage_collectable,
                        revision=before.manifest.revision if before else 0,
                    )
                    flusher = group.create_task(self._flush(bench))
                    await walk.run(goal.roots)
                    flusher.cancel()
                    fetcher.stop()
            except BaseExceptionGroup as failed:
                raise _first(failed) from None
        return walk

    async def _flush(self, bench: Workbench) -> None:
        while True:
            await asyncio.sleep(self._limits.flush_seconds)
            await bench.threads.run(self._journal.flush)


def _report(result: Replicated) -> None:
    manifest, done = result.manifest, result.progress
    log.info(
        "replicated",
        fqrn=manifest.fqrn,
        revision=manifest.revision,
        changed=result.changed,
        catalogs=done.catalogs,
        objects=done.objects,
        bytes=done.bytes,
        skipped_roots=len(result.skipped),
        seconds=round(result.seconds, 3),
    )


def _first(failed: BaseExceptionGroup[BaseException]) -> BaseException:
    """What is to be told of several failures at once: one that was expected, rather than any other."""
    failures: list[BaseException] = []
    pending: list[BaseException] = [failed]
    while pending:
        error = pending.pop()
        if isinstance(error, BaseExceptionGroup):
            pending += error.exceptions
        else:
            failures.append(error)
    return next((error for error in failures if isinstance(error, MirrorError)), failures[0])
