"""Carries out requests to remove images: as the repository's writer, one revision for all that wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import structlog

from mirror.errors import InvalidInput, MirrorError, NotFound
from mirror.jobs.removals import RemovalRequest, Removals
from mirror.jobs.repositories import Repositories
from mirror.oci.digest import Digest
from mirror.oci.manifest import ImageManifest, declared_media_type, parse_manifest
from mirror.store.blobs import BlobStore
from publisher.audit import Act, AuditLog
from publisher.cvmfs.cuts import CutLimits, GrowthLimits
from publisher.images.remove import GoingImage, Gone, manifest_in, remove_images
from publisher.lease import RepositoryLease
from publisher.repository import Revision, Step
from publisher.stratum0 import Stratum0
from publisher.threads import to_the_end
from publisher.transaction import Transaction

log = structlog.get_logger()

_LOOK_SECONDS = 1.0
_AGAIN_SECONDS = 30.0
_AT_ONCE = 100


class Writable(Protocol):
    """A repository that this process may write."""

    @property
    def stratum0(self) -> Stratum0:
        """The repository."""

    @property
    def lease(self) -> RepositoryLease:
        """Whether this process is its writer now."""

    @property
    def turn(self) -> asyncio.Lock:
        """Held by whoever commits."""


class Remover:
    """Removes images from the repositories of one publisher."""

    def __init__(
        self,
        removals: Removals,
        repositories: Repositories,
        manifests: BlobStore,
        audit: AuditLog,
        targets: Mapping[str, Writable],
        *,
        cuts: CutLimits | None = None,
        growth: GrowthLimits | None = None,
        max_manifest_bytes: int = 4 << 20,
        is_busy: Callable[[Digest], bool] = lambda _: False,
        on_revision: Callable[[str], None] = lambda _: None,
    ) -> None:
        """manifests: the mirror's store. targets: by fqrn. is_busy: whether an image is being published, and has to wait.

        on_revision: told the fqrn of each repository in which a revision was published.
        """
        self._removals = removals
        self._repositories = repositories
        self._manifests = manifests
        self._audit = audit
        self._targets = targets
        self._cuts = cuts
        self._growth = growth
        self._max_manifest_bytes = max_manifest_bytes
        self._is_busy = is_busy
        self._on_revision = on_revision

    async def run(self) -> None:
        """Carry out what is asked for until cancelled."""
        while True:
            pause = _LOOK_SECONDS
            try:
                await self.carry_out()
            except MirrorError as error:
                log.warning("images_not_removed", reason=str(error), again_in=_AGAIN_SECONDS)
                pause = _AGAIN_SECONDS
            await asyncio.sleep(pause)

    async def carry_out(self) -> None:
        """Do what can be done now. Raises what stands in the way: Unavailable, StorageFull, RepositoryDamaged, Conflict."""
        held = [fqrn for fqrn, target in self._targets.items() if target.lease.is_held]
        waiting = [request for request in await self._removals.waiting(held) if not self._is_busy(request.manifest)]
        for fqrn in held:
            requests = [request for request in waiting if request.fqrn == fqrn][:_AT_ONCE]
            if requests:
                await self._carry_out(self._targets[fqrn], requests)

    async def _carry_out(self, target: Writable, requests: Sequence[RemovalRequest]) -> None:
        fqrn = target.stratum0.fqrn
        async with target.turn:
            revision, gone = await to_the_end(lambda: self._remove(target, [request.manifest for request in requests]))
            self._on_revision(fqrn)
            await self._repositories.put(target.stratum0.facts(revision.manifest))
        for request in requests:
            names = gone.names_of(request.manifest)
            if not (gone.names or gone.roots or gone.layers):
                continue  # It was not here.
            facts = {"fqrn": fqrn, "revision": revision.revision, "manifest": str(request.manifest), "names": names}
            await asyncio.to_thread(self._audit.record, Act.REMOVED, by=request.by, reason=request.reason, **facts)
            log.info("image_removed", **facts, layers=len(gone.layers), reason=request.reason)
        await self._removals.done(fqrn, [request.manifest for request in requests], gone.layers)

    def _remove(self, target: Writable, manifests: Sequence[Digest]) -> tuple[Revision, Gone]:
        def on_step(step: Step) -> None:
            if step is not Step.PUBLISHED:
                target.lease.check()

        stratum0 = target.stratum0
        with Transaction(stratum0.repository, limits=self._cuts, growth=self._growth) as transaction:
            found = (self._going(transaction, digest) for digest in manifests)
            gone = remove_images(transaction, stratum0.pipeline, [image for image in found if image is not None], time.time())
            return transaction.commit(on_step), gone

    def _going(self, transaction: Transaction, digest: Digest) -> GoingImage | None:
        try:
            raw = self._manifests.read(digest, self._max_manifest_bytes)
        except (NotFound, InvalidInput):
            try:
                raw = manifest_in(transaction, digest)
            except NotFound:
                # Nothing leads to it by name here, and nobody can tell any more what it was made of.
                log.warning("removed_image_unknown", manifest=str(digest))
                return None
        manifest = parse_manifest(raw, declared_media_type(raw) or "")
        return GoingImage(digest, manifest) if isinstance(manifest, ImageManifest) else None
