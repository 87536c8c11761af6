"""The publish queue as mirror and publisher see it."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from mirror.errors import Unavailable
from mirror.jobs.leases import LeaseExpired
from mirror.jobs.model import ImageStatus, Job, Publication, State
from mirror.jobs.notes import Notes
from mirror.jobs.queue import HeldLayer, Queue
from mirror.jobs.repositories import Repositories, RepositoryFacts
from mirror.jobs.retry import RetryPolicy
from mirror.jobs.statuses import Statuses
from mirror.oci.reference import ImageReference
from mirror.state.engine import Database
from tests.support.state import Clock, SwitchedDatabase, digest_of, request_for

FQRN = "images.example.org"
LEASE = 60.0
POLICY = RetryPolicy(first_pause=10, longest_pause=100, jitter=0.5, attempts=4, deaths=2, refused_pause=1000)


@pytest.fixture
def queue(database: Database, clock: Clock) -> Queue:
    return Queue(database, policy=POLICY, clock=clock, luck=lambda: 0.0)


@pytest.fixture
def statuses(database: Database) -> Statuses:
    return Statuses(database)


async def _status(statuses: Statuses, image: str) -> ImageStatus:
    status = await statuses.status(ImageReference.parse(image))
    assert status is not None
    return status


async def _claim_one(queue: Queue, owner: str = "p1") -> Job:
    jobs = await queue.claim(owner, 10, LEASE)
    assert len(jobs) == 1
    return jobs[0]


async def _publish(queue: Queue, job: Job, revision: int, owner: str = "p1") -> None:
    publications = {request.image: Publication(FQRN, f"/cvmfs/{FQRN}/{request.image}", revision) for request in job.requests}
    await queue.published(owner, job.manifest, FQRN, publications, [])


async def test_from_a_pull_to_a_path(queue: Queue, statuses: Statuses, clock: Clock, database: Database) -> None:
    facts = RepositoryFacts(FQRN, 1, "ab" * 20, "-----BEGIN PUBLIC KEY-----", f"/cvmfs/{FQRN}", 0)
    await Repositories(database, clock=clock).put(facts)
    request = request_for("debian:12", "m", target="index")
    assert await queue.enqueue(request)
    assert (await _status(statuses, "debian:12")).state is State.QUEUED
    clock.advance(1)
    job = await _claim_one(queue)
    assert job == Job(digest_of("m"), request.image.name, (request,), 1, None)
    assert (await _status(statuses, "debian:12")).state is State.FETCHING
    for state in (State.INGESTING, State.COMMITTING, State.REPLICATING):
        clock.advance(1)
        await queue.advance("p1", [job.manifest], state)
        assert (await _status(statuses, "debian:12")).state is state
    clock.advance(1)
    publication = Publication(FQRN, f"/cvmfs/{FQRN}/docker.io/library/debian:12", 7)
    await queue.published(
        "p1", job.manifest, FQRN, {request.image: publication}, [HeldLayer(digest_of("l"), 50, 3)], notes=Notes(setuid_kept=2)
    )
    status = await _status(statuses, "docker.io/library/debian:12")
    assert status == ImageStatus(
        image=request.image,
        manifest=digest_of("m"),
        target=digest_of("index"),
        state=State.PUBLISHED,
        reason=None,
        publication=publication,
        attempts=0,
        next_try=None,
        requested=clock.now - 5,
        updated=clock.now,
        published=clock.now,
        notes=Notes(setuid_kept=2),
    )
    times = await statuses.times(digest_of("m"))
    steps = (State.QUEUED, State.FETCHING, State.INGESTING, State.COMMITTING, State.REPLICATING, State.PUBLISHED)
    assert times == {state: clock.now - 5 + second for second, state in enumerate(steps)}
    assert await queue.claim("p2", 10, LEASE) == []


async def test_many_pulls_of_an_image_make_one_job_with_all_names(queue: Queue) -> None:
    first, second = request_for("debian:12", "m"), request_for("quay.io/copies/debian:x", "m")
    assert [await queue.enqueue(request) for request in (first, first, second, second)] == [True, False, True, False]
    job = await _claim_one(queue)
    assert set(job.requests) == {first, second}
    assert job.source == first.image.name


async def test_a_known_request_writes_nothing(queue: Queue, database: SwitchedDatabase) -> None:
    await queue.enqueue(request_for("debian:12", "m"))
    uses = database.uses
    await queue.enqueue(request_for("debian:12", "m"))
    assert database.uses == uses + 1


async def test_jobs_are_claimed_oldest_first_and_once(queue: Queue, clock: Clock) -> None:
    for number in range(5):
        await queue.enqueue(request_for(f"debian:{number}", f"m{number}"))
        clock.advance(1)
    first = await queue.claim("p1", 2, LEASE)
    rest = await queue.claim("p2", 10, LEASE)
    assert [job.manifest for job in first + rest] == [digest_of(f"m{number}") for number in range(5)]
    assert await queue.claim("p3", 10, LEASE) == []


async def test_a_dead_publishers_job_is_claimed_again_when_its_lease_ends(queue: Queue, clock: Clock) -> None:
    await queue.enqueue(request_for("debian:12", "m"))
    await _claim_one(queue, "p1")
    clock.advance(LEASE - 1)
    assert await queue.claim("p2", 10, LEASE) == []
    clock.advance(1)
    assert (await _claim_one(queue, "p2")).attempts == 2
    for report in (
        queue.advance("p1", [digest_of("m")], State.INGESTING),
        queue.published("p1", digest_of("m"), FQRN, {}, []),
        queue.refused("p1", digest_of("m"), "no"),
        queue.failed("p1", digest_of("m"), "no"),
    ):
        with pytest.raises(LeaseExpired):
            await report
    await queue.advance("p2", [digest_of("m")], State.INGESTING)


async def test_a_renewed_lease_lasts_and_a_lost_one_is_named(queue: Queue, clock: Clock) -> None:
    await queue.enqueue(request_for("debian:12", "m"))
    await queue.enqueue(request_for("debian:11", "n"))
    await queue.claim("p1", 10, LEASE)
    clock.advance(LEASE - 1)
    assert await queue.renew("p1", [digest_of("m")], LEASE) == frozenset()
    clock.advance(LEASE - 1)
    assert (await _claim_one(queue, "p2")).manifest == digest_of("n")
    assert await queue.renew("p1", [digest_of("m"), digest_of("n")], LEASE) == {digest_of("n")}


async def test_an_image_that_kills_publishers_has_to_wait_like_a_failed_one(
    queue: Queue, statuses: Statuses, clock: Clock
) -> None:
    await queue.enqueue(request_for("debian:12", "m"))
    for _ in range(POLICY.deaths):
        job = await _claim_one(queue)
        await queue.advance("p1", [job.manifest], State.INGESTING)
        clock.advance(LEASE)
    assert await queue.claim("p1", 10, LEASE) == []
    status = await _status(statuses, "debian:12")
    assert status.state is State.FAILED
    assert status.reason is not None
    assert "ingesting" in status.reason
    assert status.next_try == clock.now + 20
    clock.advance(20)
    assert (await _claim_one(queue)).manifest == digest_of("m")


async def test_a_publisher_that_stops_gives_its_jobs_back_at_no_cost(queue: Queue) -> None:
    await queue.enqueue(request_for("debian:12", "m"))
    await _claim_one(queue, "p1")
    assert await queue.release("p1") == 1
    assert (await _claim_one(queue, "p2")).attempts == 1


async def test_a_publisher_recovers_the_jobs_of_its_dead_predecessor_at_once(queue: Queue) -> None:
    await queue.enqueue(request_for("debian:12", "m"))
    await _claim_one(queue, "p1")
    assert await queue.recover("p1") == 1
    assert (await _claim_one(queue, "p1")).attempts == 2


async def test_failures_wait_longer_each_time_and_end(queue: Queue, statuses: Statuses, clock: Clock) -> None:
    request = request_for("debian:12", "m")
    await queue.enqueue(request)
    pauses = []
    for _ in range(POLICY.attempts):
        await _claim_one(queue)
        next_try = await queue.failed("p1", digest_of("m"), "hub: 502")
        assert (await _status(statuses, "debian:12")).next_try == next_try
        await queue.enqueue(request)
        assert await queue.claim("p1", 10, LEASE) == [] or next_try is None
        pauses.append(next_try and next_try - clock.now)
        clock.advance(pauses[-1] or 0)
    assert pauses == [10, 20, 40, None]


async def test_a_failed_image_is_tried_again_after_the_last_try_if_it_is_pulled(queue: Queue, statuses: Statuses) -> None:
    impatient = Queue(queue._database, policy=RetryPolicy(attempts=1), clock=queue._clock)
    await impatient.enqueue(request_for("debian:12", "m"))
    await _claim_one(impatient)
    assert await impatient.failed("p1", digest_of("m"), "hub: 404") is None
    assert (await _status(statuses, "debian:12")).reason == "hub: 404"
    assert await impatient.enqueue(request_for("debian:12", "m"))
    assert (await _claim_one(impatient)).attempts == 1


async def test_a_refused_image_stays_refused_for_a_while(queue: Queue, statuses: Statuses, clock: Clock) -> None:
    request = request_for("debian:12", "m")
    await queue.enqueue(request)
    await _claim_one(queue)
    await queue.refused("p1", digest_of("m"), "layer leaves its root")
    clock.advance(POLICY.refused_pause - 1)
    assert not await queue.enqueue(request)
    assert await queue.enqueue(request_for("debian:other", "m"))
    assert await queue.claim("p1", 10, LEASE) == []
    for name in ("debian:12", "debian:other"):
        status = await _status(statuses, name)
        assert (status.state, status.reason) == (State.REFUSED, "layer leaves its root")
    clock.advance(1)
    assert await queue.enqueue(request)
    assert len((await _claim_one(queue)).requests) == 2


async def test_one_bad_image_does_not_stop_the_others(queue: Queue) -> None:
    await queue.enqueue(request_for("debian:bad", "bad"))
    await queue.enqueue(request_for("debian:good", "good"))
    await queue.claim("p1", 10, LEASE)
    await queue.failed("p1", digest_of("bad"), "broken")
    await queue.published("p1", digest_of("good"), FQRN, {}, [])


async def test_a_new_name_of_a_published_image_is_a_job_of_that_name_only(queue: Queue, statuses: Statuses) -> None:
    await queue.enqueue(request_for("debian:12", "m"))
    await _publish(queue, await _claim_one(queue), 3)
    late = request_for("debian:latest", "m")
    assert await queue.enqueue(late)
    assert (await _status(statuses, "debian:12")).state is State.PUBLISHED
    assert (await _status(statuses, "debian:latest")).state is State.QUEUED
    job = await _claim_one(queue)
    assert (job.requests, job.fqrn) == ((late,), FQRN)
    await _publish(queue, job, 4)
    assert (await _status(statuses, "debian:12")).publication == Publication(
        FQRN, f"/cvmfs/{FQRN}/docker.io/library/debian:12", 3
    )


async def test_a_name_that_comes_while_the_image_is_in_work_is_not_forgotten(queue: Queue, statuses: Statuses) -> None:
    await queue.enqueue(request_for("debian:12", "m"))
    job = await _claim_one(queue)
    late = request_for("debian:latest", "m")
    await queue.enqueue(late)
    await _publish(queue, job, 3)
    assert (await _status(statuses, "debian:12")).state is State.PUBLISHED
    assert (await _status(statuses, "debian:latest")).state is State.QUEUED
    assert (await _claim_one(queue)).requests == (late,)


async def test_a_tag_that_moves_gets_its_new_image(queue: Queue, statuses: Statuses) -> None:
    await queue.enqueue(request_for("debian:12", "old"))
    await _publish(queue, await _claim_one(queue), 3)
    await queue.enqueue(request_for("debian:12", "new"))
    status = await _status(statuses, "debian:12")
    assert (status.state, status.publication) == (State.QUEUED, None)
    await _publish(queue, await _claim_one(queue), 4)
    status = await _status(statuses, "debian:12")
    assert status.manifest == digest_of("new")
    assert status.publication is not None
    assert status.publication.revision == 4


async def test_a_tag_that_moves_before_publication_leaves_the_image_its_digest_as_name(queue: Queue) -> None:
    await queue.enqueue(request_for("debian:12", "old", target="old index"))
    await queue.enqueue(request_for("debian:12", "new"))
    jobs = {job.manifest: job.requests for job in await queue.claim("p1", 10, LEASE)}
    assert jobs == {
        digest_of("old"): (request_for(f"debian@{digest_of('old')}", "old"),),
        digest_of("new"): (request_for("debian:12", "new"),),
    }


async def test_a_tag_that_moves_back_while_the_other_image_is_in_work_leads_back(queue: Queue, statuses: Statuses) -> None:
    await queue.enqueue(request_for("debian:12", "old"))
    await _publish(queue, await _claim_one(queue), 3)
    await queue.enqueue(request_for("debian:12", "new"))
    new = await _claim_one(queue)
    await queue.enqueue(request_for("debian:12", "old"))
    old = await _claim_one(queue, "p2")
    await _publish(queue, old, 4, owner="p2")
    await _publish(queue, new, 5)
    assert (await _status(statuses, "debian:12")).state is State.QUEUED, "the link leads to the new image since revision 5"
    jobs = {job.manifest: job for job in await queue.claim("p1", 10, LEASE)}
    assert jobs[digest_of("old")].requests == (request_for("debian:12", "old"),)


async def test_a_name_that_moves_on_leaves_a_published_image_without_work(queue: Queue, statuses: Statuses) -> None:
    await queue.enqueue(request_for(f"debian@{digest_of('old')}", "old"))
    await _publish(queue, await _claim_one(queue), 3)
    await queue.enqueue(request_for("debian:12", "old"))
    await queue.enqueue(request_for("debian:12", "new"))
    assert (await _claim_one(queue)).manifest == digest_of("new")
    assert (await statuses.counts())[State.PUBLISHED] == 1


async def test_another_index_with_the_same_image_keeps_the_path(queue: Queue, statuses: Statuses) -> None:
    await queue.enqueue(request_for("debian:12", "m", target="index 1"))
    await _publish(queue, await _claim_one(queue), 3)
    await queue.enqueue(request_for("debian:12", "m", target="index 2"))
    assert await queue.claim("p1", 10, LEASE) == []
    status = await _status(statuses, f"debian@{digest_of('index 2')}")
    assert status.publication is not None


async def test_a_publisher_that_waits_starts_at_once_after_an_enqueue(database: Database) -> None:
    queue = Queue(database)
    assert not await queue.wait(0.01)
    waiting = asyncio.create_task(queue.wait(20))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    await queue.enqueue(request_for("debian:12", "m"))
    start = time.monotonic()
    assert await waiting
    assert time.monotonic() - start < 5


async def test_a_database_that_is_away_is_unavailable_to_everybody(queue: Queue, database: SwitchedDatabase) -> None:
    database.away = True
    with pytest.raises(Unavailable):
        await queue.enqueue(request_for("debian:12", "m"))
    with pytest.raises(Unavailable):
        await queue.claim("p1", 1, LEASE)


async def test_only_steps_of_the_work_can_be_shown(queue: Queue) -> None:
    with pytest.raises(ValueError, match="published"):
        await queue.advance("p1", [], State.PUBLISHED)


async def test_work_that_is_cancelled_at_any_point_leaves_no_lock_behind(queue: Queue) -> None:
    async with asyncio.timeout(8):
        for number in range(40):
            task = asyncio.create_task(queue.enqueue(request_for(f"debian:{number}", f"m{number}")))
            await asyncio.sleep(number * 0.0002)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            assert await queue.enqueue(request_for(f"debian:next{number}", f"next{number}"))
    assert len(await queue.claim("p1", 100, LEASE)) >= 40
