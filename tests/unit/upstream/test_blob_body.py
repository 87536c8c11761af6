"""Large bodies, received from the connection itself, with and without TLS."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import aiohttp
import pytest

from mirror.upstream.blob_body import BUFFER_BYTES, LARGE_BYTES, body_pieces
from tests.support.certificates import issue
from tests.support.faulty_registry import until

BODY = random.Random(5).randbytes(LARGE_BYTES + 3 * BUFFER_BYTES + 1)


class Server:
    """Answers each connection's request with the first bytes of a body."""

    def __init__(self) -> None:
        self.sends = len(BODY)
        self.closes = True
        self.writers: list[asyncio.StreamWriter] = []
        self.url = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY[: self.sends])
        if self.closes:
            writer.close()


@pytest.fixture(params=["http", "https"])
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Server]:
    context = None
    if request.param == "https":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*issue(tmp_path, "hub.test"))
    served = Server()
    listening = await asyncio.start_server(served.answer, "127.0.0.1", 0, ssl=context)
    served.url = f"{request.param}://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
    yield served
    listening.close()
    for writer in served.writers:
        if not writer.is_closing():
            writer.transport.abort()
    await asyncio.sleep(0)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False)) as opened:
        yield opened


async def read(response: aiohttp.ClientResponse, body: bytearray, read_timeout: float) -> None:
    async for piece in body_pieces(response, read_timeout):
        body += piece


async def test_a_large_body_comes_whole_and_its_buffers_are_used_again(server: Server, session: aiohttp.ClientSession) -> None:
    async with session.get(server.url) as response:
        pieces = [piece async for piece in body_pieces(response, 5.0)]
    assert any(isinstance(piece, memoryview) for piece in pieces)
    for piece in pieces:
        if isinstance(piece, memoryview):
            with pytest.raises(ValueError, match="released"):
                bytes(piece)

    async with session.get(server.url) as response:
        assert b"".join([bytes(piece) async for piece in body_pieces(response, 5.0)]) == BODY
    assert len(server.writers) == 2


async def test_a_slow_reader_slows_the_sender_down(server: Server, session: aiohttp.ClientSession) -> None:
    body = bytearray()
    async with session.get(server.url) as response:
        async for piece in body_pieces(response, 0.2):
            body += piece
            await asyncio.sleep(0.03)
            assert len(piece) <= 2 * BUFFER_BYTES
    assert body == BODY


async def test_a_body_that_ends_too_early_is_an_error(server: Server, session: aiohttp.ClientSession) -> None:
    server.sends = LARGE_BYTES + 12_345
    body = bytearray()
    async with session.get(server.url) as response:
        with pytest.raises((OSError, aiohttp.ClientError)):
            await read(response, body, 5.0)
    assert body == BODY[: server.sends]


async def test_silence_has_an_end(server: Server, session: aiohttp.ClientSession) -> None:
    server.sends, server.closes = LARGE_BYTES, False
    body = bytearray()
    async with session.get(server.url) as response:
        with pytest.raises(TimeoutError):
            await read(response, body, 0.1)
    assert body == BODY[: server.sends]


async def test_who_leaves_early_lets_go_of_the_connection(server: Server, session: aiohttp.ClientSession) -> None:
    server.sends, server.closes = LARGE_BYTES, False
    async with session.get(server.url) as response, aclosing(body_pieces(response, 5.0)) as pieces:
        await anext(pieces)
        await anext(pieces)
        connection = response.connection
        assert connection is not None
        transport = connection.transport
    assert transport is not None
    await until(transport.is_closing)
    await session.close()
