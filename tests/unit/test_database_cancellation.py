"""Tasks that are cancelled while they talk to the state database, as all are when a server stops."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from sqlalchemy import text

from mirror.state.engine import Database, DatabaseSettings, sqlite_url


async def _ask(database: Database) -> None:
    async with database.read() as connection:
        await connection.execute(text("SELECT 1"))


@pytest.mark.parametrize("turns", range(8))
def test_no_connection_outlives_the_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turns: int) -> None:
    failures: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", failures.append)

    async def stop_in_the_middle() -> None:
        database = Database(DatabaseSettings(sqlite_url(tmp_path / "state.sqlite")))
        asking = [asyncio.create_task(_ask(database)) for _ in range(3)]
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        await database.close()

    threads = set(threading.enumerate())
    for _ in range(10):
        asyncio.run(stop_in_the_middle())
    for thread in set(threading.enumerate()) - threads:
        thread.join(10)
        assert not thread.is_alive()
    assert not failures
