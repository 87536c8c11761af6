"""A repository that this machine may write: storage, keys, spool directory and settings in one hand.

Everything that changes what clients see goes through `publish`, in the one order that leaves a valid repository wherever it stops
(repository format, section 8.1); `transaction.Transaction` prepares what it publishes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

import structlog
from cryptography import x509

from mirror.errors import InvalidInput, NotFound
from publisher.catalog_memory import CatalogMemory
from publisher.cvmfs import trust
from publisher.cvmfs.builder import Stamp, store_metadata
from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.cvmfs.letter import Letter
from publisher.cvmfs.manifest import MANIFEST_NAME, RepositoryManifest
from publisher.cvmfs.objects import ReadLimits, VerifiedObjects
from publisher.cvmfs.reader import RepositoryReader
from publisher.cvmfs.reflog import REFLOG_NAME, ReferenceType, Reflog
from publisher.cvmfs.snapshot import Snapshot
from publisher.cvmfs.whitelist import WHITELIST_NAME, Whitelist, fingerprint_text
from publisher.errors import Conflict, Untrusted
from publisher.keys import WHITELIST_LIFETIME, KeyFiles, RepositoryKeys
from publisher.objects.store import ObjectStore
from publisher.spool import Spool

log = structlog.get_logger()


class Step(StrEnum):
    """Points of a commit, each announced just before it is taken; a process may die at any of them."""

    CATALOGS = "catalogs"
    HISTORY = "history"
    FLUSH = "flush"
    ANNOUNCE_REFLOG = "announce_reflog"
    REFLOG = "reflog"
    REFLOG_CHECKSUM = "reflog_checksum"
    MANIFEST = "manifest"
    PUBLISHED = "published"
    """Clients can see the revision; announced last."""


OnStep = Callable[[Step], None]


@dataclass(frozen=True, slots=True)
class Revision:
    """What a commit published."""

    revision: int
    root_hash: ContentHash
    manifest: RepositoryManifest


@dataclass(frozen=True, slots=True)
class NewRoot:
    """A root catalog with everything below it in the store, ready to be published; size: its uncompressed bytes."""

    content: ContentHash
    size: int
    stamp: Stamp
    history: ContentHash | None


def ignore_step(step: Step) -> None:
    """For callers that need no progress."""


class Repository:
    """One repository with the right to write it. Blocking; one writer at a time, by the spool's lock."""

    def __init__(
        self,
        fqrn: str,
        store: ObjectStore,
        keys: RepositoryKeys,
        spool: Spool,
        *,
        key_directory: Path | None = None,
        clock: Callable[[], float] = time.time,
        limits: ReadLimits | None = None,
        memory: CatalogMemory | None = None,
    ) -> None:
        """key_directory: where the keys are from, to be read again when they were exchanged there. clock: Unix seconds.

        memory: for catalogs between transactions. Raises NotFound, RepositoryDamaged if the spool has no settings.
        """
        self.fqrn = fqrn
        self.store = store
        self.keys = keys
        self._key_files = KeyFiles(key_directory, fqrn) if key_directory is not None else None
        self._key_directory = key_directory
        self._key_state = self._key_files.state() if self._key_files is not None else ()
        self.spool = spool
        self.clock = clock
        self.settings = spool.settings()
        self._limits = limits or ReadLimits()
        self.objects = VerifiedObjects(store, self._limits)
        self.memory = memory or CatalogMemory()

    @classmethod
    def open(
        cls,
        fqrn: str,
        store: ObjectStore,
        *,
        keys: Path,
        spool: Path,
        clock: Callable[[], float] = time.time,
        limits: ReadLimits | None = None,
        memory: CatalogMemory | None = None,
    ) -> Repository:
        """Open an existing repository. Raises NotFound if storage, keys or spool are missing, RepositoryDamaged, InvalidInput."""
        store.read_file(MANIFEST_NAME)
        loaded = RepositoryKeys.load(keys, fqrn)
        return cls(fqrn, store, loaded, Spool(spool), key_directory=keys, clock=clock, limits=limits, memory=memory)

    def reader(self) -> RepositoryReader:
        """A client's view of the current revision. Raises RepositoryDamaged, Untrusted."""
        return RepositoryReader(self.store, self.fqrn, self.keys.master_public, clock=self.clock, limits=self._limits)

    def snapshot(self, root: ContentHash, size: int) -> Snapshot:
        """A revision by hash and uncompressed bytes of its root catalog, signed or not. Raises RepositoryDamaged, Unavailable."""
        return Snapshot(self.objects, root, size, self._limits.cached_catalogs)

    def manifest(self) -> RepositoryManifest:
        """The current manifest, verified, but for the whitelist's expiry. Raises RepositoryDamaged, Untrusted."""
        return self._verified()[0]

    def _verified(self) -> tuple[RepositoryManifest, x509.Certificate, Whitelist]:
        """The manifest, the certificate that signed it, and the whitelist."""
        letter, manifest = trust.read_manifest(self.store.read_file(MANIFEST_NAME), self.fqrn)
        whitelist = self.whitelist()
        certificate = self.objects.metadata(manifest.certificate, ObjectKind.CERTIFICATE)
        return manifest, trust.verify_manifest(letter, certificate, whitelist), whitelist

    def whitelist(self) -> Whitelist:
        """The current whitelist, whether or not it expired. Raises RepositoryDamaged, Untrusted."""
        return trust.verified_whitelist(self.store.read_file(WHITELIST_NAME), self.fqrn, self.keys.master_public, None)

    def renew_whitelist(self, lifetime: timedelta = WHITELIST_LIFETIME, also: tuple[ContentHash, ...] = ()) -> None:
        """Sign a new whitelist for this repository's certificate and, if that is another one, the one that signed the manifest.

        also: fingerprints of further certificates. Raises PublishError if the master key is not here.
        """
        self.refresh_keys()
        now = datetime.fromtimestamp(self.clock(), UTC)
        in_use = [trust.fingerprint(certificate) for certificate in self.certificates()]
        self.store.write_file(WHITELIST_NAME, self.keys.sign_whitelist(now, lifetime, (*also, *in_use)))

    def install_whitelist(self, data: bytes) -> Whitelist:
        """Put a whitelist in place that was signed elsewhere.

        Raises Untrusted, RepositoryDamaged if the master key did not sign it for this repository or it has expired, InvalidInput
        if it lacks a certificate that is in use.
        """
        self.refresh_keys()
        now = datetime.fromtimestamp(self.clock(), UTC)
        whitelist = trust.verified_whitelist(data, self.fqrn, self.keys.master_public, now)
        for certificate in self.certificates():
            if not trust.is_listed(certificate, whitelist):
                shown = fingerprint_text(trust.fingerprint(certificate))
                raise InvalidInput(
                    f"the whitelist lacks the certificate {shown}, which signs {self.fqrn}; sign one that names it"
                )
        self.store.write_file(WHITELIST_NAME, data)
        return whitelist

    def certificates(self) -> list[x509.Certificate]:
        """The own one; and the one that signed the manifest, if that is another one. Raises RepositoryDamaged, Untrusted."""
        own = self.keys.certificate
        try:
            _, manifest = trust.read_manifest(self.store.read_file(MANIFEST_NAME), self.fqrn)
        except NotFound:
            return [own]
        signed = trust.read_certificate(self.objects.metadata(manifest.certificate, ObjectKind.CERTIFICATE), self.fqrn)
        return [own] if signed == own else [own, signed]

    def refresh_keys(self) -> None:
        """Read the keys again if somebody exchanged them. Raises NotFound, InvalidInput."""
        if self._key_files is None or self._key_directory is None:
            return
        state = self._key_files.state()
        if state != self._key_state:
            self.keys = RepositoryKeys.load(self._key_directory, self.fqrn)
            self._key_state = self._key_files.state()
            log.info("keys_read_again", fqrn=self.fqrn)

    def reflog(self) -> Reflog:
        """The reference log, verified by the spool's checksum. Raises RepositoryDamaged."""
        data = self.store.read_file(REFLOG_NAME)
        self.spool.reflog_checksum(data)
        return Reflog(data, self.fqrn)

    def recover(self) -> RepositoryManifest:
        """Put straight what a publisher that died left behind, and return the manifest; the caller holds the lock.

        Either the reference log is ahead of the manifest, which is signed again with its checksum. Or the repository key was
        exchanged, and the manifest is still signed by the old one: then the revision is published once more, because a garbage
        collection must find the new certificate in the reference log.
        Raises RepositoryDamaged, Untrusted.
        """
        self.refresh_keys()
        manifest, signer, whitelist = self._verified()
        checksum = self.spool.settle(self.store.read_file(REFLOG_NAME))
        if signer != self.keys.certificate and trust.is_listed(self.keys.certificate, whitelist):
            manifest = self.publish_again(manifest, manifest.history).manifest
            log.warning("key_exchange_completed", fqrn=self.fqrn, revision=manifest.revision)
        elif manifest.reflog != checksum:
            manifest = self._sign_again(manifest, checksum)
            log.warning("interrupted_commit_settled", fqrn=self.fqrn, revision=manifest.revision)
        return manifest

    def rewrite_reflog(self, reflog: Reflog, on_step: OnStep = ignore_step) -> RepositoryManifest:
        """Replace the reference log, with the revision as it is, and return the manifest that names the new log's checksum.

        The caller holds the lock and has called `recover`. Raises RepositoryDamaged, Untrusted, StorageFull, Unavailable.
        """
        manifest = self.manifest()
        self._check_certificate()
        checksum = self._store_reflog(reflog, on_step)
        on_step(Step.MANIFEST)
        return self._sign_again(manifest, checksum)

    def publish(
        self,
        root: NewRoot,
        reflog: Reflog,
        base: RepositoryManifest | None = None,
        on_step: OnStep = ignore_step,
    ) -> Revision:
        """Let clients see a new root catalog; the caller holds the lock.

        reflog: without the new entries; base: the manifest on which the root was made, None for a first one.
        Raises Untrusted if clients would refuse the signature, Conflict if another one was published meanwhile, StorageFull,
        Unavailable.
        """
        self._check_certificate()
        certificate = store_metadata(self.store, self.keys.certificate_pem, ObjectKind.CERTIFICATE)
        on_step(Step.FLUSH)
        self.store.flush()
        now = int(self.clock())
        reflog.add(root.content, ReferenceType.CATALOG, now)
        reflog.add(certificate, ReferenceType.CERTIFICATE, now)
        if root.history is not None:
            reflog.add(root.history, ReferenceType.HISTORY, now)
        metainfo = base.metainfo if base else None
        if metainfo is not None:
            reflog.add(metainfo, ReferenceType.METAINFO, now)
        checksum = self._store_reflog(reflog, on_step)
        manifest = RepositoryManifest(
            root=root.content,
            catalog_size=root.size,
            ttl=self.settings.ttl,
            revision=root.stamp.revision,
            fqrn=self.fqrn,
            certificate=certificate,
            garbage_collectable=True,
            history=root.history,
            timestamp=root.stamp.modified,
            metainfo=metainfo,
            reflog=checksum,
            others=base.others if base else (),
        )
        signed = self.keys.sign_manifest(manifest.payload())
        on_step(Step.MANIFEST)
        self._check_base(base)
        self.store.write_file(MANIFEST_NAME, signed)
        on_step(Step.PUBLISHED)
        return Revision(manifest.revision, root.content, manifest)

    def publish_again(self, base: RepositoryManifest, history: ContentHash | None, on_step: OnStep = ignore_step) -> Revision:
        """Publish the current revision once more, with this repository's certificate and another history.

        The caller holds the lock; base is what `recover` returned. Raises as `publish`.
        """
        size = base.catalog_size
        if size is None:
            size = len(self.objects.metadata(base.root, ObjectKind.CATALOG))
        root = NewRoot(base.root, size, Stamp(base.revision, base.timestamp), history)
        return self.publish(root, self.reflog(), base, on_step)

    def _store_reflog(self, reflog: Reflog, on_step: OnStep) -> ContentHash:
        data = reflog.serialise()
        checksum = ContentHash.of(data)
        on_step(Step.ANNOUNCE_REFLOG)
        self.spool.intend_reflog(checksum)
        on_step(Step.REFLOG)
        self.store.write_file(REFLOG_NAME, data)
        on_step(Step.REFLOG_CHECKSUM)
        self.spool.settle_reflog()
        return checksum

    def _sign_again(self, manifest: RepositoryManifest, reflog: ContentHash) -> RepositoryManifest:
        """Publish the same revision once more, with the checksum of a reference log that was written without it."""
        self._check_certificate()
        certificate = store_metadata(self.store, self.keys.certificate_pem, ObjectKind.CERTIFICATE)
        manifest = replace(manifest, reflog=reflog, certificate=certificate)
        self.store.write_file(MANIFEST_NAME, self.keys.sign_manifest(manifest.payload()))
        return manifest

    def _check_certificate(self) -> None:
        """Another publisher can have exchanged the repository key: what the old one signs would shut all clients out."""
        if not trust.is_listed(self.keys.certificate, self.whitelist()):
            raise Untrusted(
                f"clients would refuse what this publisher signs: the whitelist of {self.fqrn} does not name its certificate; "
                f"copy {self.fqrn}.key and {self.fqrn}.crt from where they were exchanged, or sign a new whitelist (resign)"
            )

    def _check_base(self, base: RepositoryManifest | None) -> None:
        """One lock holds back other publishers of this machine; this finds those elsewhere."""
        if base is None:
            return
        letter = Letter.parse(self.store.read_file(MANIFEST_NAME), MANIFEST_NAME)
        if RepositoryManifest.parse(letter.payload).root != base.root:
            raise Conflict(f"somebody else published in {self.fqrn} meanwhile; this commit was dropped and must be made again")
