"""The CVMFS repositories that this publisher fills: opened or made at the start, leased, kept valid."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog

from mirror.data import DataDirectory
from mirror.errors import NotFound
from mirror.jobs.repositories import RepositoryFacts
from publisher.catalog_memory import CatalogMemory
from publisher.creation import create_repository
from publisher.cvmfs.manifest import MANIFEST_NAME, RepositoryManifest
from publisher.objects.compress import compressor
from publisher.objects.known import KnownContent
from publisher.objects.pipeline import Pipeline, PipelineLimits
from publisher.repository import Repository
from publisher.spool import RepositorySettings
from publisher.storage import Storage

log = structlog.get_logger()


@dataclass(slots=True)
class Stratum0:
    """One repository with the pipeline that stores content for it."""

    repository: Repository
    pipeline: Pipeline
    url: str
    """Where clients find it: a path below this mirror, or a whole URL elsewhere."""
    stored_bytes: int
    """Of all objects, when they were measured last."""

    @property
    def fqrn(self) -> str:
        """Fully qualified repository name."""
        return self.repository.fqrn

    def measure(self) -> None:
        """Look how much the repository stores: a walk over its directories. Blocking. Raises Unavailable."""
        self.stored_bytes = _stored_bytes(self.repository)

    def facts(self, manifest: RepositoryManifest) -> RepositoryFacts:
        """What the state database is told of the repository in this revision."""
        return RepositoryFacts(
            fqrn=self.fqrn,
            revision=manifest.revision,
            root_hash=str(manifest.root),
            public_key=self.repository.keys.public_pem.decode("ascii"),
            url_path=self.url,
            stored_bytes=self.stored_bytes,
        )


def open_or_create(
    fqrn: str,
    storage: Storage,
    data: DataDirectory,
    settings: RepositorySettings,
    limits: PipelineLimits,
    *,
    whitelist_lifetime: timedelta,
    memory: CatalogMemory | None = None,
) -> Stratum0:
    """A repository, made with keys and an empty first revision if there is none. Blocking.

    data: has its keys and its spool directory. settings: of a new one; an existing one keeps its own.
    memory: for catalogs between publications.
    Raises InvalidInput, NotFound if keys of an existing one are missing, RepositoryDamaged, StorageFull, Unavailable.
    """
    store, keys, spool = storage.store, data.keys, data.spool / fqrn
    try:
        store.read_file(MANIFEST_NAME)
    except NotFound:
        repository = create_repository(fqrn, store, keys=keys, spool=spool, settings=settings, memory=memory)
    else:
        repository = Repository.open(fqrn, store, keys=keys, spool=spool, memory=memory)
    renew_whitelist(repository, whitelist_lifetime)
    if repository.keys.master is None:
        expires = repository.whitelist().expires.isoformat()
        log.warning("master_key_elsewhere", fqrn=fqrn, whitelist_expires=expires, mend="renew the whitelist there (resign)")
    return Stratum0(repository, open_pipeline(repository, limits), storage.url, _stored_bytes(repository))


def open_pipeline(repository: Repository, limits: PipelineLimits) -> Pipeline:
    """A way for content into the repository, with its own compressor and what it is known to have; to be closed."""
    name = repository.settings.compressor
    known = KnownContent(repository.spool.directory / f"known-{name}.sqlite", limits.known) if limits.known else None
    return Pipeline(repository.store, compressor(name), limits, known)


def _stored_bytes(repository: Repository) -> int:
    return sum(stored.size for stored in repository.store.objects())


def renew_whitelist(repository: Repository, lifetime: timedelta) -> bool:
    """Sign the whitelist again once a third of its life is over; whether that was done. Blocking.

    A master key that is elsewhere is warned about.
    """
    repository.refresh_keys()
    left = repository.whitelist().expires - datetime.fromtimestamp(repository.clock(), UTC)
    if left > lifetime * 2 / 3:
        return False
    if repository.keys.master is None:
        log.warning("whitelist_expires", fqrn=repository.fqrn, days_left=left.days, mend="renew it where the master key is")
        return False
    repository.renew_whitelist(lifetime)
    log.info("whitelist_renewed", fqrn=repository.fqrn)
    return True
