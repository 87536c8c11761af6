"""Taking over a repository that CernVM-FS's own server tools wrote, so that this publisher continues it.

Everything is looked at before anything is changed: signatures, the reference log with its checksum, features that nothing here
can continue. Then keys and checksum are copied; the storage stays where it is, or is copied too. The spool directory's settings
are written last: with them the repository is ours, without them a second try begins anew.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from mirror.data import DataDirectory
from mirror.errors import InvalidInput, NotFound, StorageFull, Unavailable
from publisher.cvmfs import trust
from publisher.cvmfs.catalog import Catalog
from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.cvmfs.manifest import MANIFEST_NAME, RepositoryManifest
from publisher.cvmfs.objects import ReadLimits, VerifiedObjects
from publisher.cvmfs.reflog import REFLOG_NAME, Reflog
from publisher.cvmfs.whitelist import WHITELIST_NAME
from publisher.errors import Conflict, PublishError, RepositoryDamaged
from publisher.keys import KeyFiles, RepositoryKeys
from publisher.objects.local import LocalObjectStore
from publisher.repository import Repository
from publisher.spool import OVERLAYFS, RepositorySettings, Spool

OnCopied = Callable[[int], None]
"""Told how many files were copied so far."""

_BUSY = ("in_transaction.lock", "is_publishing.lock", "in_transaction", "is_publishing")
_NO_LINKS = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a repository is now: directories, by default those of CernVM-FS."""

    storage: Path
    """Has `.cvmfspublished` and `data/`."""
    keys: Path
    spool: Path
    """Has `reflog.chksum`, if the repository was written on this machine."""
    checksum: ContentHash | None = None
    """Of the reference log, where it is known otherwise."""


def take_over(
    fqrn: str,
    origin: Origin,
    data: DataDirectory,
    compressor: str,
    whitelist_lifetime: timedelta,
    *,
    whiteouts: str = OVERLAYFS,
    copy: bool = False,
    on_copied: OnCopied = lambda _: None,
) -> Repository:
    """Continue a repository. Blocking; the tools that wrote it must not be used on it any more.

    compressor: of content to come; `zlib-6` stores as CernVM-FS does, so that content which is there already is not stored twice.
    whiteouts: the form of deletions in layers to come (`RepositorySettings`); those that are there are read in either.
    copy: leave the original as it is; objects are hard links where the file system can have them.
    Raises Conflict if there is such a repository here already or a transaction is open, NotFound for what is missing,
    PublishError for what cannot be continued, InvalidInput, RepositoryDamaged, Untrusted, StorageFull, Unavailable.
    """
    spool = Spool(data.spool / fqrn)
    if spool.is_set_up:
        raise Conflict(f"there is a repository {fqrn} in {data.root} already")
    if not (origin.storage / MANIFEST_NAME).is_file():
        raise NotFound(f"there is no repository at {origin.storage}: it has no {MANIFEST_NAME}; name its directory (--storage)")
    for name in _BUSY:
        if (origin.spool / name).exists():
            raise Conflict(f"{origin.spool / name} exists: end the transaction first (cvmfs_server publish or abort)")
    keys = RepositoryKeys.load(origin.keys, fqrn)
    manifest, checksum = _verified(fqrn, origin, keys)
    place = data.cvmfs / fqrn
    if copy:
        _copy(origin.storage, place, on_copied)
    else:
        _link(origin.storage, place)
    if not KeyFiles(data.keys, fqrn).any_present:
        keys.save(data.keys)
    elif RepositoryKeys.load(data.keys, fqrn).certificate != keys.certificate:
        raise Conflict(f"{data.keys} has other keys of {fqrn}; move them away if they are of no use")
    spool.create()
    with spool.lock(0):
        spool.adopt_reflog(checksum)
        spool.pin(RepositorySettings(compressor, min(max(manifest.ttl, 1), 86_400), whiteouts))
        repository = Repository.open(fqrn, LocalObjectStore(place), keys=data.keys, spool=spool.directory)
        _let_sign(repository, whitelist_lifetime)
        repository.recover()
    log.info("repository_taken_over", fqrn=fqrn, revision=manifest.revision)
    return repository


def _verified(fqrn: str, origin: Origin, keys: RepositoryKeys) -> tuple[RepositoryManifest, ContentHash]:
    """The manifest, and the checksum of the reference log."""
    source = _Directory(origin.storage)
    letter, manifest = trust.read_manifest(source.read_file(MANIFEST_NAME), fqrn)
    whitelist = trust.verified_whitelist(source.read_file(WHITELIST_NAME), fqrn, keys.master_public, None)
    objects = VerifiedObjects(source, ReadLimits())
    trust.verify_manifest(letter, objects.metadata(manifest.certificate, ObjectKind.CERTIFICATE), whitelist)
    if not trust.is_listed(keys.certificate, whitelist) and keys.master is None:
        raise PublishError(
            f"the whitelist of {fqrn} does not name {KeyFiles(origin.keys, fqrn).certificate}, and the master key is not there"
        )
    root = Catalog(objects.metadata(manifest.root, ObjectKind.CATALOG, manifest.catalog_size))
    if b"\nAyes\n" in b"\n" + letter.payload or "voms_authz" in root.properties:
        raise PublishError(f"{fqrn} is a repository with access control, which this publisher cannot continue")
    return manifest, _checksum(fqrn, origin, manifest, source.read_file(REFLOG_NAME))


def _checksum(fqrn: str, origin: Origin, manifest: RepositoryManifest, reflog: bytes) -> ContentHash:
    """The first of the known checksums that fits."""
    known = [origin.checksum, _written_checksum(origin.spool / "reflog.chksum"), manifest.reflog]
    for checksum in known:
        if checksum is not None and ContentHash.of(reflog, checksum.algorithm) == checksum:
            Reflog(reflog, fqrn)
            return checksum
    raise RepositoryDamaged(
        f"the reference log of {fqrn} fits neither {origin.spool / 'reflog.chksum'} nor the manifest: give the checksum "
        "(--reflog-checksum), or let cvmfs_server repair it before (cvmfs_server check -r)"
    )


def _written_checksum(path: Path) -> ContentHash | None:
    try:
        return ContentHash.parse(path.read_text("ascii").strip())
    except (OSError, UnicodeDecodeError, InvalidInput):
        return None


def _let_sign(repository: Repository, lifetime: timedelta) -> None:
    """A whitelist that names the certificate and is good for a while, if it can be signed here."""
    whitelist = repository.whitelist()
    left = whitelist.expires - datetime.fromtimestamp(repository.clock(), UTC)
    if repository.keys.master is not None and (
        left < lifetime / 3 or not trust.is_listed(repository.keys.certificate, whitelist)
    ):
        repository.renew_whitelist(lifetime)


def _link(storage: Path, place: Path) -> None:
    """Let the place in the data directory lead to the storage."""
    storage = storage.resolve()
    if not os.access(storage / "data", os.W_OK | os.X_OK) or not os.access(storage, os.W_OK | os.X_OK):
        raise Unavailable(f"this user may not write {storage}; give it the directory, or take a copy (--copy)")
    if place.resolve() == storage:
        return
    try:
        place.symlink_to(storage)
    except FileExistsError as error:
        raise Conflict(f"{place} exists; move it away") from error


def _copy(storage: Path, place: Path, on_copied: OnCopied) -> None:
    """Objects first, the manifest last."""
    LocalObjectStore(place)
    try:
        count = 0
        for prefix in sorted(path for path in (storage / "data").iterdir() if len(path.name) == 2):
            for item in prefix.iterdir():
                _link_or_copy(item, place / "data" / prefix.name / item.name)
                count += 1
                on_copied(count)
        named = [path for path in storage.iterdir() if path.name.startswith(".cvmfs") and path.is_file()]
        for path in sorted(named, key=lambda path: path.name == MANIFEST_NAME):
            shutil.copy2(path, place / path.name)
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull(f"{storage} cannot be copied to {place}: no space left there") from error
        raise Unavailable(f"{storage} cannot be copied to {place}: {error}") from error


def _link_or_copy(item: Path, target: Path) -> None:
    if target.exists():
        return
    try:
        target.hardlink_to(item)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        part = target.with_name(f".{target.name}.part")
        shutil.copy2(item, part)
        part.replace(target)


class _Directory:
    """A storage that is only read: unlike a store's, its directories are not made."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def get(self, content: ContentHash, kind: ObjectKind) -> bytes:
        return self.read_file(content.object_path(kind))

    def pieces(self, content: ContentHash, kind: ObjectKind) -> Iterator[bytes]:
        yield self.get(content, kind)

    def read_file(self, name: str) -> bytes:
        try:
            return (self._root / name).read_bytes()
        except FileNotFoundError as error:
            raise NotFound(f"{self._root / name} does not exist") from error
        except OSError as error:
            raise Unavailable(f"{self._root / name} cannot be read: {error.strerror}") from error
