"""The one way to the SQL database: SQLite by default, PostgreSQL when the URL says so.

Reads run statement by statement, each on its own snapshot. Writes are transactions that are durable when the block ends: what was
acknowledged to a user or to a publisher survives a power failure. That is why SQLite runs with `synchronous=FULL`: in WAL mode
`NORMAL` keeps the file sound but may forget the last commits. The price is one fsync a commit, and a warm pull commits nothing.

Failures of the database leave this module as Unavailable (StorageFull where the disk is full), whatever the driver called them.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Table, event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import AdaptedConnection, Connection
from sqlalchemy.exc import ArgumentError, DBAPIError, InvalidRequestError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from mirror.errors import InvalidInput, MirrorError, StorageFull, Unavailable

T = TypeVar("T")

SQLITE = "sqlite"
POSTGRESQL = "postgresql"

_DRIVERS = {SQLITE: "sqlite+aiosqlite", POSTGRESQL: "postgresql+asyncpg"}
_IMMEDIATE = "debark_immediate"
_WAL_PAUSE = 0.02
"""Seconds; this happens once in the life of a database."""

Insert = sqlite.Insert | postgresql.Insert
"""An INSERT that knows `on_conflict_do_update` and `on_conflict_do_nothing`; both dialects write them alike."""


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    """Where the state is, and the bounds of talking to it.

    connections: open connections of this process at the most.
    wait_seconds: how long a statement waits for a lock, a connection from the pool, or the server.
    """

    url: str
    connections: int = 5
    wait_seconds: float = 10.0


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite file."""
    return URL.create(_DRIVERS[SQLITE], database=str(path)).render_as_string()


class Database:
    """Connections to the state database. One object a process; safe to use from all tasks of one event loop."""

    def __init__(self, settings: DatabaseSettings) -> None:
        """Connect lazily. Raises InvalidInput for a URL that names no known database or a driver that is not installed."""
        url = _checked_url(settings.url)
        self.dialect: str = url.get_backend_name()
        self._name = url.render_as_string(hide_password=True)
        try:
            self._engine = _create_engine(url, settings)
        except (ModuleNotFoundError, NoSuchModuleError) as error:
            raise InvalidInput(f"the driver for {url.drivername} is not installed: pip install 'debark[postgresql]'") from error
        except InvalidRequestError as error:
            raise InvalidInput(f"the driver for {url.drivername} cannot be used: {_first_line(error)}") from error
        # SQLite has one writer at a time and makes the others poll for the lock; inside a process they can queue up instead.
        self._writer = asyncio.Lock() if self.dialect == SQLITE else contextlib.nullcontext()

        self._under_way: set[asyncio.Task[Any]] = set()

    def __str__(self) -> str:
        return self._name

    @contextlib.asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection for SELECTs; each statement sees the newest committed state. Raises Unavailable."""
        with self._wrapped_errors():
            async with self._connection() as connection:
                if self.dialect != SQLITE:
                    await connection.execution_options(isolation_level="AUTOCOMMIT")
                yield connection

    @contextlib.asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction, committed durably when the block ends, rolled back when it raises. Raises Unavailable, StorageFull."""
        with self._wrapped_errors():
            async with self._writer, self._connection() as connection:
                # A deferred transaction of SQLite that first reads and then writes may fail on a lock instead of waiting for it.
                await connection.execution_options(**{_IMMEDIATE: True})
                async with connection.begin():
                    yield connection

    def insert(self, table: Table) -> Insert:
        """An INSERT into the table in this database's dialect."""
        return sqlite.insert(table) if self.dialect == SQLITE else postgresql.insert(table)

    async def close(self) -> None:
        """Close all connections."""
        while self._under_way:
            await asyncio.gather(*self._under_way, return_exceptions=True)
        await self._engine.dispose()

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[AsyncConnection]:
        """A connection that is opened and closed to the end, also if the task that wants it is cancelled meanwhile.

        Else the thread of a SQLite connection could outlive the event loop, which it tells what it has done.
        """
        opening = self._kept(_opened(self._engine.connect()))
        try:
            connection = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(self._close_unused)
            raise
        try:
            yield connection
        finally:
            await asyncio.shield(self._kept(connection.close()))

    def _kept(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task

    def _close_unused(self, opening: asyncio.Task[AsyncConnection]) -> None:
        if not opening.cancelled() and opening.exception() is None:
            self._kept(opening.result().close())

    @contextlib.contextmanager
    def _wrapped_errors(self) -> Iterator[None]:
        try:
            yield
        except MirrorError:
            raise
        except DBAPIError as error:
            if getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                raise StorageFull(f"state database {self._name}: the disk is full") from error
            raise Unavailable(f"state database {self._name}: {_first_line(error.orig)}") from error
        except PoolTimeout as error:
            raise Unavailable(f"state database {self._name}: all connections are busy") from error
        except OSError as error:
            raise Unavailable(f"state database {self._name}: {_first_line(error)}") from error


async def _opened(connection: AsyncConnection) -> AsyncConnection:
    return await connection.start()


def _checked_url(text: str) -> URL:
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise InvalidInput("the state database's URL cannot be read: expected sqlite:///PATH or postgresql://...") from error
    driver = _DRIVERS.get(url.get_backend_name())
    if driver is None:
        raise InvalidInput(f"state database '{url.drivername}': only sqlite and postgresql are supported")
    return url if "+" in url.drivername else url.set(drivername=driver)


def _create_engine(url: URL, settings: DatabaseSettings) -> AsyncEngine:
    pool: dict[str, Any] = {"pool_size": settings.connections, "max_overflow": 0, "pool_timeout": settings.wait_seconds}
    if url.get_backend_name() == SQLITE:
        # Without an isolation level the driver opens no transactions of its own; `_begin` does.
        arguments: dict[str, Any] = {"timeout": settings.wait_seconds, "isolation_level": None}
        engine = create_async_engine(url, connect_args=arguments, **pool)
        event.listen(engine.sync_engine, "connect", partial(_prepare_sqlite, patience=settings.wait_seconds))
        event.listen(engine.sync_engine, "begin", _begin)
        event.listen(engine.sync_engine.pool, "invalidate", _roll_back)
        return engine
    arguments = {}
    if url.drivername == _DRIVERS[POSTGRESQL]:
        arguments = {"timeout": settings.wait_seconds, "command_timeout": settings.wait_seconds}
    return create_async_engine(url, connect_args=arguments, pool_pre_ping=True, **pool)


def _prepare_sqlite(connection: Any, _record: object, patience: float) -> None:
    cursor = connection.cursor()
    _use_wal(cursor, time.monotonic() + patience)
    for pragma in ("synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _use_wal(cursor: Any, end: float) -> None:
    """Switch a new file over. SQLite does not wait for the lock that this takes, and processes may start together."""
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(_WAL_PAUSE)
        else:
            return


def _begin(connection: Connection) -> None:
    if connection.get_execution_options().get(_IMMEDIATE):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _roll_back(connection: AdaptedConnection, _record: object, _error: object) -> None:
    """End the transaction of a connection that is given up because its task was cancelled.

    SQLite closes a connection only when the last of its cursors is gone, and a traceback may keep one: the lock would stay too.
    """
    with contextlib.suppress(Exception):
        connection.run_async(lambda driver: asyncio.shield(driver.rollback()))


def _first_line(error: BaseException | None) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
