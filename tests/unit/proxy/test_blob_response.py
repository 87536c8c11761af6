"""Blobs over HTTP: what a client's socket sees."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import random
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import Mock

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from mirror.errors import MirrorError
from mirror.fetch.reader import FileSpan, StoredReader
from mirror.oci.codes import Subject, code_of, error_body
from mirror.oci.digest import Digest
from mirror.proxy.blob_response import SendLimits, SentBlob, send_blob
from mirror.proxy.errors import answer_errors
from mirror.tls import ServerCertificate
from tests.support.certificates import issue
from tests.support.faulty_registry import until
from tests.support.fetching import Bench, bench

BLOB = random.Random(4).randbytes(3_000_000)
SIZE = len(BLOB)
DIGEST = Digest.of(BLOB)
HEADERS = {"Content-Type": "application/octet-stream"}


@dataclass
class Server:
    at: Bench
    url: str
    session: aiohttp.ClientSession
    sent: list[SentBlob]

    async def get(self, **headers: str) -> tuple[int, Mapping[str, str], bytes]:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.get(self.url, headers=fields, ssl=False) as response:
            return response.status, response.headers, await response.read()

    async def warm(self) -> None:
        await self.get()
        await until(lambda: self.at.store.size(DIGEST) == SIZE)


@asynccontextmanager
async def serving(root: Path, tls: ssl.SSLContext | None = None, min_free_bytes: int = 0) -> AsyncIterator[Server]:
    async with bench(root, min_free_bytes=min_free_bytes) as at, aiohttp.ClientSession() as session:
        at.hub.add_blob(BLOB)
        sent: list[SentBlob] = []

        async def handle(request: web.Request) -> web.StreamResponse:
            with at.fetch(DIGEST) as reader:
                try:
                    result = await send_blob(request, reader, DIGEST, HEADERS, SendLimits(1 << 20, slice_seconds=0.5))
                except MirrorError as error:
                    code = code_of(error, Subject.BLOB)
                    return web.Response(status=code.status, body=error_body(code, str(error)))
            sent.append(result)
            return result.response

        app = web.Application()
        app.router.add_get("/blob", handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)  # So that the kernel does not take much at a time.
        await web.SockSite(runner, listener, ssl_context=tls).start()
        url = f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}/blob"
        yield Server(at, url, session, sent)
        at.hub.release.set()
        await runner.cleanup()


@pytest.fixture(params=[{}, {"min_free_bytes": 1 << 62}], ids=["kept", "unkept"])
async def server(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Server]:
    async with serving(tmp_path, **request.param) as started:
        yield started


kept_only = pytest.mark.parametrize("server", [{}], ids=["kept"], indirect=True)


async def test_a_whole_blob(server: Server) -> None:
    for _ in range(2):
        status, headers, body = await server.get()
        assert (status, body) == (200, BLOB)
        assert headers["Content-Length"] == str(SIZE)
        assert headers["Docker-Content-Digest"] == str(DIGEST)
        assert headers["Accept-Ranges"] == "bytes"
        assert "Content-Encoding" not in headers
        if server.at.fetcher.storage_problem is None:
            await until(lambda: server.at.store.size(DIGEST) == SIZE)
    await until(lambda: len(server.sent) == 2)
    assert [(result.sent, result.is_complete) for result in server.sent] == [(SIZE, True)] * 2


async def test_the_same_over_tls(tmp_path: Path) -> None:
    certificate = ServerCertificate(*issue(tmp_path, "mirror.example.org"))
    async with serving(tmp_path, certificate.context) as server:
        assert (await server.get())[::2] == (200, BLOB)
        await until(lambda: server.at.store.size(DIGEST) == SIZE)
        assert (await server.get())[::2] == (200, BLOB)
        assert (await server.get(Range="bytes=1000000-2999998"))[::2] == (206, BLOB[1_000_000:2_999_999])


async def test_a_client_that_leaves_before_the_first_byte_is_no_failure(server: Server) -> None:
    server.at.hub.faults.before_headers = 0.2
    host, port = server.url.removeprefix("http://").removesuffix("/blob").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /blob HTTP/1.1\r\nHost: mirror\r\n\r\n")
    await writer.drain()
    writer.transport.abort()
    await until(lambda: len(server.sent) == 1)
    assert (server.sent[0].sent, server.sent[0].is_complete) == (0, False)


@pytest.mark.parametrize(
    ("asked", "start", "end"), [("bytes=1000-", 1000, SIZE), ("bytes=7-9", 7, 10), ("bytes=-5", SIZE - 5, SIZE)]
)
async def test_ranges_cold_and_warm(server: Server, asked: str, start: int, end: int) -> None:
    for _ in range(2):
        status, headers, body = await server.get(Range=asked)
        assert (status, body) == (206, BLOB[start:end])
        assert headers["Content-Range"] == f"bytes {start}-{end - 1}/{SIZE}"
        assert headers["Content-Length"] == str(end - start)
        await asyncio.sleep(0.05)


async def test_ranges_outside(server: Server) -> None:
    status, headers, body = await server.get(Range=f"bytes={SIZE}-")

    assert (status, headers["Content-Range"]) == (416, f"bytes */{SIZE}")
    assert b"RANGE_INVALID" in body
    assert headers["Content-Length"] == str(len(body))


async def test_conditions(server: Server) -> None:
    status, headers, body = await server.get(If_None_Match=f'"{DIGEST}"')
    assert (status, body) == (304, b"")
    assert headers["ETag"] == f'"{DIGEST}"'
    assert (await server.get(If_Range='"other"', Range="bytes=1-"))[0] == 200
    assert (await server.get(If_Range=f'"{DIGEST}"', Range="bytes=1-"))[0] == 206


async def test_head_has_the_length_and_no_body(server: Server) -> None:
    for method in (server.session.head, server.session.head, server.session.get):
        async with method(server.url) as response:
            assert response.status == 200
            assert response.headers["Content-Length"] == str(SIZE)
            assert len(await response.read()) == (SIZE if response.method == "GET" else 0)
    # A range is of GET only (RFC 9110, section 14.2).
    async with server.session.head(server.url, headers={"Range": "bytes=5-"}) as response:
        assert (response.status, response.headers["Content-Length"]) == (200, str(SIZE))


@kept_only
async def test_the_answer_begins_while_the_fill_goes_on(server: Server) -> None:
    server.at.hub.faults.hold_at = 500_000
    async with server.session.get(server.url) as response:
        assert response.headers["Content-Length"] == str(SIZE)
        assert await response.content.readexactly(490_000) == BLOB[:490_000]
        assert server.at.store.size(DIGEST) is None
        server.at.hub.release.set()
        assert await response.content.read() == BLOB[490_000:]


async def test_many_clients_share_a_growing_file(server: Server) -> None:
    server.at.hub.faults.between_pieces = 0.001
    answers = await asyncio.gather(*(server.get() for _ in range(12)))

    assert all((status, body) == (200, BLOB) for status, _, body in answers)
    if server.at.fetcher.storage_problem is None:
        assert server.at.hub.count("GET", "/blobs/") == 1


async def test_a_body_without_a_length_is_sent_in_chunks(server: Server) -> None:
    server.at.hub.faults.until_close = True
    status, headers, body = await server.get()

    assert (status, body) == (200, BLOB)
    assert headers["Transfer-Encoding"] == "chunked"


async def test_head_tells_the_size_though_the_upstream_does_not(server: Server) -> None:
    server.at.hub.faults.until_close = True
    async with server.session.head(server.url) as response:
        assert (response.status, response.headers["Content-Length"]) == (200, str(SIZE))
    server.at.hub.faults.wrong_content = True
    async with server.session.head(server.url) as response:
        kept = server.at.fetcher.storage_problem is None
        assert response.status == (200 if kept else 502)


@pytest.mark.parametrize("until_close", [False, True])
async def test_a_wrong_body_never_ends_as_a_complete_answer(server: Server, *, until_close: bool) -> None:
    server.at.hub.faults.wrong_content, server.at.hub.faults.until_close = True, until_close

    with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientConnectionError)):
        await server.get()
    await until(lambda: len(server.sent) == 1)
    assert not server.sent[0].is_complete
    assert server.at.store.size(DIGEST) is None


async def test_a_transfer_that_cannot_be_gone_on_with_is_reset(server: Server) -> None:
    server.at.hub.faults.cut_at, server.at.hub.faults.cuts = 1_000_000, 1000

    with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientConnectionError)):
        await server.get()


async def test_what_the_upstream_refuses_is_an_error_answer(server: Server) -> None:
    server.at.hub.faults.status = 429
    status, _, body = await server.get()

    assert status == 503
    assert b"hub.test throttles this mirror" in body


async def test_a_client_that_leaves_is_noticed_and_the_fill_goes_on(server: Server) -> None:
    server.at.hub.faults.between_pieces = 0.005
    response = await server.session.get(server.url)
    await response.content.readexactly(1000)
    response.close()

    await until(lambda: len(server.sent) == 1)
    assert not server.sent[0].is_complete
    if server.at.fetcher.storage_problem is None:
        await until(lambda: server.at.store.size(DIGEST) == SIZE)


class BreakingReader(StoredReader):
    """Gives the first bytes, then what happens to disks, or to programs."""

    def __init__(self, error: Exception, path: Path) -> None:
        super().__init__(path.open("rb"), SIZE, path)
        self._error = error

    async def spans(self, start: int = 0, end: int | None = None) -> AsyncGenerator[FileSpan | bytes, None]:  # noqa: ARG002
        yield BLOB[:1000]
        await asyncio.sleep(0.05)
        raise self._error


@pytest.mark.parametrize("error", [OSError(errno.EIO, "the disk is broken"), RuntimeError("a bug")], ids=repr)
async def test_nothing_follows_a_body_that_broke(tmp_path: Path, error: Exception) -> None:
    path = tmp_path / "blob"
    path.write_bytes(BLOB)

    async def handle(request: web.Request) -> web.StreamResponse:
        with BreakingReader(error, path) as reader:
            return (await send_blob(request, reader, DIGEST, HEADERS)).response

    app = web.Application(middlewares=[web.middleware(answer_errors)])
    app.router.add_get("/blob", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    reader, writer = await asyncio.open_connection("127.0.0.1", runner.addresses[0][1])
    writer.write(b"GET /blob HTTP/1.1\r\nHost: x\r\n\r\n")
    received = b""
    with contextlib.suppress(ConnectionResetError):
        async with asyncio.timeout(5):
            while piece := await reader.read(65536):
                received += piece
    assert received.startswith(b"HTTP/1.1 200")
    assert received.count(b"HTTP/1.1") == 1
    assert BLOB[:1000].startswith(received.partition(b"\r\n\r\n")[2])
    writer.close()
    await runner.cleanup()


@kept_only
async def test_a_client_that_does_not_read_is_left(server: Server) -> None:
    big = random.Random(5).randbytes(1 << 20) * 40
    path = server.at.store.path(DIGEST)
    path.parent.mkdir(parents=True)
    path.write_bytes(big)
    host, port = "127.0.0.1", int(server.url.split(":")[2].split("/")[0])
    reader, writer = await asyncio.open_connection(host, port, limit=1024)
    writer.write(b"GET /blob HTTP/1.1\r\nHost: x\r\n\r\n")
    await writer.drain()

    await until(lambda: len(server.sent) == 1)
    assert not server.sent[0].is_complete
    writer.close()
    assert reader is not None


async def test_a_client_of_tls_that_reads_too_slowly_is_left(tmp_path: Path) -> None:
    certificate, key = issue(tmp_path, "mirror.example.org")
    trusting = ssl.create_default_context(cafile=str(certificate))
    async with serving(tmp_path / "served", ServerCertificate(certificate, key).context) as server:
        path = server.at.store.path(DIGEST)
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes(40 << 20))
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        connection.setblocking(False)
        address = ("127.0.0.1", int(server.url.split(":")[2].split("/")[0]))
        await asyncio.get_running_loop().sock_connect(connection, address)
        reader, writer = await asyncio.open_connection(sock=connection, ssl=trusting, server_hostname="127.0.0.1", limit=1024)
        writer.write(b"GET /blob HTTP/1.1\r\nHost: x\r\n\r\n")
        while not server.sent:  # A megabyte in half a second is asked for, and a part of it always taken.
            await reader.read(1 << 14)
            await asyncio.sleep(0.02)
        writer.transport.abort()
        assert not server.sent[0].is_complete


async def test_others_have_their_turns_while_a_client_of_tls_takes_all_that_comes(tmp_path: Path) -> None:
    (path := tmp_path / "blob").write_bytes(BLOB)
    transport = Mock(**{"get_extra_info.side_effect": {"sslcontext": object()}.get})
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    others = asyncio.create_task(take_turns())
    with StoredReader(path.open("rb"), SIZE, path) as reader:
        sent = await send_blob(make_mocked_request("GET", "/blob", transport=transport), reader, DIGEST, HEADERS)
    others.cancel()
    assert sent.is_complete
    assert turns > SIZE // (64 << 10)


@kept_only
async def test_warm_blobs_touch_no_upstream(server: Server) -> None:
    await server.warm()
    await server.at.hub.kill()

    assert (await server.get())[2] == BLOB
    assert (await server.get(Range="bytes=5-8"))[2] == BLOB[5:9]
