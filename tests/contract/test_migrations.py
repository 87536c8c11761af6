"""The schema: from nothing, again, by several processes at once, and by a program that is too old."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from mirror.errors import InvalidInput
from mirror.oci.reference import RepositoryName
from mirror.state import migrate as migrate_module
from mirror.state.engine import Database, DatabaseSettings
from mirror.state.migrate import HEAD, migrate
from mirror.state.schema import metadata
from mirror.store.tags import TagRecord, Tags
from tests.support.state import SwitchedDatabase, digest_of, python_process


def _differences(connection: Connection) -> list[object]:
    return list(compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata))


async def test_migrations_make_the_schema_that_the_program_uses(database: Database) -> None:
    async with database.read() as connection:
        assert await connection.run_sync(_differences) == []


def test_the_newest_revision_is_the_one_that_the_program_expects() -> None:
    scripts = ScriptDirectory(str(Path(migrate_module.__file__).parent / "migrations"))
    assert scripts.get_heads() == [HEAD]


async def test_a_second_start_changes_nothing_and_is_one_look(database: SwitchedDatabase) -> None:
    name, record = RepositoryName.of("docker.io", "debian"), TagRecord(digest_of("a"), "application/json", 3, 1.0)
    await Tags(database).put(name, "12", record)
    before = database.uses
    await migrate(database)
    assert database.uses == before + 1
    assert await Tags(database).get(name, "12") == record


async def test_a_database_of_a_newer_program_is_refused_and_left_alone(database: Database) -> None:
    async with database.write() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(InvalidInput, match=r"revision 9999.*newer version"):
        await migrate(database)
    async with database.read() as connection:
        assert (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar_one() == "9999"


async def test_a_migration_that_fails_leaves_nothing_behind(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(DatabaseSettings(empty_url))
    upgrade = migrate_module._upgrade

    def fail_after(connection: Connection, revision: str | None) -> bool:
        upgrade(connection, revision)
        raise RuntimeError("the machine stops here")

    with monkeypatch.context() as patched:
        patched.setattr(migrate_module, "_upgrade", fail_after)
        with pytest.raises(RuntimeError):
            await migrate(database)
    await migrate(database)
    async with database.read() as connection:
        assert await connection.run_sync(_differences) == []
    await database.close()


_MIGRATE = """
import asyncio, sys
from mirror.state.engine import Database, DatabaseSettings
from mirror.state.migrate import migrate

async def main():
    database = Database(DatabaseSettings(sys.argv[1], wait_seconds=60.0))
    print("ready", flush=True)
    sys.stdin.readline()
    await migrate(database)
    await database.close()

asyncio.run(main())
"""


async def test_processes_that_start_together_migrate_once(empty_url: str) -> None:
    processes = [await python_process(_MIGRATE, empty_url) for _ in range(4)]
    for process in processes:
        assert process.stdout is not None
        await process.stdout.readline()
    outputs = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
    assert [(process.returncode, errors) for process, (_, errors) in zip(processes, outputs, strict=True)] == [(0, b"")] * 4
    database = Database(DatabaseSettings(empty_url))
    async with database.read() as connection:
        assert await connection.run_sync(_differences) == []
    await database.close()


_FIRST_SCHEMA = """
INSERT INTO images (manifest_digest, state, attempts, source_registry, source_repository, fqrn, updated_at, published_at)
VALUES ('sha256:m', 'published', 0, 'docker.io', 'library/debian', 'one.example.org', 5, 5);
INSERT INTO images (manifest_digest, state, attempts, ready_at, source_registry, source_repository, updated_at)
VALUES ('sha256:n', 'queued', 0, 6, 'docker.io', 'library/debian', 6);
INSERT INTO names (registry, repository, reference, target_digest, manifest_digest, requested_at, fqrn, path, revision,
published_at, serial) VALUES
('docker.io', 'library/debian', '12', 'sha256:i', 'sha256:m', 4, 'one.example.org', '/cvmfs/one.example.org/x:12', 3, 5, 1);
INSERT INTO names (registry, repository, reference, target_digest, manifest_digest, requested_at, serial)
VALUES ('docker.io', 'library/debian', '13', 'sha256:n', 'sha256:n', 6, 2);
INSERT INTO tags (registry, repository, tag, digest, media_type, size, checked_at)
VALUES ('docker.io', 'library/debian', '12', 'sha256:i', 'application/json', 7, 4);
INSERT INTO repositories (fqrn, revision, root_hash, public_key, url_path, stored_bytes, state, updated_at)
VALUES ('one.example.org', 3, 'ab', 'PEM', '/cvmfs/one.example.org', 9, 'active', 5);
INSERT INTO layers (fqrn, digest, size, entries) VALUES ('one.example.org', 'sha256:l', 50, 3)
"""


async def test_a_database_of_the_first_revision_keeps_its_content(empty_url: str) -> None:
    database = Database(DatabaseSettings(empty_url))
    async with database.write() as connection:
        await connection.run_sync(_upgrade_to, "0001")
        for statement in _FIRST_SCHEMA.split(";"):
            await connection.execute(text(statement))
    await migrate(database)
    async with database.read() as connection:
        assert await connection.run_sync(_differences) == []
        names = await connection.execute(
            text(
                "SELECT reference, platform, manifest_digest, path, revision, link_fqrn, link_path FROM names ORDER BY reference"
            )
        )
        path = "/cvmfs/one.example.org/x:12"
        assert [tuple(row) for row in names] == [
            ("12", "", "sha256:m", path, 3, "one.example.org", path),
            ("13", "", "sha256:n", None, None, None, None),
        ]
        images = await connection.execute(text("SELECT manifest_digest, state, fqrn, ready_at FROM images ORDER BY 1"))
        assert [tuple(row) for row in images] == [
            ("sha256:m", "published", "one.example.org", None),
            ("sha256:n", "queued", None, 6.0),
        ]
        tags = await connection.execute(text("SELECT tag, accept, digest, checked_at FROM tags"))
        assert [tuple(row) for row in tags] == [("12", "", "sha256:i", 4.0)]
        for table in ("tags", "layers"):
            assert (await connection.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one() == 1
    await database.close()


def _upgrade_to(connection: Connection, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrate_module.__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    config.attributes["metadata"] = metadata
    command.upgrade(config, revision)
