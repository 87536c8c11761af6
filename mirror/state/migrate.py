"""Bring the state database to this program's schema when a process starts.

The usual case, nothing to do, costs one SELECT: Alembic is loaded only if the revision differs. Several processes may start at
once: the first one migrates, the others wait for its transaction and find it done.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, func, inspect, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from mirror.errors import InvalidInput
from mirror.state.engine import POSTGRESQL, Database
from mirror.state.schema import metadata

HEAD = "0008"
"""The revision that `mirror.state.schema` describes: the newest one in `migrations/versions`."""

_MIGRATIONS = Path(__file__).parent / "migrations"
_ADVISORY_LOCK = 0x6465_6261_726B
"""An arbitrary key, the same in every process: the letters of the program's name."""


async def migrate(database: Database) -> None:
    """Create or upgrade the schema; nothing happens if it is up to date.

    Raises InvalidInput if a newer program has migrated the database, Unavailable if it cannot be reached.
    """
    async with database.read() as connection:
        if await connection.run_sync(_revision) == HEAD:
            return
    async with database.write() as connection:
        await _wait_for_others(database, connection)
        revision = await connection.run_sync(_revision)
        if revision == HEAD:
            return
        if not await connection.run_sync(_upgrade, revision):
            raise InvalidInput(
                f"state database {database} has schema revision {revision}, which this version does not know "
                f"(it knows those up to {HEAD}): a newer version of debark has used it; run that version, or restore a backup"
            )


async def _wait_for_others(database: Database, connection: AsyncConnection) -> None:
    if database.dialect == POSTGRESQL:
        await connection.execute(select(func.pg_advisory_xact_lock(_ADVISORY_LOCK)))


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def _upgrade(connection: Connection, revision: str | None) -> bool:
    """Apply what is missing; False if the database's revision is not one of ours."""
    from alembic import command  # noqa: PLC0415 - costs 0.1 s, and is needed once a release
    from alembic.config import Config  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    config.attributes["metadata"] = metadata
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if revision is not None and revision not in known:
        return False
    command.upgrade(config, "head")
    return True
