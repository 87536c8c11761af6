"""`debark where` for scripts: one line on standard output, an exit code that tells what to do, and patience."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from click.testing import CliRunner, Result

from mirror import where as command
from mirror.cli import main

PATH = "/cvmfs/unpacked-1.debark.local/hub.test/app:1"
ANSWER = {"image": "hub.test/app:1", "reason": None, "path": None, "next_try": None}
NOT_PULLED = (404, {"errors": [{"code": "NAME_UNKNOWN", "message": "not pulled yet"}]})
AWAY = (503, {"errors": [{"code": "UNAVAILABLE", "message": "away"}]})
PUBLISHED = (200, {**ANSWER, "state": "published", "path": PATH})


def image(state: str, **values: Any) -> tuple[int, Any]:
    return 200, {**ANSWER, "state": state, **values}


@dataclass
class Scripted:
    """Gives its answers in order, and the last one for ever."""

    answers: list[tuple[int, Any]]
    url: str = ""
    asked: list[str] = field(default_factory=list)
    platforms: list[str] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        self.asked.append(request.query.get("ref", ""))
        self.platforms.append(request.query.get("platform", ""))
        status, document = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return web.json_response(document, status=status)

    async def where(self, *arguments: str) -> Result:
        command_line = ["where", "--server", self.url, *arguments, "docker://hub.test/app:1"]
        return await asyncio.to_thread(CliRunner().invoke, main, command_line)


@asynccontextmanager
async def mirror(*answers: tuple[int, Any]) -> AsyncIterator[Scripted]:
    scripted = Scripted(list(answers))
    app = web.Application()
    app.router.add_get("/_debark/v1/images", scripted.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    scripted.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    yield scripted
    await runner.cleanup()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_POLL_SECONDS", 0.01)


@pytest.mark.parametrize(
    ("answer", "code", "shown"),
    [
        (PUBLISHED, 0, PATH),
        (image("queued"), 3, "hub.test/app:1 queued"),
        (image("failed", reason="the hub is away", next_try=5.0), 4, "hub.test/app:1 failed: the hub is away"),
        (image("refused", reason="private"), 4, "hub.test/app:1 refused: private"),
        (image("not-an-image", reason="it is a chart"), 4, "hub.test/app:1 not-an-image: it is a chart"),
        (NOT_PULLED, 5, ""),
        ((400, {"errors": [{"message": "no name"}]}), 2, ""),
        (AWAY, 1, ""),
        ((404, {"detail": "another server"}), 1, ""),
        ((200, ["another server"]), 1, ""),
    ],
)
async def test_one_answer_one_line_one_exit_code(answer: tuple[int, Any], code: int, shown: str) -> None:
    async with mirror(answer) as scripted:
        result = await scripted.where()
    assert (result.exit_code, result.stdout.strip()) == (code, shown)
    assert bool(result.stderr) == (not shown)
    assert scripted.asked == ["docker://hub.test/app:1"]


async def test_waiting_goes_on_until_it_is_published_also_while_the_mirror_is_started_again() -> None:
    async with mirror(NOT_PULLED, image("queued"), AWAY, image("failed", next_try=5.0), PUBLISHED) as scripted:
        result = await scripted.where("--wait")
    assert (result.exit_code, result.stdout.strip()) == (0, PATH)
    assert len(scripted.asked) == 5


@pytest.mark.parametrize(
    ("answers", "code"),
    [
        ([image("queued"), image("refused", reason="private")], 4),
        ([NOT_PULLED, image("not-an-image", reason="it is a chart")], 4),
        ([image("queued"), image("failed", reason="gave up")], 4),
        ([AWAY], 1),  # It never was there: a wrong address, most likely.
        ([(400, {"errors": [{"message": "no upstream"}]})], 2),
    ],
)
async def test_waiting_ends_where_nothing_more_will_come(answers: list[tuple[int, Any]], code: int) -> None:
    async with mirror(*answers) as scripted:
        result = await scripted.where("--wait", "--timeout", "20")
    assert result.exit_code == code
    assert len(scripted.asked) == len(answers)


async def test_patience_has_an_end() -> None:
    async with mirror(image("queued")) as scripted:
        assert (await scripted.where("--wait", "--timeout", "0.1")).exit_code == 3


async def test_the_platform_is_the_mirrors_to_understand() -> None:
    async with mirror(PUBLISHED) as scripted:
        await scripted.where("--platform", "aarch64")
        await scripted.where()
    assert scripted.platforms == ["aarch64", ""]


async def test_nobody_there() -> None:
    result = await asyncio.to_thread(CliRunner().invoke, main, ["where", "--server", "http://127.0.0.1:1", "hub.test/app:1"])
    assert result.exit_code == 1
    assert "--server" in result.stderr


async def test_what_was_left_out_is_told_beside_the_path() -> None:
    async with mirror((200, {**PUBLISHED[1], "notes": {"devices_dropped": 3}})) as scripted:
        told = await scripted.where("-v")
        assert (told.stdout, told.stderr) == (f"{PATH}\n", "3 device nodes left out\n")
        assert (await scripted.where()).stderr == ""
