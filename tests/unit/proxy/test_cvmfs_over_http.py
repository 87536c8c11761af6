"""The repositories as a CVMFS client, a squid and an attacker ask for them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiohttp import web

from mirror.proxy.cvmfs_files import CvmfsFiles
from mirror.proxy.errors import answer_errors
from tests.support.mirror_server import MirrorServer

FQRN = "unpacked-1.debark.local"
OBJECT = f"data/ab/{'0' * 38}C"


@pytest.fixture
def repository(mirror: MirrorServer) -> Path:
    root = mirror.data / "cvmfs" / FQRN
    (root / "data" / "ab").mkdir(parents=True)
    (root / ".cvmfspublished").write_bytes(b"manifest")
    (root / OBJECT).write_bytes(b"catalog")
    (root / "data" / "secret").write_bytes(b"no object")
    (mirror.data / "keys").mkdir()
    (mirror.data / "keys" / ".cvmfskey").write_bytes(b"the secret half")
    return root


@pytest.mark.parametrize(
    ("path", "body", "media_type", "seconds"),
    [(".cvmfspublished", b"manifest", "application/x-cvmfs", 61), (OBJECT, b"catalog", "application/octet-stream", 259200)],
)
@pytest.mark.usefixtures("repository")
async def test_files_have_the_headers_that_caches_need(
    mirror: MirrorServer, path: str, body: bytes, media_type: str, seconds: int
) -> None:
    answer = await mirror.get(f"/cvmfs/{FQRN}/{path}")
    assert (answer.status, answer.body, answer.headers["Content-Type"]) == (200, body, media_type)
    assert answer.headers["Cache-Control"] == f"max-age={seconds}"
    head = await mirror.head(f"/cvmfs/{FQRN}/{path}")
    assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", str(len(body)))
    again = await mirror.get(f"/cvmfs/{FQRN}/{path}", If_Modified_Since=answer.headers["Last-Modified"])
    assert again.status == 304


@pytest.mark.parametrize(
    "path",
    [
        f"{FQRN}/.cvmfswhitelist",
        f"{FQRN}/data/ab/{'1' * 38}",
        f"{FQRN}/data/secret",
        f"{FQRN}/data/ab",
        f"{FQRN}/",
        "",
        f"{FQRN}/%2e%2e/{FQRN}/.cvmfspublished",
        "../keys/.cvmfskey",
        "%2e%2e/keys/.cvmfskey",
        "..%2fkeys/.cvmfskey",
        f"{FQRN}%2f..%2f..%2fkeys/.cvmfskey",
        f"{FQRN}/.cvmfspublished%00",
        f"{FQRN}/.cvmfspublished%0a",
    ],
)
@pytest.mark.usefixtures("repository")
async def test_nothing_else_is_there(mirror: MirrorServer, path: str) -> None:
    for method in ("GET", "HEAD"):
        answer = await mirror.ask(method, f"/cvmfs/{path}")
        assert answer.status == 404
        assert b"the secret half" not in answer.body


async def test_a_client_that_does_not_read_is_left(tmp_path: Path) -> None:
    (tmp_path / FQRN / "data" / "ab").mkdir(parents=True)
    (tmp_path / FQRN / OBJECT).write_bytes(bytes(60_000_000))
    app = web.Application(middlewares=[web.middleware(answer_errors)])
    ended = asyncio.Event()
    files = CvmfsFiles(tmp_path, send_seconds=0.2)

    async def get(request: web.Request) -> web.StreamResponse:
        response = await files.get(request)
        ended.set()
        return response

    app.router.add_get("/cvmfs/{fqrn}/{path:.+}", get)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    _, writer = await asyncio.open_connection("127.0.0.1", runner.addresses[0][1], limit=1024)
    writer.write(f"GET /cvmfs/{FQRN}/{OBJECT} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    async with asyncio.timeout(5):
        await ended.wait()
    writer.close()
    await runner.cleanup()
