"""Where a verb works: one repository in a data directory, or one on the web."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa

from mirror.config.models import Config
from mirror.data import DataDirectory
from mirror.errors import NotFound, Unavailable
from publisher.audit import FILE_NAME, AuditLog
from publisher.check import Contains
from publisher.cvmfs.manifest import MANIFEST_NAME
from publisher.cvmfs.reader import RepositoryReader
from publisher.cvmfs.snapshot import Snapshot
from publisher.keys import KeyFiles, load_public_key
from publisher.objects.http import HttpObjectSource
from publisher.objects.pipeline import Pipeline
from publisher.objects.store import ObjectStore
from publisher.repository import Repository
from publisher.spool import RepositorySettings, Spool
from publisher.storage import Storage, open_storage, pipeline_limits
from publisher.stratum0 import open_pipeline
from publisher.tags import find_tag

USUAL_KEYS = Path("/etc/cvmfs/keys")
"""Where CernVM-FS keeps keys."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A repository to be read, and how to ask whether an object is there."""

    reader: RepositoryReader
    contains: Contains

    def snapshot(self, tag: str | None) -> Snapshot:
        """The revision of this name, or the current one. Raises NotFound, RepositoryDamaged, Unavailable."""
        if tag is None:
            return self.reader.snapshot
        found = find_tag(self.reader.history(), tag, self.reader.fqrn)
        return self.reader.at(found.root, found.size)


@dataclass(frozen=True, slots=True)
class Workplace:
    """A repository's name and the settings."""

    fqrn: str
    config: Config

    @property
    def data(self) -> DataDirectory:
        """The data directory."""
        return DataDirectory(self.config.data)

    @property
    def spool(self) -> Path:
        """The repository's spool directory."""
        return self.data.spool / self.fqrn

    @property
    def audit(self) -> AuditLog:
        """Where it is written down what was done."""
        return AuditLog(self.data.logs / FILE_NAME)

    @property
    def lifetime(self) -> timedelta:
        """Of a new whitelist."""
        return timedelta(seconds=self.config.publish.whitelist_lifetime)

    @property
    def settings(self) -> RepositorySettings:
        """Of a new repository."""
        publish = self.config.publish
        return RepositorySettings(publish.compressor, publish.ttl, publish.whiteouts)

    def storage(self) -> Storage:
        """The repository's files. Raises InvalidInput, StorageFull, Unavailable."""
        return open_storage(self.fqrn, self.config, self.data)

    @property
    def where(self) -> str:
        """The directory of the repository's files, or their URL if they are in a bucket."""
        if self.config.publish.storage_of(self.fqrn):
            return self.storage().url
        return str((self.data.cvmfs / self.fqrn).resolve())

    def repository(self) -> Repository:
        """The repository, to be written. Raises NotFound if there is none, InvalidInput, RepositoryDamaged, Unavailable."""
        return Repository.open(self.fqrn, self._existing(), keys=self.data.keys, spool=self.spool)

    def exists(self) -> bool:
        """Whether there is a repository of this name that was made or taken over here."""
        return Spool(self.config.data / "spool" / self.fqrn).is_set_up

    def pipeline(self, repository: Repository) -> Pipeline:
        """A way for content into the repository, to be closed."""
        return open_pipeline(repository, pipeline_limits(self.config.publish, self.storage()))

    @contextmanager
    def opened(self, url: str | None = None, public_key: Path | None = None) -> Iterator[Opened]:
        """The repository as a client sees it, in the data directory or at a URL.

        public_key: file of the master key to trust; the one in the data directory or in CernVM-FS's own place without it.
        Raises NotFound, Untrusted, RepositoryDamaged, Unavailable, InvalidInput.
        """
        if url is None:
            store = self._existing()
            yield Opened(RepositoryReader(store, self.fqrn, self.master_key(public_key)), store.contains)
            return
        with HttpObjectSource(url) as source:
            yield Opened(RepositoryReader(source, self.fqrn, self.master_key(public_key)), source.contains)

    def master_key(self, public_key: Path | None = None) -> rsa.RSAPublicKey:
        """The public master key: of the file, or where one is usually. Raises NotFound, InvalidInput."""
        usual = [KeyFiles(directory, self.fqrn).public for directory in (self.config.data / "keys", USUAL_KEYS)]
        for path in [public_key] if public_key is not None else usual:
            try:
                return load_public_key(path.read_bytes())
            except FileNotFoundError:
                continue
            except OSError as error:
                raise Unavailable(f"{path} cannot be read: {error.strerror}") from error
        searched = public_key or " and ".join(map(str, usual))
        raise NotFound(f"there is no public key of {self.fqrn} at {searched}; name its file with --public-key")

    def _existing(self) -> ObjectStore:
        """The storage, looked for before it is opened: opening makes one."""
        if not self.config.publish.storage_of(self.fqrn):
            place = self.config.data / "cvmfs" / self.fqrn
            if not (place / MANIFEST_NAME).exists():
                raise NotFound(f"there is no repository at {place}; make it (mkfs), take it over (import), or see --data")
        return self.storage().store
