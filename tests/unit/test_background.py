"""Tasks that run as long as the process."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from mirror.background import running
from mirror.errors import Unavailable


@pytest.mark.parametrize(
    ("error", "level", "has_trace"),
    [(Unavailable("the disk is full"), "warning", False), (RuntimeError("a bug"), "error", True)],
)
async def test_what_fails_is_reported_and_started_again(error: Exception, level: str, *, has_trace: bool) -> None:
    runs = 0
    again = asyncio.Event()

    async def work() -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise error
        again.set()
        await asyncio.Event().wait()

    with capture_logs() as logs:
        async with running("work", work, pause=0.01), asyncio.timeout(5):
            await again.wait()
    reports = [entry for entry in logs if entry["event"] == "background_task_failed"]
    assert [(entry["log_level"], "exc_info" in entry) for entry in reports] == [(level, has_trace)]
