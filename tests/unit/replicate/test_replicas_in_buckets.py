"""Replicas in S3 storage, on a real server: what clients then read from it is complete, and nothing else is written there."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.cvmfs.reader import RepositoryReader
from publisher.objects.http import HttpObjectSource
from publisher.objects.s3 import S3ObjectStore
from publisher.repository import Repository
from tests.support.memory_store import MemoryStore, load_directory
from tests.support.replicas import publish, publish_object, pull, replica_problems
from tests.support.repositories import FQRN, Clock, keys_of, new_repository
from tests.support.repository_server import RepositoryServer, status
from tests.support.s3_server import BUCKET, CREDENTIALS, S3Server
from tests.support.sample_tree import facts
from tests.support.tool import TOP
from tests.support.verbs import Verbs

LARGE = hashlib.shake_128(b"large").digest((17 << 20) + 5)


@pytest.fixture
def stratum0(tmp_path: Path) -> tuple[Repository, MemoryStore]:
    repository, store = new_repository(tmp_path)
    publish(repository, b"one", tag="first")
    content = ContentHash.of(LARGE)
    store.put(content, ObjectKind.DATA, LARGE)
    publish_object(repository, content, len(LARGE))
    return repository, store


async def test_a_replica_in_a_bucket(tmp_path: Path, stratum0: tuple[Repository, MemoryStore], s3_server: S3Server) -> None:
    repository, source = stratum0
    prefix = f"replicas/{uuid4()}"
    store, spool = S3ObjectStore(s3_server.place(prefix), CREDENTIALS, tmp_path / "locks"), tmp_path / "replica-spool"
    async with RepositoryServer(source, FQRN).running() as server:
        spoilt = repository.reader().lookup(b"one/own")
        assert spoilt is not None
        assert spoilt.content is not None
        server.spoil(spoilt.content, ObjectKind.DATA, status(404))
        with pytest.raises(Exception, match="missing at the source"):
            await pull(server.url, store, spool)
        server.faults.clear()
        assert (await pull(server.url, store, spool)).changed
        assert replica_problems(store, spool) == []
        publish(repository, b"two")
        server.requests.clear()
        assert (await pull(server.url, store, spool)).changed
        assert server.requests[ContentHash.of(LARGE).object_path(ObjectKind.DATA)] == 0
    assert replica_problems(store, spool) == []
    assert "last_snapshot" in json.loads(store.read_file(".cvmfs_status.json"))

    def as_clients_read() -> None:
        with HttpObjectSource(f"{s3_server.public_url}/{prefix}") as web:
            reader = RepositoryReader(web, FQRN, keys_of(FQRN).master_public, clock=Clock())
            assert reader.manifest == repository.manifest()
            for name in (b"one", b"two"):
                assert facts(reader.tree(name)) == facts(repository.reader().tree(name))

    await asyncio.to_thread(as_clients_read)


async def test_the_golden_repository_by_the_verb(tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """With settings as an operator writes them, twice: the second one has nothing to do."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", CREDENTIALS.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CREDENTIALS.secret_key)
    settings = tmp_path / "debark.toml"
    settings.write_text(f'[publish.s3]\nendpoint = "{s3_server.endpoint}"\n')
    golden = TOP / "tests/data/cvmfs-golden"
    verbs, place = Verbs(tmp_path / "data", "golden.example.org"), f"s3://{BUCKET}/{uuid4()}"

    def twice(url: str) -> list[dict[str, Any]]:
        options = [url, "-k", str(golden / "golden.example.org.pub"), "--storage", place, "--config", str(settings)]
        return verbs.records("replicate", *options) + verbs.records("replicate", *options)

    async with RepositoryServer(load_directory(golden / "repo"), "golden.example.org").running() as server:
        first, second = await asyncio.to_thread(twice, server.url)
    assert (first["revision"], first["changed"], first["objects"]) == (4, True, 59)
    assert (second["revision"], second["changed"], second["objects"]) == (4, False, 0)
