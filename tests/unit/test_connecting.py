"""What people read when there is no connection."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import aiohttp
import pytest
from click.testing import CliRunner

from mirror.cli import main
from mirror.connecting import trouble
from mirror.tls import ServerCertificate
from tests.support.certificates import issue


async def why(url: str) -> str:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientError) as caught:
            await session.get(url)
    return trouble(caught.value)


async def test_a_port_where_nobody_listens() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        assert await why(f"http://{address}/") == f"{address}: Connection refused"


async def test_a_certificate_of_an_authority_that_is_not_known(tmp_path: Path) -> None:
    context = ServerCertificate(*issue(tmp_path, "mirror.example.org")).context
    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context) as server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        found = await why(f"https://{address}/")
        assert found.startswith(f"the certificate of {address} is not trusted: self")
        asked = await asyncio.to_thread(CliRunner().invoke, main, ["where", "--server", f"https://{address}", "debian"])
    assert asked.exit_code == 1
    assert "SSL_CERT_FILE" in asked.stderr


def test_what_has_no_words_is_called_by_its_kind() -> None:
    assert trouble(TimeoutError()) == "TimeoutError"
