"""A new repository: its name, its keys and whitelist, and an empty first revision."""

from __future__ import annotations

import re
import stat
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import structlog

from mirror.errors import InvalidInput, NotFound
from publisher.catalog_memory import CatalogMemory
from publisher.cvmfs import codec
from publisher.cvmfs.builder import Stamp, store_metadata
from publisher.cvmfs.editor import CatalogEditor
from publisher.cvmfs.entry import Entry
from publisher.cvmfs.hash import ObjectKind
from publisher.cvmfs.manifest import MANIFEST_NAME
from publisher.cvmfs.path import NO_PARENT, ROOT, path_key
from publisher.cvmfs.reflog import Reflog
from publisher.cvmfs.row import entry_row, hardlinks
from publisher.errors import Conflict
from publisher.keys import KeyFiles, RepositoryKeys
from publisher.objects.store import ObjectStore
from publisher.repository import NewRoot, Repository
from publisher.spool import RepositorySettings, Spool

MASTER_REPLICA_NAME = ".cvmfs_master_replica"
"""Its presence permits replication."""

_FQRN = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+", re.ASCII)
_FQRN_MAX = 60

log = structlog.get_logger()


def check_fqrn(fqrn: str) -> str:
    """A fully qualified repository name as it is. Raises InvalidInput if it cannot be one."""
    if _FQRN.fullmatch(fqrn) is None or len(fqrn) > _FQRN_MAX:
        raise InvalidInput(
            f"'{fqrn}' cannot name a repository: two or more labels of letters, digits, - and _, joined by dots, {_FQRN_MAX} "
            "characters at most"
        )
    return fqrn


def create_repository(
    fqrn: str,
    store: ObjectStore,
    *,
    keys: Path,
    spool: Path,
    settings: RepositorySettings,
    whitelist: bytes | None = None,
    clock: Callable[[], float] = time.time,
    memory: CatalogMemory | None = None,
) -> Repository:
    """Make keys unless they are there, a whitelist, and an empty signed first revision.

    keys, spool: directories. whitelist: one that was signed elsewhere, where the master key is. clock: Unix seconds. A creation
    that was interrupted can be repeated. Raises InvalidInput for an impossible name, Conflict if the repository exists,
    PublishError if neither master key nor whitelist are here, RepositoryDamaged, Untrusted for a whitelist that does not fit,
    StorageFull, Unavailable.
    """
    check_fqrn(fqrn)
    now = datetime.fromtimestamp(clock(), UTC)
    place = Spool(spool)
    place.create()
    with place.lock(0):
        if _exists(store, MANIFEST_NAME):
            raise Conflict(f"the repository {fqrn} exists already")
        if not KeyFiles(keys, fqrn).any_present:
            RepositoryKeys.generate(fqrn, now).save(keys)
        if not codec.is_reference_zlib():
            log.warning(
                "zlib_differs", advice="replicas of this repository will be unreadable; use a Python with the original zlib"
            )
        place.pin(settings)
        loaded = RepositoryKeys.load(keys, fqrn)
        repository = Repository(fqrn, store, loaded, place, key_directory=keys, clock=clock, memory=memory)
        if whitelist is None:
            repository.renew_whitelist()
        else:
            repository.install_whitelist(whitelist)
        store.write_file(MASTER_REPLICA_NAME, b"This file permits stratum 1 servers to replicate the repository.\n")
        repository.publish(_empty_root(repository, Stamp(1, int(clock()))), Reflog.empty(fqrn))
    log.info("repository_created", fqrn=fqrn)
    return repository


def _empty_root(repository: Repository, stamp: Stamp) -> NewRoot:
    editor = CatalogEditor.new(ROOT)
    directory = Entry(mode=stat.S_IFDIR | 0o755, mtime=stamp.modified)
    editor.insert(entry_row(path_key(ROOT), NO_PARENT, ROOT, directory, links=hardlinks(2)))
    data = editor.finish(stamp, repository.settings.ttl)
    editor.close()
    return NewRoot(store_metadata(repository.store, data, ObjectKind.CATALOG), len(data), stamp, None)


def _exists(store: ObjectStore, name: str) -> bool:
    try:
        store.read_file(name)
    except NotFound:
        return False
    return True
