"""Which repositories are public, as several processes of a mirror know it, over restarts, and while the hub or SQL is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

from mirror.errors import Denied, NotFound, Unavailable
from mirror.oci.reference import Reference, RepositoryName
from mirror.proxy.public import PublicLimits, PublicRepositories
from mirror.state.engine import DatabaseSettings
from mirror.state.migrate import migrate
from mirror.store.sightings import Sightings
from mirror.upstream.client import UpstreamClient
from tests.support.faulty_registry import FaultyRegistry
from tests.support.mirror_server import HUB, add_image
from tests.support.state import Clock, SwitchedDatabase, empty_database_url
from tests.support.upstreams import QUICK, session_for, upstream

ACCOUNT = ("site", "pass-word")
NAME, OTHER = RepositoryName(HUB, "team/app"), RepositoryName(HUB, "team/other")
FRESH, KEPT = 600.0, 86_400.0
Process = Callable[[], PublicRepositories]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[SwitchedDatabase]:
    opened = SwitchedDatabase(DatabaseSettings(await empty_database_url("sqlite", tmp_path)))
    await migrate(opened)
    yield opened
    await opened.close()


@pytest.fixture
async def hub() -> AsyncIterator[FaultyRegistry]:
    async with FaultyRegistry() as registry:
        for name in (NAME, OTHER):
            add_image(registry, name.repository, "1", b"layer")
        yield registry


@pytest.fixture
async def process(hub: FaultyRegistry, database: SwitchedDatabase, clock: Clock) -> AsyncIterator[Process]:
    """Makes what another worker, or the same one after a restart, knows at its beginning."""
    wanted = upstream(hub.url)
    async with session_for(wanted) as session:
        limits = PublicLimits(fresh=FRESH, kept=KEPT, hold=5, patience=2)

        def begin() -> PublicRepositories:
            guard = UpstreamClient(session, wanted, anonymous=True, retry=QUICK)
            return PublicRepositories({HUB: guard}, Sightings(database), limits, clock=clock)

        yield begin


async def check(public: PublicRepositories, name: RepositoryName = NAME, tag: str = "1") -> None:
    await public.check(name, lambda client: client.head_manifest(name.repository, Reference(tag=tag)))


def close_to_the_public(hub: FaultyRegistry) -> None:
    hub.faults.auth, hub.faults.user = "bearer", ACCOUNT


async def test_a_restart_while_the_hub_is_away_takes_nothing_away(process: Process, hub: FaultyRegistry, clock: Clock) -> None:
    await check(process())
    await hub.kill()
    clock.advance(KEPT - 1)
    await check(process())
    with pytest.raises(Unavailable):
        await check(process(), OTHER)
    clock.advance(2)
    with pytest.raises(Unavailable):
        await check(process())


async def test_what_became_private_while_nobody_looked_is_refused_as_soon_as_the_hub_says_so(
    process: Process, hub: FaultyRegistry, clock: Clock
) -> None:
    before = process()
    await check(before)
    await hub.kill()
    clock.advance(FRESH + 1)
    after = process()
    await check(after)
    close_to_the_public(hub)
    await hub.start()
    clock.advance(6)
    with pytest.raises(Denied):
        await check(after)
    # And stays refused when the hub goes away again, by all who saw it public once.
    await hub.kill()
    for public in (before, process()):
        with pytest.raises(Unavailable):
            await check(public)
    with pytest.raises((Denied, Unavailable)):
        await check(after)


async def test_workers_ask_once_for_all_of_them_and_write_once(
    process: Process, hub: FaultyRegistry, clock: Clock, database: SwitchedDatabase
) -> None:
    one, two = process(), process()
    for times in (1, 2):
        uses = database.uses
        for public in (one, two):
            await asyncio.gather(*(check(public) for _ in range(20)))
        assert hub.count("HEAD", "/manifests/") == times
        assert database.uses == uses + 3  # Each looks, and one of them writes.
        await check(one)
        await check(two)
        assert database.uses == uses + 3
        clock.advance(FRESH + 1)


async def test_what_one_process_was_told_counts_for_one_that_remembers_otherwise(
    process: Process, hub: FaultyRegistry, clock: Clock
) -> None:
    one, two = process(), process()
    await check(one)
    await check(two)
    clock.advance(FRESH + 1)
    close_to_the_public(hub)
    with pytest.raises(Denied):
        await check(two)
    await hub.kill()
    with pytest.raises(Unavailable):
        await check(one)


async def test_sql_that_is_away_takes_nothing_away(
    process: Process, hub: FaultyRegistry, clock: Clock, database: SwitchedDatabase
) -> None:
    database.away = True
    public = process()
    await check(public)
    await check(public)
    assert hub.count("HEAD", "/manifests/") == 1
    await hub.kill()
    clock.advance(FRESH + 1)
    await check(public)
    database.away = False  # It has no row: nobody was there to write one.
    clock.advance(6)
    await check(public)


async def test_a_yes_that_could_not_be_taken_back_does_not_count_and_is_taken_back_later(
    process: Process, clock: Clock, database: SwitchedDatabase
) -> None:
    async def deny(_: UpstreamClient) -> None:
        raise Denied("not any more")

    async def fail(_: UpstreamClient) -> None:
        raise Unavailable("the hub is away")

    public = process()
    await check(public)
    clock.advance(FRESH + 1)
    database.away = True
    with pytest.raises(Denied):
        await public.check(NAME, deny)
    database.away = False
    for later in (public, process()):
        with pytest.raises(Unavailable):
            await later.check(NAME, fail)


async def test_a_yes_that_comes_late_does_not_count_against_a_later_no(process: Process, clock: Clock) -> None:
    answered = asyncio.Event()

    async def give_late(_: UpstreamClient) -> None:
        await answered.wait()

    async def deny(_: UpstreamClient) -> None:
        raise Denied("not any more")

    async def fail(_: UpstreamClient) -> None:
        raise Unavailable("the hub is away")

    one, two = process(), process()
    slow = asyncio.create_task(one.check(NAME, give_late))
    await asyncio.sleep(0.05)
    clock.advance(1)
    with pytest.raises(Denied):
        await two.check(NAME, deny)
    clock.advance(1)
    answered.set()
    await slow
    for later in (two, process()):
        with pytest.raises(Unavailable):
            await later.check(NAME, fail)


async def test_nor_does_one_that_is_being_written_down_when_the_no_comes(clock: Clock, database: SwitchedDatabase) -> None:
    writing, written = asyncio.Event(), asyncio.Event()

    class Slow(Sightings):
        async def note(self, name: RepositoryName, at: float) -> None:
            await super().note(name, at)
            writing.set()
            await written.wait()

    def answering(error: Exception | None, when: asyncio.Event) -> Callable[[UpstreamClient], Awaitable[None]]:
        async def ask(_: UpstreamClient) -> None:
            await when.wait()
            if error is not None:
                raise error

        return ask

    now, later = asyncio.Event(), asyncio.Event()
    public = PublicRepositories({HUB: Mock()}, Slow(database), PublicLimits(fresh=FRESH), clock=clock)
    # The first one asks for what is not there, which tells the others nothing: so each asks for itself.
    first = asyncio.create_task(public.check(NAME, answering(NotFound("no such tag"), now)))
    await asyncio.sleep(0.05)
    second = asyncio.create_task(public.check(NAME, answering(None, now)))
    third = asyncio.create_task(public.check(NAME, answering(Denied("not any more"), later)))
    await asyncio.sleep(0.05)
    now.set()
    await writing.wait()
    clock.advance(1)
    later.set()
    with pytest.raises(Denied):
        await third
    written.set()
    await second
    with pytest.raises(NotFound):
        await first
    with pytest.raises(Denied):
        await public.check(NAME, answering(Denied("not any more"), now))


async def test_what_another_client_did_not_find_says_nothing_to_who_asks_for_what_is_there(
    process: Process, hub: FaultyRegistry
) -> None:
    public = process()
    answers = await asyncio.gather(*(check(public, tag=tag) for tag in ("2", "1", "2")), return_exceptions=True)
    assert [type(answer) for answer in answers] == [NotFound, type(None), NotFound]


async def test_a_hub_that_does_not_answer_is_waited_for_only_where_nothing_is_known(process: Process, clock: Clock) -> None:
    await check(process())
    clock.advance(FRESH + 1)
    asked, answered = 0, asyncio.Event()

    async def ask(client: UpstreamClient) -> None:
        nonlocal asked
        asked += 1
        await answered.wait()
        raise Denied("not any more")

    public = process()
    for _ in range(3):
        await public.check(NAME, ask)
    assert asked == 1
    unknown = asyncio.create_task(public.check(OTHER, ask))
    answered.set()
    with pytest.raises(Denied):
        await unknown
    for _ in range(100):
        await asyncio.sleep(0)
    # What the hub said at last counts, whoever has left meanwhile.
    with pytest.raises(Denied):
        await public.check(NAME, ask)
    await public.close()
