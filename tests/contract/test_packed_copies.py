"""Blobs that CVMFS repositories hold, in the state database and in the memory in front of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from mirror.errors import Unavailable
from mirror.jobs.packed_layers import PackedCopy, PackedIndex, PackedLayers, add_packed_layers, remove_packed_layers
from mirror.jobs.removals import Removals
from mirror.jobs.repositories import Repositories, RepositoryFacts
from mirror.state.schema import packed_layers
from tests.support.state import SwitchedDatabase, digest_of

ONE, TWO = "one.example.org", "two.example.org"
BASE, TOP = (PackedCopy(digest_of(name), ONE, f"data/ab/{name}", 10, 3) for name in ("base", "top"))


@pytest.fixture
async def layers(database: SwitchedDatabase) -> PackedLayers:
    for fqrn in (ONE, TWO):
        await Repositories(database).put(RepositoryFacts(fqrn, 1, "ab" * 20, "key", f"/cvmfs/{fqrn}", 0))
    return PackedLayers(database)


async def add(database: SwitchedDatabase, *copies: PackedCopy) -> None:
    async with database.write() as connection:
        await add_packed_layers(database, connection, copies)


async def test_a_copy_is_what_it_was_when_it_came_until_it_is_another_object(
    database: SwitchedDatabase, layers: PackedLayers
) -> None:
    elsewhere = replace(BASE, fqrn=TWO, revision=8)
    await add(database, BASE, TOP, BASE)
    await add(database, replace(BASE, revision=7), elsewhere)
    assert await layers.copies(BASE.digest) == (BASE, elsewhere)
    other = replace(BASE, object="data/cd/other", revision=9)
    await add(database, other)
    assert await layers.copies(BASE.digest) == (other, elsewhere)
    assert await layers.copies(digest_of("nothing")) == ()


async def test_what_came_and_that_something_went_is_seen(database: SwitchedDatabase, layers: PackedLayers) -> None:
    first = await layers.changes(None)
    assert first.digests == frozenset()
    await add(database, BASE)
    await add(database, TOP)
    second = await layers.changes(first.came)
    assert second.digests == {BASE.digest, TOP.digest}
    assert second.went == first.went
    assert (await layers.changes(second.came)).digests == frozenset()
    await Removals(database).done(ONE, [], [digest_of("nothing")])
    assert (await layers.changes(second.came)).went == first.went
    await Removals(database).done(ONE, [], [TOP.digest])
    assert (await layers.changes(second.came)).went == first.went + 1
    assert await layers.copies(TOP.digest) == ()


async def test_rolling_back_takes_what_came_later_and_only_there(database: SwitchedDatabase, layers: PackedLayers) -> None:
    late, elsewhere = replace(TOP, revision=5), replace(TOP, fqrn=TWO, revision=5)
    await add(database, BASE, late, elsewhere)
    await layers.roll_back(ONE, 4)
    assert await layers.copies(BASE.digest) == (BASE,)
    assert await layers.copies(TOP.digest) == (elsewhere,)


async def test_the_index_forgets_what_changed_and_keeps_the_rest_while_the_database_is_away(
    database: SwitchedDatabase, layers: PackedLayers
) -> None:
    index = PackedIndex(layers, remembered=10)
    await add(database, BASE)
    await index.refresh()
    assert await index.find(BASE.digest) == (BASE,)
    assert await index.find(TOP.digest) == ()
    uses = database.uses
    assert await index.find(BASE.digest) == (BASE,)
    assert await index.find(TOP.digest) == ()
    assert database.uses == uses, "a warm answer takes no SQL"
    await add(database, TOP)
    assert await index.find(TOP.digest) == ()
    await index.refresh()
    assert await index.find(TOP.digest) == (TOP,)
    async with database.write() as connection:
        await remove_packed_layers(connection, ONE, packed_layers.c.digest == str(BASE.digest))
    await index.refresh()
    assert await index.find(BASE.digest) == ()
    database.away = True
    with pytest.raises(Unavailable):
        await layers.copies(TOP.digest)
    await index.refresh()
    assert await index.find(digest_of("unknown")) == ()
    database.away = False


async def test_an_answer_from_before_a_change_is_not_kept(database: SwitchedDatabase, layers: PackedLayers) -> None:
    index = PackedIndex(layers, remembered=10)
    await index.refresh()
    asked = asyncio.create_task(index.find(BASE.digest))
    await add(database, BASE)
    await index.refresh()
    await asked
    assert await index.find(BASE.digest) == (BASE,)
