"""When repositories were last seen to be public: in the state, for all processes."""

from __future__ import annotations

import asyncio

import pytest

from mirror.errors import Unavailable
from mirror.oci.reference import RepositoryName
from mirror.state.engine import Database
from mirror.store.sightings import Sightings
from tests.support.state import SwitchedDatabase

DEBIAN, ALPINE, NAMESAKE = (
    RepositoryName("docker.io", "library/debian"),
    RepositoryName("docker.io", "library/alpine"),
    RepositoryName("ghcr.io", "library/debian"),
)


async def test_one_process_knows_what_another_was_told(database: Database) -> None:
    one, other = Sightings(database), Sightings(database)
    assert await other.seen(DEBIAN) is None
    await one.note(DEBIAN, 100.5)
    await one.note(NAMESAKE, 7.0)
    assert await other.seen(DEBIAN) == 100.5
    assert await other.seen(NAMESAKE) == 7.0
    assert await other.seen(ALPINE) is None
    await other.note(DEBIAN, 200.0)
    assert await one.seen(DEBIAN) == 200.0


async def test_what_is_forgotten_is_forgotten_for_all_and_can_be_seen_again(database: Database) -> None:
    one, other = Sightings(database), Sightings(database)
    for name in (DEBIAN, NAMESAKE):
        await one.note(name, 100.0)
    await other.forget(DEBIAN)
    await other.forget(ALPINE)
    assert [await one.seen(name) for name in (DEBIAN, NAMESAKE)] == [None, 100.0]
    await one.note(DEBIAN, 90.0)
    assert await other.seen(DEBIAN) == 90.0


async def test_a_clock_that_was_wrong_once_is_not_believed_any_more(database: Database) -> None:
    sightings = Sightings(database)
    await sightings.note(DEBIAN, 9_999_999_999.0)
    await sightings.note(DEBIAN, 100.0)
    assert await sightings.seen(DEBIAN) == 100.0


async def test_what_was_seen_long_ago_goes(database: Database) -> None:
    sightings = Sightings(database)
    for name, at in ((DEBIAN, 100.0), (ALPINE, 200.0), (NAMESAKE, 300.0)):
        await sightings.note(name, at)
    assert await sightings.drop_before(200.0) == 1
    assert [await sightings.seen(name) for name in (DEBIAN, ALPINE, NAMESAKE)] == [None, 200.0, 300.0]
    assert await sightings.drop_before(200.0) == 0


async def test_many_that_note_the_same_at_the_same_time_do_not_fail(database: Database) -> None:
    sightings = Sightings(database)
    await asyncio.gather(*(sightings.note(DEBIAN, float(number)) for number in range(20)))
    assert await sightings.seen(DEBIAN) in range(20)


async def test_a_database_that_is_away_is_said_to_be(database: SwitchedDatabase) -> None:
    sightings = Sightings(database)
    database.away = True
    for call in (sightings.seen(DEBIAN), sightings.note(DEBIAN, 1.0), sightings.forget(DEBIAN), sightings.drop_before(1.0)):
        with pytest.raises(Unavailable):
            await call
