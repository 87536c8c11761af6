"""Databases for the contract of the state: SQLite always, PostgreSQL when DEBARK_TEST_POSTGRESQL_URL names one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.state.engine import DatabaseSettings
from mirror.state.migrate import migrate
from tests.support.state import DIALECTS, Clock, SwitchedDatabase, empty_database_url


@pytest.fixture(params=DIALECTS)
async def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without tables."""
    return await empty_database_url(request.param, tmp_path)


@pytest.fixture
async def database(empty_url: str) -> AsyncIterator[SwitchedDatabase]:
    """A migrated database."""
    database = SwitchedDatabase(DatabaseSettings(empty_url))
    await migrate(database)
    yield database
    await database.close()


@pytest.fixture
def clock() -> Clock:
    """A clock that the test turns."""
    return Clock()
