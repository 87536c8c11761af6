"""Sources that lie, stall, send without end, or were signed by somebody who means harm: refused, bounded, named."""

from __future__ import annotations

import asyncio
import gzip
import resource
import sqlite3
import zlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from mirror.errors import Denied, InvalidInput, MirrorError, NotFound, Unavailable
from publisher.cvmfs import schema
from publisher.cvmfs.builder import Stamp
from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.errors import RepositoryDamaged, Untrusted
from publisher.objects.http_client import HttpLimits
from publisher.replicate.model import Extent, ReplicationLimits
from publisher.repository import NewRoot, Repository
from tests.support.memory_store import MemoryStore
from tests.support.replicas import LIMITS, QUICK, publish, pull, replica_problems
from tests.support.repositories import FQRN, Clock, keys_of, new_repository
from tests.support.repository_server import RepositoryServer, endless, other_bytes, silent, status
from tests.support.tampering import tamper


class Source:
    """A repository and its server."""

    def __init__(self, repository: Repository, store: MemoryStore, server: RepositoryServer, spool: Path) -> None:
        self.repository = repository
        self.store = store
        self.server = server
        self.spool = spool
        self.replica = MemoryStore()

    async def refused(self, kind: type[MirrorError], match: str, **options: object) -> None:
        """The replication ends with this, and shows nothing new."""
        before = self.replica.files.get(".cvmfspublished")
        with pytest.raises(kind, match=match):
            await pull(self.server.url, self.replica, self.spool, **options)
        assert self.replica.files.get(".cvmfspublished") == before
        assert ".cvmfs_is_snapshotting" not in self.replica.files

    def publish_catalog(self, data: bytes, *, stored: bytes | None = None) -> None:
        """Sign whatever as the root catalog of the next revision."""
        base = self.repository.manifest()
        stored = zlib.compress(data) if stored is None else stored
        content = ContentHash.of(stored)
        self.store.put(content, ObjectKind.CATALOG, stored)
        stamp = Stamp(base.revision + 1, base.timestamp)
        self.repository.publish(NewRoot(content, len(data), stamp, base.history), self.repository.reflog(), base)

    def object_of(self, path: bytes) -> ContentHash:
        entry = self.repository.reader().lookup(path)
        assert entry is not None
        assert entry.content is not None
        return entry.content


@pytest.fixture
async def source(tmp_path: Path) -> AsyncIterator[Source]:
    repository, store = new_repository(tmp_path)
    publish(repository, b"one", tag="first")
    async with RepositoryServer(store, FQRN).running() as server:
        yield Source(repository, store, server, tmp_path / "replica-spool")


KINDS = ["data", "chunk", "nested catalog", "root catalog", "history", "certificate"]


def an_object(source: Source, kind: str) -> tuple[ContentHash, ObjectKind]:
    reader = source.repository.reader()
    manifest = reader.manifest
    assert manifest.history is not None
    chunked = reader.lookup(b"one/files/chunked")
    assert chunked is not None
    (first_nested,) = reader.snapshot.root.nested()
    return {
        "data": (source.object_of(b"one/own"), ObjectKind.DATA),
        "chunk": (chunked.chunks[0].content, ObjectKind.CHUNK),
        "nested catalog": (first_nested.content, ObjectKind.CATALOG),
        "root catalog": (manifest.root, ObjectKind.CATALOG),
        "history": (manifest.history, ObjectKind.HISTORY),
        "certificate": (manifest.certificate, ObjectKind.CERTIFICATE),
    }[kind]


@pytest.mark.parametrize("kind", KINDS)
async def test_other_bytes_than_the_hash_says(source: Source, kind: str) -> None:
    content, letter = an_object(source, kind)
    data = source.store.contents[content, letter]
    source.server.spoil(content, letter, other_bytes(data[:-1] + bytes([data[-1] ^ 1])))
    await source.refused(RepositoryDamaged, str(content.object_path(letter)))
    assert (content, letter) not in source.replica.contents


@pytest.mark.parametrize("kind", KINDS)
async def test_bytes_that_a_cache_spoilt_are_asked_for_again_past_it(source: Source, kind: str) -> None:
    content, letter = an_object(source, kind)
    data = source.store.contents[content, letter]

    async def cached(request: web.Request) -> web.StreamResponse:
        return web.Response(body=data if request.headers.get("Cache-Control") == "no-cache" else b"spoilt")

    source.server.spoil(content, letter, cached)
    await pull(source.server.url, source.replica, source.spool)
    assert replica_problems(source.replica, source.spool) == []


@pytest.mark.parametrize("kind", KINDS)
async def test_a_body_without_end(source: Source, kind: str) -> None:
    content, letter = an_object(source, kind)
    sent: list[int] = []
    source.server.spoil(content, letter, endless(sent))
    limits = replace(LIMITS, history_bytes=1 << 20, catalog_bytes=4 << 20)
    await source.refused(RepositoryDamaged, "more than the .* bytes", limits=limits)
    assert sum(sent) < 16 << 20


@pytest.mark.parametrize("name", [".cvmfspublished", ".cvmfswhitelist", ".cvmfs_master_replica"])
async def test_a_named_file_without_end(source: Source, name: str) -> None:
    sent: list[int] = []
    source.server.faults[name] = endless(sent)
    await source.refused(RepositoryDamaged, "more than the .* bytes")
    assert sum(sent) < 16 << 20


@pytest.mark.parametrize("kind", KINDS)
async def test_an_object_that_is_not_there(source: Source, kind: str) -> None:
    content, letter = an_object(source, kind)
    source.server.spoil(content, letter, status(404))
    await source.refused(RepositoryDamaged, "missing at the source")


async def test_a_server_that_says_nothing(source: Source) -> None:
    limits = replace(
        LIMITS, http=HttpLimits(connections=4, connect_seconds=0.1, silence_seconds=0.1, slowest_rate=1 << 30, attempts=QUICK)
    )
    source.server.spoil(*an_object(source, "data"), silent(5))
    await source.refused(Unavailable, "no answer in time", limits=limits)


@pytest.mark.parametrize(("kind", "spooled_above"), [*((kind, 1 << 20) for kind in KINDS), ("data", 100)])
async def test_a_body_that_crawls(source: Source, kind: str, spooled_above: int) -> None:
    """Never silent, but never done: a byte each few milliseconds of what would take longer than anything may."""

    async def crawl(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "50000"})
        await response.prepare(request)
        while True:
            await response.write(b"x")
            await asyncio.sleep(0.02)

    content, letter = an_object(source, kind)
    source.server.spoil(content, letter, crawl)
    twice = replace(QUICK, attempts=2)
    patience = HttpLimits(connections=4, connect_seconds=0.1, silence_seconds=0.1, slowest_rate=1 << 24, attempts=twice)
    limits = replace(LIMITS, http=patience, spooled_above=spooled_above, history_bytes=1 << 20, catalog_bytes=1 << 20)
    await source.refused(Unavailable, "crawls", limits=limits)
    assert source.server.requests[content.object_path(letter)] <= twice.attempts


@pytest.mark.parametrize("kind", KINDS)
async def test_an_object_that_is_elsewhere(source: Source, kind: str) -> None:
    content, letter = an_object(source, kind)
    source.server.spoil(content, letter, status(302, Location="http://169.254.169.254/latest"))
    await source.refused(Unavailable, "redirects to 'http://169.254.169.254/latest'")


@pytest.mark.parametrize("kind", KINDS)
async def test_an_answer_that_would_expand(source: Source, kind: str) -> None:
    """A server that compresses on its own makes other bytes; they are not unpacked."""
    content, letter = an_object(source, kind)
    sent = gzip.compress(source.store.contents[content, letter])

    async def compressed(request: web.Request) -> web.StreamResponse:
        return web.Response(body=sent, headers={"Content-Encoding": "gzip"})

    source.server.spoil(content, letter, compressed)
    await source.refused(RepositoryDamaged, "their hash differs")


async def test_a_server_that_is_not_there(source: Source) -> None:
    with pytest.raises(Unavailable, match="no connection"):
        await pull("http://127.0.0.1:1/cvmfs/" + FQRN, source.replica, source.spool)


async def test_a_server_that_sends_elsewhere(source: Source) -> None:
    source.server.faults[".cvmfspublished"] = status(302, Location="http://169.254.169.254/")
    await source.refused(Unavailable, "redirects to 'http://169.254.169.254/'")


@pytest.mark.parametrize(
    "url", ["ftp://x/y", "file:///etc", "http://", "http://user:secret@host/cvmfs/x", "http://h/x?y", "[", "x"]
)
async def test_addresses_that_are_none(source: Source, url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        await pull(url, source.replica, source.spool)
    assert "secret" not in str(caught.value)


async def test_no_permission(source: Source) -> None:
    del source.store.files[".cvmfs_master_replica"]
    await source.refused(Denied, "may not be replicated")


async def test_no_repository(source: Source) -> None:
    source.server.faults[".cvmfspublished"] = status(404)
    with pytest.raises(NotFound):
        await pull(source.server.url, source.replica, source.spool)


async def test_another_repository(source: Source, tmp_path: Path) -> None:
    _, other = new_repository(tmp_path / "other", fqrn="other.example.org")
    source.server.source = other
    await source.refused(Untrusted, "of the repository other.example.org, not layers.example.org")


async def test_a_replica_of_another_repository_is_not_touched(source: Source, tmp_path: Path) -> None:
    _, source.replica = new_repository(tmp_path / "other", fqrn="other.example.org")
    before = dict(source.replica.files)
    await source.refused(Untrusted, "of the repository other.example.org")
    assert source.replica.files == before


async def test_another_master_key(source: Source, tmp_path: Path) -> None:
    keys = keys_of("mallory.example.org")
    source.store.files[".cvmfswhitelist"] = replace(keys, fqrn=FQRN).sign_whitelist(source.repository.whitelist().issued)
    await source.refused(Untrusted, "not signed by the master key")


async def test_an_expired_whitelist(source: Source) -> None:
    await source.refused(Untrusted, "expired", clock=Clock(1_800_000_000.0 + 31 * 86_400))


async def test_a_manifest_that_was_changed(source: Source) -> None:
    data = source.store.files[".cvmfspublished"]
    source.store.files[".cvmfspublished"] = data.replace(b"S2\n", b"S3\n")
    await source.refused(RepositoryDamaged, "not what its own hash line says")


async def test_an_older_revision(source: Source) -> None:
    old = source.store.files[".cvmfspublished"]
    publish(source.repository, b"two")
    await pull(source.server.url, source.replica, source.spool)
    source.store.files[".cvmfspublished"] = old
    await source.refused(Untrusted, "shows revision 2 .* has 3: an old copy, or an attack")
    result = await pull(source.server.url, source.replica, source.spool, allow_older=True)
    assert (result.manifest.revision, result.changed) == (2, True)
    assert replica_problems(source.replica, source.spool) == []


async def test_another_revision_of_the_same_number(source: Source, tmp_path: Path) -> None:
    await pull(source.server.url, source.replica, source.spool)
    again, store = new_repository(tmp_path / "again")
    publish(again, b"another")
    source.server.source = store
    await source.refused(Untrusted, "another revision 2")


TRICKS = ["/../../etc", "/one/../two", "one", "//one", "/one/", "", "/", "/one\0two", "/" + "x" * 300, "/x" * 2500]


@pytest.mark.parametrize("path", TRICKS)
async def test_tricks_in_paths_of_nested_catalogs(source: Source, path: str) -> None:
    quoted = path.replace("\0", "' || char(0) || '")
    tamper(source.repository, b"", f"UPDATE nested_catalogs SET path = '{quoted}'")
    await source.refused(RepositoryDamaged, "which is not below it")


async def test_a_nested_catalog_of_another_place(source: Source) -> None:
    tamper(source.repository, b"", "UPDATE nested_catalogs SET path = '/two'")
    await source.refused(RepositoryDamaged, "says that it belongs to /one|another path")


async def test_a_nested_catalog_that_leads_back(source: Source) -> None:
    """The hash of a catalog cannot stand in itself, but it can stand in another one at a path where it does not belong."""
    root = source.repository.manifest().root
    tamper(source.repository, b"/one", f"UPDATE nested_catalogs SET path = '/one/files', sha1 = '{root}', size = 0")
    await source.refused(RepositoryDamaged, "says that it belongs to /|another path")


BROKEN = {
    "hash of a file": "UPDATE catalog SET hash = x'0102' WHERE hash IS NOT NULL",
    "text as hash": "UPDATE catalog SET hash = '01234567890123456789' WHERE hash IS NOT NULL",
    "size of a file": "UPDATE catalog SET size = -1 WHERE hash IS NOT NULL",
    "text as size": "UPDATE catalog SET size = 'many' WHERE hash IS NOT NULL",
    "algorithm": "UPDATE catalog SET flags = flags | 0x700",
    "hash of a chunk": "UPDATE chunks SET hash = NULL",
    "hash of a nested catalog": "UPDATE nested_catalogs SET sha1 = '../../../etc/passwd'",
    "size of a nested catalog": "UPDATE nested_catalogs SET size = 17",
    "negative size of a nested catalog": "UPDATE nested_catalogs SET size = -17",
    "no chunks table": "DROP TABLE chunks",
    "a view in place of a table": "DROP TABLE chunks; CREATE VIEW chunks AS SELECT * FROM catalog",
    "previous revision of a nested root": "INSERT OR REPLACE INTO properties VALUES ('previous_revision', 'x')",
}


@pytest.mark.parametrize("what", BROKEN)
async def test_catalogs_that_are_broken_inside(source: Source, what: str) -> None:
    tamper(source.repository, b"" if "nested" in what else b"/one", BROKEN[what])
    await source.refused(RepositoryDamaged, "catalog", extent=Extent.CURRENT)


@pytest.mark.parametrize("data", [b"", b"no database", b"SQLite format 3\0" + bytes(5000)])
async def test_catalogs_that_are_no_databases(source: Source, data: bytes) -> None:
    source.publish_catalog(data)
    await source.refused(RepositoryDamaged, "catalog")


@pytest.mark.parametrize("cut", [0, 1, 2, 10])
async def test_catalogs_that_are_no_zlib_streams(source: Source, cut: int) -> None:
    source.publish_catalog(b"x" * 1000, stored=zlib.compress(b"x" * 1000)[:cut])
    await source.refused(RepositoryDamaged, "zlib")


async def test_a_catalog_that_expands_without_end(source: Source) -> None:
    """A quarter of a megabyte that would be a quarter of a gigabyte; the manifest states no size."""
    squeezer = zlib.compressobj(1)
    bomb = squeezer.compress(bytes(256 << 20)) + squeezer.flush()
    source.publish_catalog(b"", stored=bomb)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    limits = replace(LIMITS, catalog_bytes=8 << 20)
    await source.refused(RepositoryDamaged, "larger than the 8388608 bytes", limits=limits)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


def catalog(statements: str) -> bytes:
    connection = schema.create(schema.CATALOG)
    connection.executescript(statements)
    return connection.serialize()


async def test_a_catalog_with_a_hundred_thousand_nested_ones(source: Source) -> None:
    """They are not there; but they are not all asked for, and not all remembered."""
    data = catalog(
        "BEGIN; WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) "
        "INSERT INTO nested_catalogs SELECT '/' || i, printf('%040x', i), 1000 FROM n; COMMIT"
    )
    source.publish_catalog(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await source.refused(RepositoryDamaged, "missing at the source")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10
    assert source.server.objects_served < 200


async def test_rows_that_multiply(source: Source) -> None:
    """Without the primary key, each chunk can belong to each file: ten thousand rows make 25 million objects to look for."""
    data = catalog(
        "DROP TABLE catalog; CREATE TABLE catalog (md5path_1, md5path_2, hash, flags, size); "
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) "
        "INSERT INTO catalog SELECT 1, 1, NULL, 4, 1 FROM n; "
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) "
        "INSERT INTO chunks SELECT 1, 1, i, 1, randomblob(20) FROM n;"
    )
    source.publish_catalog(data)
    await source.refused(RepositoryDamaged, "malicious")


PROGRAMS = {
    "view": "DROP TABLE nested_catalogs; CREATE VIEW nested_catalogs (path, sha1, size) AS "
    "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT '/' || i, printf('%040x', i), 0 FROM n",
    "computed column": "DROP TABLE chunks; CREATE TABLE chunks (md5path_1, md5path_2, size, offset, "
    "hash AS (zeroblob(1000000000)))",
    "trigger": "CREATE TRIGGER t AFTER INSERT ON catalog BEGIN SELECT 1; END",
    "virtual table": "CREATE VIRTUAL TABLE v USING fts5(x)",
}


@pytest.mark.parametrize("program", PROGRAMS)
async def test_catalogs_that_compute(source: Source, program: str) -> None:
    source.publish_catalog(catalog(PROGRAMS[program]))
    await source.refused(RepositoryDamaged, "more than plain tables")


async def test_catalogs_nested_without_end(source: Source) -> None:
    limits = replace(LIMITS, depth=1)
    await source.refused(RepositoryDamaged, "nested deeper than 1", limits=limits)


async def test_a_history_that_is_broken(source: Source) -> None:
    base = source.repository.manifest()
    stored = zlib.compress(b"no database" * 500)
    content = ContentHash.of(stored)
    source.store.put(content, ObjectKind.HISTORY, stored)
    stamp = Stamp(base.revision + 1, base.timestamp)
    root = NewRoot(base.root, base.catalog_size or 0, stamp, content)
    source.repository.publish(root, source.repository.reflog(), base)
    await source.refused(RepositoryDamaged, "history")


def test_limits_that_allow_nothing() -> None:
    changes: list[Callable[[], object]] = [
        lambda: ReplicationLimits(threads=0),
        lambda: ReplicationLimits(depth=0),
        lambda: ReplicationLimits(spooled_above=2 << 30),
        lambda: HttpLimits(connections=0),
    ]
    for change in changes:
        with pytest.raises(InvalidInput):
            change()


def test_the_database_library_can_do_what_is_relied_on() -> None:
    """Computed columns and table-valued pragmas, for the test above to mean something."""
    assert sqlite3.sqlite_version_info >= (3, 37)
