"""Facts, leases and layers of CVMFS repositories; use of images."""

from __future__ import annotations

import pytest

from mirror.errors import NotFound
from mirror.jobs.leases import LeaseExpired
from mirror.jobs.model import Publication
from mirror.jobs.queue import HeldLayer, Queue
from mirror.jobs.repositories import Repositories, RepositoryFacts
from mirror.jobs.schedule import RepositoryState
from mirror.jobs.usage import Usage, Use
from mirror.state.engine import Database
from tests.support.state import Clock, digest_of, request_for

ONE, TWO = "one.example.org", "two.example.org"


def _facts(fqrn: str, revision: int = 1, stored_bytes: int = 0) -> RepositoryFacts:
    return RepositoryFacts(fqrn, revision, "ab" * 20, "-----BEGIN PUBLIC KEY-----", f"/cvmfs/{fqrn}", stored_bytes)


@pytest.fixture
async def repositories(database: Database, clock: Clock) -> Repositories:
    repositories = Repositories(database, clock=clock)
    for fqrn in (TWO, ONE):
        await repositories.put(_facts(fqrn))
    return repositories


async def test_facts_are_kept_and_brought_up_to_date(repositories: Repositories) -> None:
    await repositories.put(_facts(TWO, revision=9, stored_bytes=5_000_000_000))
    assert await repositories.all() == [_facts(ONE), _facts(TWO, 9, 5_000_000_000)]


async def test_a_commit_does_not_reopen_a_repository_that_is_closed(repositories: Repositories) -> None:
    await repositories.set_state(ONE, RepositoryState.CLEANING)
    await repositories.put(_facts(ONE, revision=2))
    facts = (await repositories.all())[0]
    assert (facts.state, facts.revision) == (RepositoryState.CLEANING, 2)
    with pytest.raises(NotFound, match=r"nosuch\.example\.org"):
        await repositories.set_state("nosuch.example.org", RepositoryState.FULL)


async def test_a_repository_has_one_writer(repositories: Repositories, clock: Clock) -> None:
    assert await repositories.acquire(ONE, "p1", 60)
    assert not await repositories.acquire(ONE, "p2", 60)
    assert await repositories.acquire(TWO, "p2", 60)
    clock.advance(59)
    await repositories.renew(ONE, "p1", 60)
    clock.advance(59)
    assert not await repositories.acquire(ONE, "p2", 60)
    clock.advance(1)
    with pytest.raises(LeaseExpired, match=ONE):
        await repositories.renew(ONE, "p1", 60)
    assert await repositories.acquire(ONE, "p2", 60)
    with pytest.raises(LeaseExpired):
        await repositories.renew(ONE, "p1", 60)
    await repositories.release(ONE, "p1")
    assert not await repositories.acquire(ONE, "p1", 60)
    await repositories.release(ONE, "p2")
    assert await repositories.acquire(ONE, "p1", 60)
    with pytest.raises(NotFound):
        await repositories.acquire("nosuch.example.org", "p1", 60)


async def test_bytes_that_repositories_hold_of_an_image(repositories: Repositories, database: Database) -> None:
    queue = Queue(database)
    held = [HeldLayer(digest_of("base"), 120_000_000, 5000), HeldLayer(digest_of("top"), 7, 1)]
    request = request_for("debian:12", "m")
    for _ in range(2):
        await queue.enqueue(request)
        await queue.claim("p1", 1, 60.0)
        publication = {request.image: Publication(ONE, "/cvmfs/x", 2)}
        await queue.published("p1", request.manifest, ONE, publication, held)
        request = request_for("debian:again", "m")
    assert await repositories.held_bytes([digest_of("base"), digest_of("new")]) == {ONE: 120_000_000, TWO: 0}
    assert await repositories.held_bytes([]) == {ONE: 0, TWO: 0}


async def test_use_adds_up_and_never_goes_back(database: Database) -> None:
    usage = Usage(database)
    await usage.add({})
    assert await usage.of(digest_of("m")) is None
    await usage.add({digest_of("m"): Use(200.5, 3), digest_of("n"): Use(1.0, 0)})
    await usage.add({digest_of("m"): Use(100.0, 2)})
    assert await usage.of(digest_of("m")) == Use(200.5, 5)
    await usage.add({digest_of("m"): Use(300.0, 0)})
    assert await usage.of(digest_of("m")) == Use(300.0, 5)
