"""A copy of the golden repository, taken over and collected: what is kept is what CernVM-FS's own tools wrote, all of it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from publisher.cvmfs.builder import store_metadata
from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.cvmfs.letter import Letter
from publisher.cvmfs.manifest import MANIFEST_NAME, RepositoryManifest
from publisher.cvmfs.reflog import ReferenceType
from publisher.gc.policy import Tally
from publisher.repository import Repository
from publisher.spool import Spool
from publisher.transaction import Transaction
from tests.support.collecting import attached, collect_later, needed, objects
from tests.support.memory_store import MemoryStore, load_directory
from tests.support.repositories import SETTINGS, Clock, keys_of, problems

GOLDEN = Path(__file__).parents[2] / "data" / "cvmfs-golden"
FQRN = "golden.example.org"


@pytest.fixture
def store() -> MemoryStore:
    return load_directory(GOLDEN / "repo")


@pytest.fixture
def repository(tmp_path: Path, store: MemoryStore) -> Repository:
    """With keys of our own, since nobody has the golden ones."""
    spool = Spool(tmp_path / "spool")
    spool.create()
    spool.pin(SETTINGS)
    (spool.directory / "reflog.chksum").write_text((GOLDEN / "reflog.chksum").read_text())
    clock = Clock()
    repository = Repository(FQRN, store, keys_of(FQRN), spool, clock=clock)
    repository.renew_whitelist()
    old = RepositoryManifest.parse(Letter.parse(store.files[MANIFEST_NAME], MANIFEST_NAME).payload)
    certificate = store_metadata(store, repository.keys.certificate_pem, ObjectKind.CERTIFICATE)
    payload = old.payload().replace(f"X{old.certificate}".encode(), f"X{certificate}".encode())
    store.files[MANIFEST_NAME] = repository.keys.sign_manifest(payload)
    with spool.lock(0):
        repository.recover()
        reflog = repository.reflog()
        reflog.add(certificate, ReferenceType.CERTIFICATE, int(clock()))
        repository.rewrite_reflog(reflog)
    return repository


def roots_of(repository: Repository) -> set[ContentHash]:
    history = repository.reader().history()
    tags = {} if history is None else history.tags()
    return {repository.manifest().root, *(tag.root for tag in tags.values())}


def expected(name: str) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((GOLDEN / name).read_text())
    return facts


def assert_readable(repository: Repository, name: str) -> None:
    facts = expected(name)
    snapshot = repository.reader().at(ContentHash.parse(facts["root_hash"]))
    for entry in facts["entries"]:
        if "sha256" in entry:
            content = snapshot.read(entry["path"].encode("utf-8", "surrogateescape"))
            assert hashlib.sha256(content).hexdigest() == entry["sha256"], entry["path"]


def test_named_snapshots_stay_whole(repository: Repository, store: MemoryStore) -> None:
    result = collect_later(repository)
    assert result.roots == len(roots_of(repository)) > 2
    assert objects(store) == needed(repository, roots_of(repository)) | attached(repository) | certificates(repository)
    for name in ("expected.json", "expected-second.json", "expected-first.json"):
        assert_readable(repository, name)
    assert problems(repository) == []


def certificates(repository: Repository) -> set[tuple[ContentHash, ObjectKind]]:
    references = repository.reflog().references().values()
    return {
        (reference.content, ObjectKind.CERTIFICATE) for reference in references if reference.type is ReferenceType.CERTIFICATE
    }


def test_forgotten_snapshots_go(repository: Repository, store: MemoryStore) -> None:
    collect_later(repository)
    before = objects(store)
    assert isinstance(repository.clock, Clock)
    with Transaction(repository) as transaction:
        for name in ("first", "second", "hardlinks"):
            transaction.untag(name)
        transaction.commit()
    dry = collect_later(repository, dry_run=True)
    result = collect_later(repository)
    assert result.deleted == dry.found != Tally()
    gone = before - objects(store)
    assert {kind for _, kind in gone} >= {ObjectKind.CATALOG, ObjectKind.HISTORY}
    assert not store.contains(ContentHash.parse(expected("expected-first.json")["root_hash"]), ObjectKind.CATALOG)
    assert_readable(repository, "expected.json")
    assert objects(store) == needed(repository, roots_of(repository)) | attached(repository) | certificates(repository)
    assert problems(repository) == []
