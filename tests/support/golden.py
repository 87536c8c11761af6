"""The golden repository with keys of our own: what CernVM-FS's tools wrote, in the places where they keep it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from publisher.cvmfs import trust
from publisher.cvmfs.builder import store_metadata
from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.cvmfs.manifest import MANIFEST_NAME
from publisher.cvmfs.reflog import REFLOG_NAME, ReferenceType, Reflog
from publisher.cvmfs.whitelist import WHITELIST_NAME
from publisher.keys import RepositoryKeys
from publisher.objects.local import LocalObjectStore
from tests.support.tool import TOP

FQRN = "golden.example.org"
_GOLDEN = TOP / "tests/data/cvmfs-golden"


@dataclass(frozen=True)
class ServerRepository:
    """The directories of a machine that runs cvmfs_server."""

    storage: Path
    keys: Path
    spool: Path

    @property
    def places(self) -> list[str]:
        """Options of `import` that lead there."""
        return ["--storage", str(self.storage), "--keys", str(self.keys), "--spool", str(self.spool)]


def server_repository(directory: Path) -> ServerRepository:
    """A copy of the golden repository, signed with new keys, since its own are not kept."""
    made = ServerRepository(directory / "srv", directory / "keys", directory / "spool")
    shutil.copytree(_GOLDEN / "repo", made.storage)
    made.spool.mkdir()
    now = datetime.now(UTC)
    keys = RepositoryKeys.generate(FQRN, now)
    keys.save(made.keys)
    store = LocalObjectStore(made.storage)
    _, manifest = trust.read_manifest(store.read_file(MANIFEST_NAME), FQRN)
    certificate = store_metadata(store, keys.certificate_pem, ObjectKind.CERTIFICATE)
    reflog = Reflog(store.read_file(REFLOG_NAME), FQRN)
    reflog.add(certificate, ReferenceType.CERTIFICATE, int(now.timestamp()))
    data = reflog.serialise()
    checksum = ContentHash.of(data)
    store.write_file(REFLOG_NAME, data)
    (made.spool / "reflog.chksum").write_text(str(checksum))
    store.write_file(MANIFEST_NAME, keys.sign_manifest(replace(manifest, certificate=certificate, reflog=checksum).payload()))
    store.write_file(WHITELIST_NAME, keys.sign_whitelist(now, timedelta(days=30)))
    return made
