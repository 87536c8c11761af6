import asyncio
import os
import time
from pathlib import Path

import pytest

from mirror.chores import drop_sightings, sweep_parts
from mirror.errors import Unavailable
from mirror.oci.digest import Digest
from mirror.oci.reference import RepositoryName
from mirror.state.engine import DatabaseSettings
from mirror.state.migrate import migrate
from mirror.store.blobs import BlobStore
from mirror.store.sightings import Sightings
from tests.support.faulty_registry import until
from tests.support.state import SwitchedDatabase, empty_database_url


async def test_transfers_that_nobody_went_on_with_are_swept_at_the_start(tmp_path: Path) -> None:
    store = BlobStore(tmp_path, 0)
    old, young = (store.layout.part(Digest.of(name)) for name in (b"old", b"young"))
    old.parent.mkdir(parents=True)
    for path in (old, young):
        path.write_bytes(b"the beginning")
    os.utime(old, (1_000_000, 1_000_000))
    task = asyncio.create_task(sweep_parts(store, 3600))
    await until(lambda: not old.exists())
    assert young.exists()
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_what_was_public_long_ago_goes_and_sql_that_is_away_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mirror.chores._SWEEP_SECONDS", 0.01)
    database = SwitchedDatabase(DatabaseSettings(await empty_database_url("sqlite", tmp_path)))
    await migrate(database)
    sightings = Sightings(database)
    old, young = RepositoryName.of("docker.io", "old"), RepositoryName.of("docker.io", "young")
    await sightings.note(old, time.time() - 3700)
    await sightings.note(young, time.time() - 3500)
    database.away = True
    with pytest.raises(Unavailable):
        await sightings.drop_before(0)
    uses = database.uses
    task = asyncio.create_task(drop_sightings(sightings, 3600))
    await until(lambda: database.uses > uses)
    database.away = False
    for _ in range(500):
        if await sightings.seen(old) is None:
            break
        await asyncio.sleep(0.01)
    assert (await sightings.seen(old), await sightings.seen(young) is not None) == (None, True)
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await database.close()
