"""A new repository key in place of the old one: nobody ever sees a repository that is not signed by a listed certificate."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mirror.errors import InvalidInput
from publisher import exchange
from publisher.cvmfs import trust
from publisher.cvmfs.hash import ObjectKind
from publisher.cvmfs.reader import RepositoryReader
from publisher.cvmfs.reflog import ReferenceType
from publisher.errors import PublishError, Untrusted
from publisher.gc.collect import collect
from publisher.gc.policy import CollectionPolicy
from publisher.keys import (
    KeyFiles,
    RepositoryKeys,
    complete_exchange,
    load_certificate,
    load_master,
    prepare_exchange,
    sign_whitelist,
)
from publisher.repository import Repository
from publisher.transaction import Transaction
from tests.support.memory_store import MemoryStore
from tests.support.repositories import FQRN, NOW, new_repository, problems, reopened

LIFETIME = timedelta(days=30)


def _publish(repository: Repository, name: bytes) -> None:
    with Transaction(repository) as transaction:
        transaction.put_symlink(name, b"target")
        transaction.commit()


def test_after_an_exchange_the_new_certificate_signs(tmp_path: Path) -> None:
    repository, _ = new_repository(tmp_path)
    _publish(repository, b"a")
    before, revision = repository.keys.fingerprint, repository.manifest().revision
    exchange.exchange_key(repository, tmp_path / "keys", LIFETIME)
    assert repository.keys.fingerprint != before
    assert set(repository.whitelist().fingerprints) == {before, repository.keys.fingerprint}
    assert repository.manifest().revision == revision
    assert problems(repository) == []
    _publish(repository, b"b")
    repository.renew_whitelist()
    assert repository.whitelist().fingerprints == (repository.keys.fingerprint,)
    assert problems(reopened(repository, tmp_path)) == []
    assert not KeyFiles(tmp_path / "keys", FQRN).next_certificate.exists()


def test_a_publisher_that_runs_meanwhile_goes_on_with_the_new_key(tmp_path: Path) -> None:
    repository, _ = new_repository(tmp_path)
    running = reopened(repository, tmp_path)
    exchange.exchange_key(repository, tmp_path / "keys", LIFETIME)
    running.renew_whitelist()
    _publish(running, b"a")
    assert running.keys.fingerprint == repository.keys.fingerprint
    running.renew_whitelist()
    assert running.whitelist().fingerprints == (repository.keys.fingerprint,)
    assert problems(reopened(repository, tmp_path)) == []


class _Died(Exception):
    pass


def _dying(function: Callable[..., object], calls: int) -> Callable[..., object]:
    """The function, which kills the process at its call of this number."""
    left = [calls]

    def call(*arguments: object, **named: object) -> object:
        if left[0] == 0:
            raise _Died
        left[0] -= 1
        return function(*arguments, **named)

    return call


@pytest.mark.parametrize("step", range(20))
def test_death_at_any_write_leaves_a_repository_that_clients_trust(
    tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository, store = new_repository(tmp_path)
    _publish(repository, b"a")
    with monkeypatch.context() as patched:
        counted = _dying(lambda: None, step)
        for owner, name in ((MemoryStore, "write_file"), (MemoryStore, "put"), (Path, "replace"), (Path, "unlink")):
            original: Callable[..., object] = getattr(owner, name)

            def call(*arguments: object, _original: Callable[..., object] = original, **named: object) -> object:
                counted()
                return _original(*arguments, **named)

            patched.setattr(owner, name, call)
        try:
            exchange.exchange_key(repository, tmp_path / "keys", LIFETIME)
        except _Died:
            pass
        else:
            assert step > 6
    again = reopened(repository, tmp_path)
    RepositoryReader(store, FQRN, again.keys.master_public, clock=again.clock)
    _publish(again, b"b")
    assert problems(again) == []
    exchange.exchange_key(again, tmp_path / "keys", LIFETIME)
    assert problems(again) == []


def test_an_exchange_that_died_is_completed_by_a_collection(tmp_path: Path) -> None:
    """Else the manifest would be signed by a certificate that the reference log does not know."""
    repository, store = new_repository(tmp_path)
    _publish(repository, b"a")
    old = repository.manifest().certificate
    new = prepare_exchange(repository.keys, tmp_path / "keys", datetime.fromtimestamp(NOW, UTC))
    repository.renew_whitelist(LIFETIME, also=(new.fingerprint,))
    complete_exchange(tmp_path / "keys", FQRN)
    assert repository.manifest().certificate == old
    collect(reopened(repository, tmp_path), CollectionPolicy())
    again = reopened(repository, tmp_path)
    manifest, references = again.manifest(), again.reflog().references()
    assert again.certificates() == [new.certificate]
    assert manifest.certificate != old
    assert references[manifest.certificate].type is ReferenceType.CERTIFICATE
    assert store.contains(old, ObjectKind.CERTIFICATE), "caches still have manifests that it signed"
    assert manifest.revision == 2
    assert problems(again) == []


def test_who_was_not_told_of_an_exchange_elsewhere_shuts_nobody_out(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    _publish(repository, b"a")
    late, theirs = reopened(repository, tmp_path), tmp_path / "theirs"
    RepositoryKeys.load(tmp_path / "keys", FQRN).save(theirs)
    elsewhere = Repository.open(
        FQRN, store, keys=theirs, spool=repository.spool.directory, clock=repository.clock
    )  # fmt: skip
    exchange.exchange_key(elsewhere, theirs, LIFETIME)
    elsewhere.renew_whitelist()
    files = dict(store.files)
    with pytest.raises(Untrusted, match=rf"copy {FQRN}\.key"):
        _publish(late, b"b")
    assert store.files == files
    collect(late, CollectionPolicy())
    assert problems(late) == []
    late.renew_whitelist()
    _publish(late, b"b")
    assert problems(late) == []


def _away(directory: Path) -> Path:
    """The master key, moved to another machine."""
    elsewhere = directory / "safe"
    elsewhere.mkdir()
    KeyFiles(directory / "keys", FQRN).master.rename(KeyFiles(elsewhere, FQRN).master)
    return elsewhere


def _signed(elsewhere: Path, *certificates: Path, now: float = NOW) -> bytes:
    _, master = load_master(elsewhere, FQRN)
    assert master is not None
    prints = [trust.fingerprint(load_certificate(path)) for path in certificates]
    return sign_whitelist(master, FQRN, prints, datetime.fromtimestamp(now, UTC), LIFETIME)


def test_with_the_master_key_elsewhere(tmp_path: Path) -> None:
    repository, _ = new_repository(tmp_path)
    elsewhere, keys, files = _away(tmp_path), tmp_path / "keys", KeyFiles(tmp_path / "keys", FQRN)
    repository = reopened(repository, tmp_path)
    with pytest.raises(PublishError, match="not on this machine"):
        exchange.exchange_key(repository, keys, LIFETIME)
    request = exchange.request_exchange(repository, keys)
    assert exchange.request_exchange(repository, keys) == request
    wanted = load_certificate(request)
    with pytest.raises(InvalidInput, match="lacks the certificate"):
        exchange.install_whitelist(repository, keys, _signed(elsewhere, request))
    with pytest.raises(InvalidInput, match="does not name"):
        exchange.install_whitelist(repository, keys, _signed(elsewhere, files.certificate))
    assert exchange.install_whitelist(repository, keys, _signed(elsewhere, files.certificate, request))
    assert repository.keys.certificate == wanted
    assert problems(repository) == []
    assert not exchange.install_whitelist(repository, keys, _signed(elsewhere, files.certificate))
    assert problems(reopened(repository, tmp_path)) == []


def test_foreign_and_expired_whitelists_are_refused(tmp_path: Path) -> None:
    repository, _ = new_repository(tmp_path)
    keys = tmp_path / "keys"
    foreign = RepositoryKeys.generate(FQRN, datetime.fromtimestamp(NOW, UTC))
    with pytest.raises(Untrusted, match="not signed by the master key"):
        exchange.install_whitelist(repository, keys, foreign.sign_whitelist(datetime.fromtimestamp(NOW, UTC)))
    with pytest.raises(Untrusted, match="expired"):
        exchange.install_whitelist(
            repository, keys, repository.keys.sign_whitelist(datetime.fromtimestamp(NOW, UTC) - 2 * LIFETIME)
        )
    assert problems(repository) == []
