"""Take-downs, removals, waiting reasons, conditions and amounts in the state database."""

from __future__ import annotations

import pytest

from mirror.jobs.amounts import Amounts
from mirror.jobs.blocks import Blocks, together
from mirror.jobs.conditions import Condition, Conditions
from mirror.jobs.leases import LeaseExpired
from mirror.jobs.model import ImageStatus, Job, Publication, State
from mirror.jobs.queue import HeldLayer, Queue
from mirror.jobs.removals import Removals
from mirror.jobs.repositories import Repositories, RepositoryFacts
from mirror.jobs.statuses import Statuses
from mirror.jobs.waiting import WaitingReasons
from mirror.oci.reference import ImageReference
from mirror.state.engine import Database
from tests.support.state import Clock, digest_of, request_for

FQRNS = ("one.example.org", "two.example.org")
REF = ImageReference.parse("debian:12")


@pytest.fixture
def queue(database: Database, clock: Clock) -> Queue:
    return Queue(database, clock=clock, luck=lambda: 0.0)


@pytest.fixture
async def blocks(database: Database, clock: Clock) -> Blocks:
    for fqrn in FQRNS:
        await Repositories(database, clock=clock).put(RepositoryFacts(fqrn, 1, "ab" * 20, "key", f"/cvmfs/{fqrn}", 0))
    return Blocks(database, clock=clock)


async def _status(database: Database, name: str) -> ImageStatus:
    status = await Statuses(database).status(ImageReference.parse(name))
    assert status is not None
    return status


async def _claim(queue: Queue) -> Job:
    (job,) = await queue.claim("p", 1, 60)
    return job


async def _publish(queue: Queue, job: Job, layers: tuple[str, ...] = ()) -> None:
    held = [HeldLayer(digest_of(layer), 10, 1) for layer in layers]
    where = {request.image: Publication(FQRNS[0], f"/cvmfs/{request.image}", 2) for request in job.requests}
    await queue.published("p", job.manifest, FQRNS[0], where, held)


async def test_a_take_down_hides_the_image_and_asks_every_repository(database: Database, queue: Queue, blocks: Blocks) -> None:
    for name in ("debian:12", "hub.test/copy:1"):
        await queue.enqueue(request_for(name, "image", "index"))
    await _publish(queue, await _claim(queue), ("base", "top"))
    before = await Statuses(database).serial()
    digests = await blocks.leading_from(REF)
    assert digests == [digest_of("image"), digest_of("index")]
    await blocks.add(digests, REF, "not ours to share", "anna")
    for name in ("debian:12", "hub.test/copy:1"):
        status = await _status(database, name)
        assert (status.state, status.publication) == (State.REFUSED, None)
        assert "not ours to share" in (status.reason or "")
    assert len((await Statuses(database).changes(before)).repositories) == 2
    waiting = await Removals(database).waiting(FQRNS)
    assert [(request.fqrn, request.manifest, request.by) for request in waiting] == [
        (fqrn, digest_of("image"), "anna") for fqrn in FQRNS
    ]
    assert [request.fqrn for request in await Removals(database).waiting([FQRNS[1]])] == [FQRNS[1]]


async def test_a_removal_that_is_done_is_forgotten_with_what_went(database: Database, queue: Queue, blocks: Blocks) -> None:
    await queue.enqueue(request_for("debian:12", "image"))
    await _publish(queue, await _claim(queue), ("base", "top"))
    removals = Removals(database)
    await blocks.add([digest_of("image")], REF, "why", "anna")
    assert await removals.left([digest_of("image")]) == list(FQRNS)
    await removals.done(FQRNS[0], [digest_of("image")], [digest_of("top")])
    assert await removals.left([digest_of("image")]) == [FQRNS[1]]
    assert (await Repositories(database).held_bytes([digest_of("base"), digest_of("top")]))[FQRNS[0]] == 10


async def test_who_works_on_a_blocked_image_has_lost_it(database: Database, queue: Queue, blocks: Blocks) -> None:
    await queue.enqueue(request_for("debian:12", "image"))
    job = await _claim(queue)
    await blocks.add([digest_of("image")], REF, "why", "anna")
    with pytest.raises(LeaseExpired):
        await _publish(queue, job)
    assert await queue.claim("p", 1, 60) == []
    assert not await queue.enqueue(request_for("debian:12", "image"))


async def test_what_nobody_knows_can_be_blocked_beforehand(database: Database, blocks: Blocks) -> None:
    assert await blocks.leading_from(REF) == []
    await blocks.add([digest_of("image")], REF, "why", "anna")
    assert await Removals(database).waiting(FQRNS) == []
    ((digest, block),) = (await blocks.among([digest_of("other"), digest_of("image")])).items()
    assert digest == block.digest == digest_of("image")
    assert (block.image, block.reason, block.by) == (str(REF), "why", "anna")


async def test_lifting_undoes_the_whole_take_down_and_queues_the_image(
    database: Database, queue: Queue, blocks: Blocks, clock: Clock
) -> None:
    await queue.enqueue(request_for("debian:12", "image", "index"))
    await blocks.add(await blocks.leading_from(REF), REF, "why", "anna")
    clock.advance(1)
    await blocks.add([digest_of("another")], ImageReference.parse("debian:11"), "why", "bert")
    assert [len(group) for group in together(await blocks.all())] == [2, 1]
    lifted = await blocks.lift(digest_of("index"))
    assert {block.digest for block in lifted} == {digest_of("image"), digest_of("index")}
    assert [block.by for block in await blocks.all()] == ["bert"]
    assert await Removals(database).waiting(FQRNS) == []
    assert await blocks.lift(digest_of("index")) == []
    assert (await _claim(queue)).manifest == digest_of("image")


async def test_queued_images_say_why_they_wait_and_stop_saying_it(database: Database, queue: Queue, clock: Clock) -> None:
    waiting = WaitingReasons(database, clock=clock)
    await queue.enqueue(request_for("debian:12", "image"))
    await waiting.explain("no room")
    assert (await _status(database, "debian:12")).reason == "no room"
    before = await Statuses(database).serial()
    await waiting.explain("no room")
    assert await Statuses(database).serial() == before
    await queue.enqueue(request_for("debian:11", "other"))
    await waiting.explain("no room")
    assert (await _status(database, "debian:11")).reason == "no room"
    await waiting.clear()
    status = await _status(database, "debian:12")
    assert (status.state, status.reason) == (State.QUEUED, None)
    assert (await Statuses(database).changes(before)).repositories


async def test_waiting_concerns_queued_images_only(database: Database, queue: Queue) -> None:
    await queue.enqueue(request_for("debian:12", "image"))
    job = await _claim(queue)
    await queue.refused("p", job.manifest, "private")
    await WaitingReasons(database).explain("no room")
    await WaitingReasons(database).clear()
    assert (await _status(database, "debian:12")).reason == "private"


async def test_conditions_are_what_each_publisher_last_said(database: Database) -> None:
    conditions = Conditions(database)
    await conditions.replace("a", {Condition.DISK: "full", Condition.POLICY: "broken"})
    await conditions.replace("b", {Condition.DISK: "full too"})
    assert await conditions.all() == {Condition.DISK: "full; full too", Condition.POLICY: "broken"}
    await conditions.replace("a", {Condition.DISK: "fuller"})
    await conditions.replace("b", {})
    assert await conditions.all() == {Condition.DISK: "fuller"}


async def test_amounts_count_what_was_published_and_what_was_begun_before(database: Database, queue: Queue, clock: Clock) -> None:
    amounts = Amounts(database)
    source = REF.name
    started = clock.now
    for number in range(3):
        await queue.enqueue(request_for(f"debian:{number}", str(number)))
        clock.advance(1)
    jobs = [await _claim(queue) for _ in range(3)]
    for job in jobs:
        await amounts.note_size(job.manifest, 100)
    seen = [await amounts.before(job.manifest, source, started) for job in jobs]
    assert sorted(map(len, seen)) == [0, 1, 2]
    await _publish(queue, jobs[0])
    assert (clock.now, 100) in await amounts.before(jobs[1].manifest, source, started)
    clock.advance(10)
    assert (clock.now - 10, 100) not in await amounts.before(jobs[1].manifest, source, clock.now - 5)
    assert await amounts.before(jobs[1].manifest, ImageReference.parse("hub.test/x:1").name, started) == []


async def test_the_digest_of_one_platform_stands_for_that_only(database: Database, queue: Queue, blocks: Blocks) -> None:
    for manifest in ("amd64", "arm64"):
        await queue.enqueue(request_for(f"debian:{manifest}", manifest, "index"))
    by_digest = ImageReference.parse(f"debian@{digest_of('amd64')}")
    assert await blocks.leading_from(by_digest) == [digest_of("amd64")]
    index = ImageReference.parse(f"debian@{digest_of('index')}")
    assert set(await blocks.leading_from(index)) == {digest_of(name) for name in ("amd64", "arm64", "index")}


async def test_a_name_that_is_refused_does_not_keep_the_others_back(database: Database, queue: Queue, clock: Clock) -> None:
    for name in ("debian:12", "debian:denied"):
        await queue.enqueue(request_for(name, "image"))
    job = await _claim(queue)
    denied = next(request for request in job.requests if request.image.reference.tag == "denied")
    await queue.refuse_names("p", job.manifest, {denied: "a rule"})
    allowed = [request for request in job.requests if request != denied]
    await queue.published("p", job.manifest, FQRNS[0], {allowed[0].image: Publication(FQRNS[0], "/cvmfs/x", 2)}, [])
    assert (await _status(database, "debian:12")).state is State.PUBLISHED
    status = await _status(database, "debian:denied")
    assert (status.state, status.reason) == (State.REFUSED, "a rule")
    assert not await queue.enqueue(request_for("debian:denied", "image"))
    assert await queue.enqueue(request_for("debian:another", "image"))
    assert [request.image.reference.tag for request in (await _claim(queue)).requests] == ["another"]


async def test_an_image_whose_names_are_all_refused_takes_another_name_at_once(
    database: Database, queue: Queue, clock: Clock
) -> None:
    await queue.enqueue(request_for("debian:denied", "image"))
    job = await _claim(queue)
    await queue.refuse_names("p", job.manifest, dict.fromkeys(job.requests, "a rule"))
    with pytest.raises(LeaseExpired):
        await queue.advance("p", [job.manifest], State.INGESTING)
    assert not await queue.enqueue(request_for("debian:denied", "image"))
    assert await queue.enqueue(request_for("debian:12", "image"))
    assert [request.image.reference.tag for request in (await _claim(queue)).requests] == ["12"]
    await queue.refused("p", job.manifest, "broken")
    await queue.enqueue(request_for("debian:13", "image"))
    assert await queue.claim("p", 1, 60) == []


async def test_a_refused_name_is_judged_again_after_the_pause(database: Database, queue: Queue, clock: Clock) -> None:
    await queue.enqueue(request_for("debian:denied", "image"))
    job = await _claim(queue)
    await queue.refuse_names("p", job.manifest, dict.fromkeys(job.requests, "a rule"))
    clock.advance(86400)
    assert await queue.enqueue(request_for("debian:denied", "image"))
    assert (await _claim(queue)).requests == job.requests
