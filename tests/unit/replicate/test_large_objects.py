"""Objects too large for memory: through a file, gone on with where a transfer broke, also by the next replication."""

from __future__ import annotations

import hashlib
import resource
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from mirror.errors import Unavailable
from publisher.cvmfs.entry import Compression
from publisher.cvmfs.hash import ContentHash, ContentHasher, HashAlgorithm, ObjectKind
from publisher.objects.local import LocalObjectStore
from publisher.repository import Repository
from publisher.transaction import Transaction
from tests.support.replicas import LIMITS, publish_object, pull, replica_problems
from tests.support.repositories import FQRN, new_repository
from tests.support.repository_server import RepositoryServer, cut_after, other_bytes, status
from tests.support.sample_tree import directory, regular

MIB = 1 << 20
DATA = hashlib.shake_128(b"large").digest(6 * MIB)
CONTENT = ContentHash.of(DATA)
LARGE = replace(LIMITS, spooled_above=MIB)


class Breaking:
    """Serves an object in parts, and breaks each answer after some bytes."""

    def __init__(self, data: bytes, *, after: int, breaks: int, **headers: str) -> None:
        self.data = data
        self.after = after
        self.breaks = breaks
        self.headers = headers
        self.asked: list[tuple[str | None, str | None]] = []
        self.sent = 0

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.headers.get("Range"), request.headers.get("If-Range")))
        offset = self.offset(request)
        rest = self.data[offset:]
        headers = {**self.headers, "Content-Length": str(len(rest))}
        if offset:
            headers["Content-Range"] = f"bytes {offset}-{len(self.data) - 1}/{len(self.data)}"
        response = web.StreamResponse(status=206 if offset else 200, headers=headers)
        await response.prepare(request)
        self.breaks -= 1
        part = rest if self.breaks < 0 else rest[: self.after]
        self.sent += len(part)
        await response.write(part)
        if self.breaks >= 0:
            assert request.transport is not None
            request.transport.close()
        return response

    def offset(self, request: web.Request) -> int:
        text = request.headers.get("Range")
        wanted = request.headers.get("If-Range")
        if text is None or wanted not in {None, self.headers.get("ETag"), self.headers.get("Last-Modified")}:
            return 0
        return int(text.removeprefix("bytes=").removesuffix("-"))


class Source:
    def __init__(self, server: RepositoryServer, repository: Repository, place: Path) -> None:
        self.server = server
        self.repository = repository
        self.store = LocalObjectStore(place / "replica")
        self.spool = place / "replica-spool"

    @property
    def left(self) -> list[Path]:
        return sorted((self.spool / "incoming").iterdir())

    async def pull(self) -> None:
        await pull(self.server.url, self.store, self.spool, limits=LARGE)

    def assert_complete(self) -> None:
        assert replica_problems(self.store, self.spool) == []
        assert self.left == []


@pytest.fixture
async def source(tmp_path: Path) -> AsyncIterator[Source]:
    repository, store = new_repository(tmp_path)
    store.put(CONTENT, ObjectKind.DATA, DATA)
    publish_object(repository, CONTENT, len(DATA))
    async with RepositoryServer(store, FQRN).running() as server:
        yield Source(server, repository, tmp_path)


VALIDATORS = {
    "strong ETag": ({"ETag": '"one"', "Last-Modified": "Mon, 23 Nov 2026 07:00:00 GMT"}, '"one"'),
    "weak ETag": (
        {
            "ETag": 'W/"one"',
            "Last-Modified": "Mon, 23 Nov 2026 07:00:00 GMT",
            "Date": "Mon, 23 Nov 2026 08:00:00 GMT",
        },
        "Mon, 23 Nov 2026 07:00:00 GMT",
    ),
    "a date that says nothing yet": (
        {"Last-Modified": "Mon, 23 Nov 2026 07:00:00 GMT", "Date": "Mon, 23 Nov 2026 07:00:00 GMT"},
        None,
    ),
    "nothing": ({}, None),
}


@pytest.mark.parametrize("what", VALIDATORS)
async def test_a_broken_transfer_goes_on_where_it_was(source: Source, what: str) -> None:
    headers, if_range = VALIDATORS[what]
    server = Breaking(DATA, after=2 * MIB, breaks=2, **headers)
    source.server.spoil(CONTENT, ObjectKind.DATA, server)
    await source.pull()
    source.assert_complete()
    assert server.sent <= len(DATA) + MIB
    assert [asked is not None for asked, _ in server.asked] == [False, True, True]
    assert {condition for _, condition in server.asked[1:]} == {if_range}


async def test_tries_are_counted_from_the_last_that_got_on(source: Source) -> None:
    """Three are allowed; it breaks five times."""
    source.server.spoil(CONTENT, ObjectKind.DATA, Breaking(DATA, after=1_200_000, breaks=4, ETag='"one"'))
    await source.pull()
    source.assert_complete()


async def test_a_transfer_that_does_not_get_on_is_given_up(source: Source) -> None:
    server = Breaking(DATA, after=1000, breaks=1000, ETag='"one"')
    source.server.spoil(CONTENT, ObjectKind.DATA, server)
    with pytest.raises(Unavailable):
        await source.pull()
    assert len(server.asked) == 3


async def test_another_version_is_taken_from_its_beginning(source: Source) -> None:
    """A server behind the same name has another validator, so it sends everything."""
    server = Breaking(DATA, after=2 * MIB, breaks=1, ETag='"one"')

    async def changing(request: web.Request) -> web.StreamResponse:
        answer = await server(request)
        server.headers["ETag"] = '"two"'
        return answer

    source.server.spoil(CONTENT, ObjectKind.DATA, changing)
    await source.pull()
    source.assert_complete()
    assert server.sent > len(DATA) + MIB


@pytest.mark.parametrize("answer", [200, 206, 416])
async def test_servers_that_serve_no_parts(source: Source, answer: int) -> None:
    broken = False

    async def misunderstanding(request: web.Request) -> web.StreamResponse:
        nonlocal broken
        if not broken:
            broken = True
            return await cut_after(DATA, 2 * MIB)(request)
        if "Range" in request.headers and answer != 200:
            return web.Response(status=answer, body=b"nonsense", headers={"Content-Range": "bytes 0-7/8"})
        return web.Response(body=DATA)

    source.server.spoil(CONTENT, ObjectKind.DATA, misunderstanding)
    await source.pull()
    source.assert_complete()


async def test_the_next_replication_goes_on_with_the_transfer(source: Source) -> None:
    server = Breaking(DATA, after=3 * MIB, breaks=1, ETag='"one"')

    async def down(request: web.Request) -> web.StreamResponse:
        return await (server if not server.asked else status(503))(request)

    source.server.spoil(CONTENT, ObjectKind.DATA, down)
    with pytest.raises(Unavailable, match="503"):
        await source.pull()
    assert len(source.left) == 1
    source.server.spoil(CONTENT, ObjectKind.DATA, server)
    await source.pull()
    source.assert_complete()
    assert server.sent <= len(DATA) + MIB


@pytest.mark.parametrize(
    "left", [b"torn" * 1000, DATA, DATA + b"more", b"\0" * (20 * MIB)], ids=["torn", "all", "more", "too much"]
)
async def test_what_an_earlier_replication_left_is_not_believed(source: Source, left: bytes) -> None:
    incoming = source.spool / "incoming"
    incoming.mkdir(parents=True)
    (incoming / f"{CONTENT}.part").write_bytes(left)
    (incoming / "0123C").write_bytes(b"a catalog")
    (incoming / f"{ContentHash.of(b'unwanted')}.part").write_bytes(b"of a revision that is gone")
    source.server.spoil(CONTENT, ObjectKind.DATA, Breaking(DATA, after=0, breaks=0))
    await source.pull()
    source.assert_complete()


async def test_wrong_bytes_leave_nothing_behind(source: Source) -> None:
    source.server.spoil(CONTENT, ObjectKind.DATA, other_bytes(DATA[:-1] + b"?"))
    with pytest.raises(Exception, match="their hash differs"):
        await source.pull()
    assert source.left == []
    assert not source.store.contains(CONTENT, ObjectKind.DATA)


async def test_memory_does_not_grow_with_objects(tmp_path: Path) -> None:
    """Eight objects of 32 MiB at once."""
    size, piece = 32 * MIB, bytes(MIB)
    repository, store = new_repository(tmp_path)
    tree = directory()
    faults = {}
    for number in range(8):
        hasher = ContentHasher(HashAlgorithm.SHA1)
        for part in range(size // MIB):
            hasher.update(piece if part else bytes([number]) * MIB)
        content = hasher.result()

        async def send(request: web.Request, number: int = number) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Length": str(size)})
            await response.prepare(request)
            for part in range(size // MIB):
                await response.write(piece if part else bytes([number]) * MIB)
            return response

        faults[content.object_path(ObjectKind.DATA)] = send
        entry = replace(regular(store, b"x"), size=size, content=content, compression=Compression.NONE)
        tree.children[b"%d" % number] = entry
    with Transaction(repository) as transaction:
        transaction.graft(b"files", tree)
        transaction.commit()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with RepositoryServer(store, FQRN).running() as server:
        server.faults.update(faults)
        await pull(server.url, LocalObjectStore(tmp_path / "replica"), tmp_path / "replica-spool")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10
