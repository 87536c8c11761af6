"""A repository as its clients see it: from a master key to content, with everything on the way verified."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric import rsa

from mirror.errors import NotFound
from publisher.cvmfs import trust
from publisher.cvmfs.catalog import Catalog, NestedReference
from publisher.cvmfs.entry import Directory, Entry
from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.cvmfs.history import History
from publisher.cvmfs.manifest import MANIFEST_NAME, RepositoryManifest
from publisher.cvmfs.objects import ReadLimits, VerifiedObjects
from publisher.cvmfs.path import ROOT
from publisher.cvmfs.reflog import REFLOG_NAME, Reflog
from publisher.cvmfs.snapshot import Snapshot
from publisher.cvmfs.whitelist import WHITELIST_NAME, Whitelist
from publisher.errors import RepositoryDamaged
from publisher.objects.store import ObjectSource

LAST_SNAPSHOT_NAME = ".cvmfs_last_snapshot"
"""A replica notes there when it was replicated last."""


class RepositoryReader:
    """Reads a repository from any source, trusting nothing but a master key.

    Opens the current revision; `refresh` moves to a newer one. Methods raise RepositoryDamaged for what is missing or wrong,
    Untrusted where the signatures do not hold, Unavailable where the source cannot be reached.
    """

    def __init__(
        self,
        source: ObjectSource,
        fqrn: str,
        master_key: rsa.RSAPublicKey,
        *,
        clock: Callable[[], float] = time.time,
        limits: ReadLimits | None = None,
    ) -> None:
        """clock: Unix seconds, for the whitelist's expiry."""
        self._limits = limits or ReadLimits()
        self._source = source
        self._master_key = master_key
        self._clock = clock
        self.objects = VerifiedObjects(source, self._limits)
        self.fqrn = fqrn
        self.manifest, self.whitelist = self._verified()
        self.snapshot = self.at(self.manifest.root, self.manifest.catalog_size)

    def refresh(self) -> bool:
        """Open the revision that the repository shows now; whether it is another one."""
        self.manifest, self.whitelist = self._verified()
        if self.manifest.root == self.snapshot.root_hash:
            return False
        self.snapshot = self.at(self.manifest.root, self.manifest.catalog_size)
        return True

    def at(self, root: ContentHash, size: int | None = None) -> Snapshot:
        """Another revision by the hash of its root catalog, with its uncompressed bytes if known."""
        return Snapshot(self.objects, root, size, self._limits.cached_catalogs)

    def history(self) -> History | None:
        """The named snapshots; None if there are none."""
        content = self.manifest.history
        return None if content is None else History(self.objects.metadata(content, ObjectKind.HISTORY), self.fqrn)

    def reflog(self, checksum: ContentHash | None = None) -> Reflog:
        """The reference log, verified by a checksum that is known from elsewhere, or by the manifest's."""
        expected = checksum or self.manifest.reflog
        data = self._file(REFLOG_NAME)
        if expected is None or ContentHash.of(data, expected.algorithm) != expected:
            raise RepositoryDamaged(f"the reference log of {self.fqrn} does not have the checksum {expected}", REFLOG_NAME)
        return Reflog(data, self.fqrn)

    @property
    def is_replica(self) -> bool:
        """Whether this is a replica, whose reference log is its own: only the replica itself knows its checksum."""
        try:
            self._source.read_file(LAST_SNAPSHOT_NAME)
        except NotFound:
            return False
        return True

    def catalog(self, reference: NestedReference) -> Catalog:
        """Open a nested catalog of the current revision."""
        return self.snapshot.nested(reference)

    def lookup(self, path: bytes) -> Entry | None:
        """The object at a path, if it exists; symbolic links are not followed."""
        return self.snapshot.lookup(path)

    def listing(self, path: bytes = ROOT) -> dict[bytes, Entry]:
        """A directory's objects by name. Raises NotFound."""
        return self.snapshot.listing(path)

    def walk(self, path: bytes = ROOT) -> Iterator[tuple[bytes, Entry]]:
        """Every object below a directory with its path from there. Raises NotFound."""
        return self.snapshot.walk(path)

    def tree(self, path: bytes = ROOT) -> Directory:
        """A directory with everything below it, without marker files. Raises NotFound."""
        return self.snapshot.tree(path)

    def read(self, path: bytes) -> bytes:
        """Content of a regular file. Raises NotFound, InvalidInput."""
        return self.snapshot.read(path)

    def _verified(self) -> tuple[RepositoryManifest, Whitelist]:
        letter, manifest = trust.read_manifest(self._file(MANIFEST_NAME), self.fqrn)
        now = datetime.fromtimestamp(self._clock(), UTC)
        whitelist = trust.verified_whitelist(self._file(WHITELIST_NAME), self.fqrn, self._master_key, now)
        certificate = self.objects.metadata(manifest.certificate, ObjectKind.CERTIFICATE)
        trust.verify_manifest(letter, certificate, whitelist)
        return manifest, whitelist

    def _file(self, name: str) -> bytes:
        try:
            return self._source.read_file(name)
        except NotFound as error:
            raise RepositoryDamaged(f"the repository {self.fqrn} has no {name}: {error}", name) from error
