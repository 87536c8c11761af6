"""Looking up what is known of an image, and the memory in front of that."""

from __future__ import annotations

import asyncio

import pytest

from mirror.jobs.model import ImageStatus, Publication, State
from mirror.jobs.publications import PublicationIndex
from mirror.jobs.queue import Queue
from mirror.jobs.statuses import Changes, Statuses
from mirror.oci.digest import Digest
from mirror.oci.platform import Platform
from mirror.oci.reference import ImageReference, RepositoryName
from mirror.state.engine import Database
from tests.support.state import Clock, SwitchedDatabase, digest_of, request_for

FQRN = "images.example.org"
DEBIAN = RepositoryName.of("docker.io", "debian")


@pytest.fixture
def queue(database: Database, clock: Clock) -> Queue:
    return Queue(database, clock=clock)


@pytest.fixture
def statuses(database: Database) -> Statuses:
    return Statuses(database)


async def _publish_all(queue: Queue) -> None:
    for job in await queue.claim("p1", 100, 60.0):
        names = {request.image: Publication(FQRN, f"/cvmfs/{FQRN}/{request.image}", 2) for request in job.requests}
        await queue.published("p1", job.manifest, FQRN, names, [])


def _image(text: str) -> ImageReference:
    return ImageReference.parse(text)


async def _lookup(index: PublicationIndex, image: str, served: str) -> ImageStatus | None:
    return await index.lookup(_image(image), digest_of(served))


async def test_a_name_that_was_never_pulled_is_unknown(queue: Queue, statuses: Statuses) -> None:
    await queue.enqueue(request_for("debian:12", "m"))
    for image in ("debian:13", "quay.io/library/debian:12", f"debian@{digest_of('other')}"):
        assert await statuses.status(_image(image)) is None


@pytest.mark.parametrize("digest", ["m", "index"])
async def test_a_digest_leads_to_the_name_that_is_published_first(
    queue: Queue, statuses: Statuses, clock: Clock, digest: str
) -> None:
    for tag in ("12", "bookworm"):
        await queue.enqueue(request_for(f"debian:{tag}", "m", target="index"))
        clock.advance(1)
        await _publish_all(queue)
    await queue.enqueue(request_for("debian:0", "m", target="index"))
    status = await statuses.status(_image(f"debian@{digest_of(digest)}"))
    assert status is not None
    assert status.publication is not None
    assert status.publication.path.endswith("debian:12")
    assert await statuses.status(_image(f"quay.io/debian@{digest_of(digest)}")) is None


async def test_names_that_lead_to_a_digest(queue: Queue, statuses: Statuses) -> None:
    requests = [request_for("debian:12", "m", target="index"), request_for("debian:13", "m")]
    for request in [*requests, request_for("debian:other", "n"), request_for("quay.io/debian:12", "m")]:
        await queue.enqueue(request)
    assert sorted(await statuses.requests(DEBIAN, digest_of("m")), key=str) == sorted(requests, key=str)
    assert await statuses.requests(DEBIAN, digest_of("index")) == requests[:1]


async def test_images_are_counted_by_state(queue: Queue, statuses: Statuses) -> None:
    await queue.enqueue(request_for("debian:12", "m"))
    await _publish_all(queue)
    for number in range(3):
        await queue.enqueue(request_for(f"debian:{number}", f"m{number}"))
    counts = await statuses.counts()
    assert set(counts) == set(State)
    assert {state: number for state, number in counts.items() if number} == {State.PUBLISHED: 1, State.QUEUED: 3}


async def test_changes_name_every_repository_whose_images_changed(queue: Queue, statuses: Statuses) -> None:
    start = await statuses.serial()
    assert await statuses.changes(start) == Changes(start, frozenset())
    await queue.enqueue(request_for("debian:12", "m"))
    await queue.enqueue(request_for("quay.io/a/copy:1", "m"))
    queued = await statuses.changes(start)
    assert queued.repositories == {DEBIAN, RepositoryName.of("quay.io", "a/copy")}
    assert (await statuses.changes(queued.serial)).repositories == frozenset()
    await queue.claim("p1", 1, 60.0)
    assert (await statuses.changes(queued.serial)).repositories == queued.repositories


async def test_a_warm_answer_costs_no_sql_even_if_nothing_is_known(
    queue: Queue, statuses: Statuses, database: SwitchedDatabase
) -> None:
    await queue.enqueue(request_for("debian:12", "m"))
    index = PublicationIndex(statuses)
    await index.refresh()
    first = [await _lookup(index, "debian:12", "m"), await _lookup(index, "debian:13", "n")]
    uses = database.uses
    assert [await _lookup(index, "debian:12", "m"), await _lookup(index, "debian:13", "n")] == first
    assert first[0] is not None
    assert first[1] is None
    assert database.uses == uses


async def test_a_change_reaches_the_memory_at_the_next_look(queue: Queue, statuses: Statuses) -> None:
    index = PublicationIndex(statuses)
    await index.refresh()
    by_digest = f"debian@{digest_of('m')}"
    assert await _lookup(index, "debian:12", "m") is None
    assert await _lookup(index, by_digest, "m") is None
    await queue.enqueue(request_for("debian:12", "m"))
    await _publish_all(queue)
    assert await _lookup(index, "debian:12", "m") is None
    await index.refresh()
    for image in ("debian:12", by_digest):
        status = await _lookup(index, image, "m")
        assert status is not None
        assert status.state is State.PUBLISHED


async def test_the_path_of_a_moved_tag_is_never_told_for_its_new_image(queue: Queue, statuses: Statuses) -> None:
    await queue.enqueue(request_for("debian:12", "old", target="old index"))
    await _publish_all(queue)
    index = PublicationIndex(statuses)
    await index.refresh()
    assert await _lookup(index, "debian:12", "old index") is not None
    assert await _lookup(index, "debian:12", "new index") is None
    await queue.enqueue(request_for("debian:other", "new", target="new index"))
    await index.refresh()
    status = await _lookup(index, "debian:12", "new index")
    assert status is not None
    assert status.image == _image("debian:other")


async def test_an_answer_that_was_under_way_during_a_change_is_not_remembered(queue: Queue, database: Database) -> None:
    class SlowStatuses(Statuses):
        async def status(self, image: ImageReference, platform: Platform | None = None) -> ImageStatus | None:
            answer = await super().status(image, platform)
            await queue.enqueue(request_for("debian:12", "m"))
            await index.refresh()
            return answer

    index = PublicationIndex(SlowStatuses(database))
    await index.refresh()
    image = f"debian@{digest_of('m')}"
    assert await _lookup(index, image, "m") is None
    assert await _lookup(index, image, "m") is not None


async def test_known_answers_go_on_while_the_database_is_away(
    queue: Queue, statuses: Statuses, database: SwitchedDatabase
) -> None:
    await queue.enqueue(request_for("debian:12", "m"))
    index = PublicationIndex(statuses)
    await index.refresh()
    await _lookup(index, "debian:12", "m")
    database.away = True
    await index.refresh()
    assert await _lookup(index, "debian:12", "m") is not None
    assert await _lookup(index, "debian:13", "n") is None
    database.away = False
    await _publish_all(queue)
    await queue.enqueue(request_for("debian:13", "n"))
    await index.refresh()
    published = await _lookup(index, "debian:12", "m")
    assert published is not None
    assert published.state is State.PUBLISHED
    assert await _lookup(index, "debian:13", "n") is not None, "not knowing was no answer to remember"


async def test_nothing_is_remembered_before_changes_are_followed(
    queue: Queue, statuses: Statuses, database: SwitchedDatabase
) -> None:
    index = PublicationIndex(statuses)
    database.away = True
    await index.refresh()
    database.away = False
    assert await _lookup(index, "debian:12", "m") is None
    await queue.enqueue(request_for("debian:12", "m"))
    assert await _lookup(index, "debian:12", "m") is not None


async def test_the_memory_is_bounded(statuses: Statuses) -> None:
    index = PublicationIndex(statuses, remembered=3)
    await index.refresh()
    for number in range(10):
        await index.lookup(_image(f"debian:{number}"), Digest.of(b"x"))
    assert len(index._memory) == 3


async def test_the_watcher_follows_by_itself(queue: Queue, statuses: Statuses) -> None:
    index = PublicationIndex(statuses, interval=0.01)
    watcher = asyncio.create_task(index.watch())
    await asyncio.sleep(0.05)
    assert await _lookup(index, "debian:12", "m") is None
    await queue.enqueue(request_for("debian:12", "m"))
    for _ in range(1000):
        if await _lookup(index, "debian:12", "m") is not None:
            break
        await asyncio.sleep(0.01)
    else:
        pytest.fail("the change was not seen")
    watcher.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watcher
