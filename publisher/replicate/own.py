"""The replica's own files: what it shows, its own reference log, and the marks that say what it is doing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import rsa

from mirror.errors import NotFound
from publisher.cvmfs import trust
from publisher.cvmfs.hash import ContentHash
from publisher.cvmfs.manifest import MANIFEST_NAME, RepositoryManifest
from publisher.cvmfs.reader import LAST_SNAPSHOT_NAME
from publisher.cvmfs.reflog import REFLOG_NAME, ReferenceType, Reflog
from publisher.cvmfs.whitelist import WHITELIST_NAME, Whitelist
from publisher.errors import RepositoryDamaged
from publisher.objects.store import ObjectStore
from publisher.replicate.files import local_failures
from publisher.replicate.model import OnStep, Step
from publisher.replicate.transfer import PART_SUFFIX
from publisher.spool import Spool
from publisher.status_file import note_status, utc_date

SNAPSHOTTING_NAME = ".cvmfs_is_snapshotting"


@dataclass(frozen=True, slots=True)
class Shown:
    """A revision as a source or the replica shows it: both files as they are, the manifest read."""

    manifest: RepositoryManifest
    manifest_file: bytes
    whitelist_file: bytes
    whitelist: Whitelist | None
    """None if the master key did not sign it."""


class OwnFiles:
    """Of one replica; all methods block. Raises StorageFull, Unavailable."""

    def __init__(self, fqrn: str, store: ObjectStore, spool: Spool, clock: Callable[[], float], on_step: OnStep) -> None:
        """clock: Unix seconds."""
        self._fqrn = fqrn
        self._store = store
        self._spool = spool
        self._clock = clock
        self._on_step = on_step
        self.scratch = spool.directory / "incoming"
        """Files on their way; nothing but large objects in part between two replications."""

    def shown(self, master_key: rsa.RSAPublicKey) -> Shown | None:
        """What the replica shows; None if it is a new one. Raises RepositoryDamaged, Untrusted if it is of another repository."""
        try:
            manifest_file = self._store.read_file(MANIFEST_NAME)
        except NotFound:
            return None
        _, manifest = trust.read_manifest(manifest_file, self._fqrn)
        try:
            whitelist_file = self._store.read_file(WHITELIST_NAME)
            whitelist = trust.verified_whitelist(whitelist_file, self._fqrn, master_key, None)
        except (NotFound, RepositoryDamaged):
            return Shown(manifest, manifest_file, b"", None)
        return Shown(manifest, manifest_file, whitelist_file, whitelist)

    def reflog(self) -> Reflog:
        """The replica's own; what one that died left behind is settled. Raises RepositoryDamaged."""
        try:
            data = self._store.read_file(REFLOG_NAME)
        except NotFound:
            return Reflog.empty(self._fqrn)
        self._spool.settle(data)
        return Reflog(data, self._fqrn)

    def begin(self) -> None:
        """Clear away what one that died left, but for large objects in part, and say that the replica is in work."""
        self._clear(keep=PART_SUFFIX)
        self._store.write_file(SNAPSHOTTING_NAME, f"{utc_date(self._clock())}\n".encode())

    def end(self, *, is_complete: bool) -> None:
        """Say that it is in work no more; of an incomplete one, large objects in part are kept."""
        self._clear(keep=None if is_complete else PART_SUFFIX)
        self._store.delete_file(SNAPSHOTTING_NAME)

    def write_reflog(self, reflog: Reflog, manifest: RepositoryManifest, roots: Iterable[ContentHash]) -> None:
        """Enter all that a collector in the replica must be able to find."""
        known = reflog.references()
        wanted: list[tuple[ContentHash | None, ReferenceType]] = [(root, ReferenceType.CATALOG) for root in roots]
        wanted += [
            (manifest.certificate, ReferenceType.CERTIFICATE),
            (manifest.history, ReferenceType.HISTORY),
            (manifest.metainfo, ReferenceType.METAINFO),
        ]
        missing = [(content, kind) for content, kind in wanted if content is not None and content not in known]
        if not missing:
            return
        for content, kind in missing:
            reflog.add(content, kind, int(self._clock()))
        data = reflog.serialise()
        self._on_step(Step.ANNOUNCE_REFLOG)
        self._spool.intend_reflog(ContentHash.of(data))
        self._on_step(Step.REFLOG)
        self._store.write_file(REFLOG_NAME, data)
        self._on_step(Step.REFLOG_CHECKSUM)
        self._spool.settle_reflog()

    def show(self, new: Shown, old: Shown | None) -> None:
        """Let clients see a revision of which everything is in the store."""
        if old is None or old.whitelist_file != new.whitelist_file:
            self._on_step(Step.WHITELIST)
            self._store.write_file(WHITELIST_NAME, new.whitelist_file)
        if old is None or old.manifest_file != new.manifest_file:
            self._on_step(Step.MANIFEST)
            self._store.write_file(MANIFEST_NAME, new.manifest_file)
        self._on_step(Step.LAST_SNAPSHOT)
        date = utc_date(self._clock())
        note_status(self._store, last_snapshot=date)
        self._store.write_file(LAST_SNAPSHOT_NAME, f"{date}\n".encode())

    def _clear(self, keep: str | None = None) -> None:
        with local_failures(self.scratch):
            self.scratch.mkdir(exist_ok=True)
            for file in self.scratch.iterdir():
                if file.suffix != keep:
                    # A thread whose task was ended by a failure may be clearing away the same.
                    file.unlink(missing_ok=True)
