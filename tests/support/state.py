"""What tests of the state need: databases, a clock that they turn, short names for digests and images."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from mirror.errors import Unavailable
from mirror.jobs.model import PublishRequest
from mirror.oci.digest import Digest
from mirror.oci.reference import ImageReference
from mirror.state.engine import Database, sqlite_url

POSTGRESQL_URL = os.environ.get("DEBARK_TEST_POSTGRESQL_URL")
"""A database whose schema `public` the tests may drop, such as postgresql+asyncpg://debark@127.0.0.1/debark_test."""

DIALECTS = ("sqlite", "postgresql") if POSTGRESQL_URL else ("sqlite",)


async def empty_database_url(dialect: str, directory: Path) -> str:
    """The URL of a database without any table: a new file in the directory, or the server's, emptied."""
    if dialect == "sqlite":
        return sqlite_url(directory / "state.sqlite")
    assert POSTGRESQL_URL is not None
    engine = create_async_engine(POSTGRESQL_URL, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text("DROP SCHEMA public CASCADE"))
        await connection.execute(text("CREATE SCHEMA public"))
    await engine.dispose()
    return POSTGRESQL_URL


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class SwitchedDatabase(Database):
    """A database that can be away."""

    away = False
    uses = 0

    @contextlib.asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        self._use()
        async with super().read() as connection:
            yield connection

    @contextlib.asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        self._use()
        async with super().write() as connection:
            yield connection

    def _use(self) -> None:
        self.uses += 1
        if self.away:
            raise Unavailable("state database is away for a test")


async def python_process(code: str, *arguments: str) -> asyncio.subprocess.Process:
    """A process that runs this code, with pipes to and from it; warnings are errors there too."""
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-W", "error", "-c", code, *arguments)
    return await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)


def digest_of(text: str) -> Digest:
    """A digest that stands for the thing of this name."""
    return Digest.of(text.encode())


def request_for(image: str, manifest: str, target: str | None = None) -> PublishRequest:
    """A request to publish the manifest (by name, see `digest_of`) as this image; the target is the manifest, or an index."""
    return PublishRequest(ImageReference.parse(image), digest_of(target or manifest), digest_of(manifest))
