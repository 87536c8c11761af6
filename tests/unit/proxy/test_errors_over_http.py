"""What handlers raise, as clients see it."""

from __future__ import annotations

import json

import pytest
from aiohttp import ClientSession, web

from mirror.errors import Denied, IntegrityError, InvalidInput, MirrorError, NotFound, StorageFull, Unavailable
from mirror.proxy.errors import answer_errors


async def answer_to(error: Exception) -> tuple[int, str | None, bytes]:
    """Status, Retry-After and body."""

    async def fail(_request: web.Request) -> web.Response:
        raise error

    app = web.Application(middlewares=[web.middleware(answer_errors)])
    app.router.add_get("/", fail)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with ClientSession() as session, session.get(f"http://127.0.0.1:{runner.addresses[0][1]}/") as response:
            return response.status, response.headers.get("Retry-After"), await response.read()
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [
        (InvalidInput("no name"), 400, None),
        (NotFound("not there"), 404, None),
        (Denied("not yours"), 403, None),
        (Unavailable("away"), 503, "1"),
        (Unavailable("away", 0.2), 503, "1"),
        (Unavailable("away", 86_400), 503, "86400"),
        (StorageFull("full"), 503, "1"),
        (IntegrityError("wrong"), 502, None),
        (MirrorError("odd"), 500, None),
    ],
    ids=repr,
)
async def test_each_expected_failure_has_its_status_and_its_words(
    error: MirrorError, status: int, retry_after: str | None
) -> None:
    found = await answer_to(error)
    assert found[:2] == (status, retry_after)
    assert json.loads(found[2])["errors"][0]["message"] == str(error)


async def test_a_bug_tells_strangers_nothing() -> None:
    status, _, body = await answer_to(RuntimeError("/home/secret/path and password"))
    assert status == 500
    assert json.loads(body)["errors"][0]["code"] == "UNKNOWN"
    assert b"secret" not in body


async def test_other_failures_of_the_server_stay_what_they_are() -> None:
    status, _, _ = await answer_to(web.HTTPRequestEntityTooLarge(1, 2))
    assert status == 413
