"""A repository read over HTTP: list, read, check, and what a web server can do wrong."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mirror.errors import InvalidInput, NotFound, Unavailable
from publisher.check import check
from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.cvmfs.reader import RepositoryReader
from publisher.errors import RepositoryDamaged
from publisher.keys import load_public_key
from publisher.objects.http import HttpObjectSource
from publisher.objects.http_client import HttpLimits
from tests.support.memory_store import MemoryStore, load_directory
from tests.support.replicas import QUICK
from tests.support.repository_server import (
    RepositoryServer,
    ThreadedServer,
    cut_after,
    endless,
    first,
    silent,
    status,
    without_length,
)

GOLDEN = Path(__file__).parents[2] / "data" / "cvmfs-golden"
FQRN = "golden.example.org"
LIMITS = HttpLimits(connections=4, attempts=QUICK, object_bytes=1 << 20)
DATA = b"the stored bytes"
CONTENT = ContentHash.of(DATA)


@pytest.fixture(scope="module")
def golden() -> MemoryStore:
    return load_directory(GOLDEN / "repo")


@pytest.fixture
def server(golden: MemoryStore) -> Iterator[RepositoryServer]:
    with ThreadedServer(RepositoryServer(golden, FQRN)) as server:
        yield server


@pytest.fixture
def source(server: RepositoryServer) -> Iterator[HttpObjectSource]:
    with HttpObjectSource(server.url, LIMITS) as source:
        yield source


def test_list_read_and_check(server: RepositoryServer, source: HttpObjectSource) -> None:
    reader = RepositoryReader(source, FQRN, load_public_key((GOLDEN / "golden.example.org.pub").read_bytes()))
    assert b"hardlinks" in reader.listing()
    assert len(list(reader.walk())) > 100
    checksum = ContentHash.parse((GOLDEN / "reflog.chksum").read_text().strip())
    assert check(reader, contains=source.contains, reflog_checksum=checksum) == []
    assert check(reader, data=True, reflog_checksum=checksum) == []
    assert len(server.connections) <= LIMITS.connections


def test_connections_are_kept(server: RepositoryServer, source: HttpObjectSource) -> None:
    for _ in range(20):
        source.read_file(".cvmfspublished")
    assert len(server.connections) == 1


def test_many_threads_share_it(golden: MemoryStore, source: HttpObjectSource) -> None:
    wanted = list(golden.contents)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda key: source.get(*key), wanted))
    assert found == [golden.contents[key] for key in wanted]


def test_pieces_are_what_get_gives_whatever_the_size(server: RepositoryServer, golden: MemoryStore) -> None:
    content, kind = max(golden.contents, key=lambda key: len(golden.contents[key]))
    with HttpObjectSource(server.url, HttpLimits(attempts=QUICK, object_bytes=1000)) as source:
        assert b"".join(source.pieces(content, kind)) == golden.contents[content, kind]
        with pytest.raises(RepositoryDamaged):
            source.get(content, kind)
        with pytest.raises(NotFound):
            next(source.pieces(CONTENT, ObjectKind.DATA))


def test_what_is_not_there_is_not_found(source: HttpObjectSource) -> None:
    with pytest.raises(NotFound, match=r"data/.* does not exist"):
        source.get(CONTENT, ObjectKind.CHUNK)
    with pytest.raises(NotFound):
        source.read_file(".cvmfsnothing")
    assert not source.contains(CONTENT, ObjectKind.CHUNK)


@pytest.mark.parametrize("code", [204, 301, 307, 400, 401, 403, 410, 416, 429, 500, 502, 503])
def test_every_other_status_is_unavailable(server: RepositoryServer, source: HttpObjectSource, code: int) -> None:
    server.spoil(CONTENT, ObjectKind.DATA, status(code))
    for ask in (source.get, source.contains):
        with pytest.raises(Unavailable, match=rf"status {code}|redirects"):
            ask(CONTENT, ObjectKind.DATA)


@pytest.mark.parametrize("fault", [status(503), status(429), cut_after(DATA, 3), cut_after(DATA, 0)])
def test_what_passes_is_tried_again(server: RepositoryServer, source: HttpObjectSource, fault: object) -> None:
    server.spoil(CONTENT, ObjectKind.DATA, first(2, fault, without_length(DATA)))  # type: ignore[arg-type]
    assert source.get(CONTENT, ObjectKind.DATA) == DATA


@pytest.mark.parametrize("fault", [cut_after(DATA, 3), cut_after(DATA, 0)])
def test_a_cut_body_is_never_taken_for_a_whole_one(server: RepositoryServer, source: HttpObjectSource, fault: object) -> None:
    server.spoil(CONTENT, ObjectKind.DATA, fault)  # type: ignore[arg-type]
    with pytest.raises(Unavailable):
        source.get(CONTENT, ObjectKind.DATA)
    assert server.requests[CONTENT.object_path(ObjectKind.DATA)] >= QUICK.attempts


def test_what_does_not_pass_is_not_tried_again(server: RepositoryServer, source: HttpObjectSource) -> None:
    server.spoil(CONTENT, ObjectKind.DATA, status(403))
    with pytest.raises(Unavailable):
        source.get(CONTENT, ObjectKind.DATA)
    assert server.requests[CONTENT.object_path(ObjectKind.DATA)] == 1


def test_nothing_is_read_beyond_the_limit(server: RepositoryServer, source: HttpObjectSource) -> None:
    sent: list[int] = []
    server.spoil(CONTENT, ObjectKind.DATA, endless(sent))
    server.spoil(CONTENT, ObjectKind.CATALOG, without_length(bytes(LIMITS.object_bytes)))
    server.spoil(CONTENT, ObjectKind.CHUNK, without_length(bytes(LIMITS.object_bytes + 1)))
    with pytest.raises(RepositoryDamaged, match="more than the 1048576 bytes"):
        source.get(CONTENT, ObjectKind.DATA)
    assert sum(sent) < 16 << 20
    assert len(source.get(CONTENT, ObjectKind.CATALOG)) == LIMITS.object_bytes
    with pytest.raises(RepositoryDamaged, match="more than the"):
        source.get(CONTENT, ObjectKind.CHUNK)


def test_silence_ends(server: RepositoryServer) -> None:
    limits = HttpLimits(connect_seconds=0.1, silence_seconds=0.1, slowest_rate=1 << 40, attempts=QUICK)
    server.spoil(CONTENT, ObjectKind.DATA, silent(3))
    with HttpObjectSource(server.url, limits) as source, pytest.raises(Unavailable, match="no answer in time"):
        source.get(CONTENT, ObjectKind.DATA)


@pytest.mark.parametrize("name", ["", "..", "data/00/x", "/etc/passwd"])
def test_named_files_are_in_the_root(server: RepositoryServer, source: HttpObjectSource, name: str) -> None:
    with pytest.raises(InvalidInput):
        source.read_file(name)
    assert not server.requests


def test_it_can_be_closed_twice_and_wrong_addresses_leave_no_thread() -> None:
    source = HttpObjectSource("http://127.0.0.1:1/cvmfs/x/")
    with pytest.raises(Unavailable, match=r"http://127\.0\.0\.1:1/cvmfs/x/\.cvmfspublished"):
        source.read_file(".cvmfspublished")
    source.close()
    source.close()
    with pytest.raises(InvalidInput, match="web address"):
        HttpObjectSource("/srv/cvmfs/x")
