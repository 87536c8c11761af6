from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mirror.errors import InvalidInput, NotFound
from publisher.creation import create_repository
from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.cvmfs.manifest import MANIFEST_NAME
from publisher.cvmfs.reader import RepositoryReader
from publisher.cvmfs.reflog import REFLOG_NAME
from publisher.cvmfs.whitelist import WHITELIST_NAME
from publisher.errors import Conflict, PublishError, RepositoryDamaged, Untrusted
from publisher.keys import RepositoryKeys
from publisher.repository import Repository
from publisher.spool import RepositorySettings, Spool
from publisher.transaction import Transaction
from tests.support.memory_store import MemoryStore
from tests.support.repositories import FQRN, NOW, SETTINGS, Clock, keys_of, new_repository, problems
from tests.support.sample_tree import regular


def test_a_new_repository_is_empty_signed_and_sound(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    reader = repository.reader()
    assert reader.manifest.revision == 1
    assert reader.manifest.garbage_collectable
    assert reader.manifest.ttl == 60
    assert reader.listing() == {}
    assert ".cvmfs_master_replica" in store.files
    assert problems(repository) == []


def test_keys_are_private_and_survive_the_round_trip(tmp_path: Path) -> None:
    keys = RepositoryKeys.generate(FQRN, datetime.fromtimestamp(NOW, UTC))
    keys.save(tmp_path / "keys")
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    for name in ("masterkey", "key"):
        assert stat.S_IMODE((tmp_path / "keys" / f"{FQRN}.{name}").stat().st_mode) == 0o600
    loaded = RepositoryKeys.load(tmp_path / "keys", FQRN)
    assert loaded.fingerprint == keys.fingerprint
    assert loaded.public_pem == keys.public_pem
    assert "PRIVATE" not in repr(loaded)
    with pytest.raises(Conflict):
        keys.save(tmp_path / "keys")


def test_missing_and_mixed_up_keys_are_named(tmp_path: Path) -> None:
    keys_of(FQRN).save(tmp_path)
    (tmp_path / f"{FQRN}.masterkey").unlink()
    assert RepositoryKeys.load(tmp_path, FQRN).master is None
    (tmp_path / f"{FQRN}.crt").write_bytes(keys_of("other.example.org").certificate_pem)
    with pytest.raises(InvalidInput, match=r"\.crt is not the certificate of"):
        RepositoryKeys.load(tmp_path, FQRN)
    (tmp_path / f"{FQRN}.key").write_text("junk")
    with pytest.raises(InvalidInput, match=r"\.key is not a private key"):
        RepositoryKeys.load(tmp_path, FQRN)
    (tmp_path / f"{FQRN}.key").unlink()
    with pytest.raises(NotFound, match=r"\.key is missing"):
        RepositoryKeys.load(tmp_path, FQRN)


@pytest.mark.parametrize("fqrn", ["", "nodots", "a..b", ".a.b", "a.b/", "x" * 59 + ".b", "a b.c"])
def test_impossible_repository_names(tmp_path: Path, fqrn: str) -> None:
    with pytest.raises(InvalidInput):
        create_repository(fqrn, MemoryStore(), keys=tmp_path / "k", spool=tmp_path / "s", settings=SETTINGS)
    assert not (tmp_path / "k").exists()


def test_an_existing_repository_is_not_made_again(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    before = dict(store.files)
    with pytest.raises(Conflict, match="exists already"):
        create_repository(FQRN, store, keys=tmp_path / "keys", spool=repository.spool.directory, settings=SETTINGS)
    assert store.files == before


def test_an_interrupted_creation_can_be_repeated(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    del store.files[MANIFEST_NAME]
    again = create_repository(
        FQRN, store, keys=tmp_path / "keys", spool=repository.spool.directory, settings=SETTINGS, clock=Clock()
    )  # fmt: skip
    assert problems(again) == []


def test_settings_are_pinned(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    opened = Repository.open(FQRN, store, keys=tmp_path / "keys", spool=repository.spool.directory)
    assert opened.settings == SETTINGS
    (repository.spool.directory / "settings.json").write_text('{"compressor": ""}')
    with pytest.raises(RepositoryDamaged, match=r"settings\.json"):
        Repository.open(FQRN, store, keys=tmp_path / "keys", spool=repository.spool.directory)
    with pytest.raises(InvalidInput):
        RepositorySettings("zlib-6", ttl=0)
    with pytest.raises(InvalidInput, match="aufs"):
        RepositorySettings("zlib-6", whiteouts="aufs")
    with pytest.raises(NotFound):
        Repository.open(FQRN, MemoryStore(), keys=tmp_path / "keys", spool=repository.spool.directory)


def test_expired_whitelist_stops_readers_until_it_is_renewed_but_not_the_publisher(tmp_path: Path) -> None:
    clock = Clock()
    repository, store = new_repository(tmp_path, clock=clock)
    clock.now += timedelta(days=31).total_seconds()
    with pytest.raises(Untrusted, match="expired"):
        repository.reader()
    with Transaction(repository) as transaction:
        transaction.put_file(b"late", regular(store, b"late"))
        transaction.commit()
    repository.renew_whitelist()
    assert repository.reader().read(b"late") == b"late"
    assert repository.whitelist().expires > datetime.fromtimestamp(clock.now, UTC)


def test_reader_refuses_what_it_cannot_trust(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    key = keys_of(FQRN).master_public
    with pytest.raises(Untrusted, match="not signed by the master key"):
        RepositoryReader(store, FQRN, keys_of("other.example.org").master_public, clock=Clock())
    with pytest.raises(Untrusted, match=r"not wrong\.example\.org"):
        RepositoryReader(store, "wrong.example.org", key, clock=Clock())
    good = dict(store.files)
    for name in (MANIFEST_NAME, WHITELIST_NAME):
        store.files[name] = good[name][:-1] + bytes([good[name][-1] ^ 1])
        with pytest.raises(Untrusted):
            RepositoryReader(store, FQRN, key, clock=Clock())
        store.files[name] = good[name][:100]
        with pytest.raises(RepositoryDamaged):
            RepositoryReader(store, FQRN, key, clock=Clock())
        del store.files[name]
        with pytest.raises(RepositoryDamaged, match=name):
            RepositoryReader(store, FQRN, key, clock=Clock())
        store.files[name] = good[name]
    assert RepositoryReader(store, FQRN, key, clock=Clock()).fqrn == repository.fqrn


@pytest.mark.parametrize("kind", [ObjectKind.CERTIFICATE, ObjectKind.CATALOG])
def test_damaged_objects_are_refused_by_reader_and_publisher(tmp_path: Path, kind: ObjectKind) -> None:
    repository, store = new_repository(tmp_path)
    key = next(key for key in store.contents if key[1] is kind)
    good = store.contents[key]
    store.contents[key] = good[:-3] + b"xyz"
    with pytest.raises(RepositoryDamaged, match=f"{key[0]} .*damaged"):
        repository.reader()
    with pytest.raises(RepositoryDamaged, match=str(key[0])):
        Transaction(repository).__enter__()
    del store.contents[key]
    with pytest.raises(RepositoryDamaged, match="missing"):
        repository.reader()
    store.contents[key] = good
    with Transaction(repository) as transaction:
        assert not transaction.changed


def test_publisher_signs_nothing_on_top_of_a_manifest_it_cannot_trust(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    stranger = keys_of("other.example.org")
    store.files[MANIFEST_NAME] = stranger.sign_manifest(repository.manifest().payload())
    with pytest.raises(Untrusted):
        Transaction(repository).__enter__()


def test_a_foreign_reflog_is_refused_with_advice(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    with Transaction(repository) as transaction:
        transaction.put_symlink(b"a", b"b")
        old = store.files[REFLOG_NAME]
        transaction.commit()
    store.files[REFLOG_NAME] = old
    with pytest.raises(RepositoryDamaged, match=r"reflog\.chksum"):
        Transaction(repository).__enter__()
    (repository.spool.directory / "reflog.chksum").write_text(str(ContentHash.of(old)))
    with Transaction(repository) as transaction:
        transaction.put_symlink(b"a", b"c")
        transaction.commit()
    assert problems(repository) == []


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    repository, _ = new_repository(tmp_path)
    with Transaction(repository), pytest.raises(Conflict, match="another process writes"):
        Transaction(repository, wait=0.05).__enter__()
    with Transaction(repository, wait=0):
        pass
    with pytest.raises(Conflict), Spool(repository.spool.directory).lock(0), Transaction(repository, wait=0):
        pass


def test_publishing_on_top_of_a_stranger_is_refused(tmp_path: Path) -> None:
    """A publisher on another machine does not see this machine's lock."""
    repository, store = new_repository(tmp_path)
    with Transaction(repository) as transaction:
        transaction.put_symlink(b"mine", b"x")
        before = store.files[MANIFEST_NAME]
        Spool(tmp_path / "elsewhere").create()
        elsewhere = Spool(tmp_path / "elsewhere")
        elsewhere.pin(SETTINGS)
        (tmp_path / "elsewhere" / "reflog.chksum").write_text((repository.spool.directory / "reflog.chksum").read_text())
        with Transaction(Repository(FQRN, store, repository.keys, elsewhere, clock=Clock())) as other:
            other.put_symlink(b"theirs", b"y")
            other.commit()
        theirs = store.files[MANIFEST_NAME]
        with pytest.raises(Conflict, match="meanwhile"):
            transaction.commit()
    assert store.files[MANIFEST_NAME] == theirs != before


def test_without_the_master_key_publishing_goes_on(tmp_path: Path) -> None:
    repository, store = new_repository(tmp_path)
    (tmp_path / "keys" / f"{FQRN}.masterkey").unlink()
    opened = Repository.open(FQRN, store, keys=tmp_path / "keys", spool=repository.spool.directory, clock=Clock())
    with Transaction(opened) as transaction:
        transaction.put_symlink(b"a", b"b")
        assert transaction.commit().revision == 2
    with pytest.raises(PublishError, match="resign"):
        opened.renew_whitelist()
