"""Names for platforms, and public links that are out of date: in the state, as mirror and publisher see them."""

from __future__ import annotations

import pytest

from mirror.jobs.leases import LeaseExpired
from mirror.jobs.model import ImageStatus, Leftover, PlatformName, Publication, PublishRequest, State
from mirror.jobs.queue import Queue
from mirror.jobs.statuses import Statuses
from mirror.oci.manifest import OCI_MANIFEST, Descriptor
from mirror.oci.platform import Platform
from mirror.oci.reference import ImageReference
from mirror.state.engine import Database
from mirror.store.indexes import Indexes
from tests.support.state import Clock, SwitchedDatabase, digest_of, request_for

ONE, TWO = "one.example.org", "two.example.org"
AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
DEBIAN = ImageReference.parse("debian:12")


@pytest.fixture
def queue(database: Database, clock: Clock) -> Queue:
    return Queue(database, clock=clock)


@pytest.fixture
def statuses(database: Database) -> Statuses:
    return Statuses(database)


def _request(manifest: str, platform: Platform | None = None, target: str | None = None) -> PublishRequest:
    plain = request_for("debian:12", manifest, target)
    return PublishRequest(plain.image, plain.target, plain.manifest, platform)


def _own(fqrn: str) -> str:
    return f"/cvmfs/{fqrn}/debian:12"


def _path(fqrn: str, platform: Platform) -> str:
    return f"/cvmfs/{fqrn}/{platform.architecture}/debian:12"


async def _publish(queue: Queue, fqrn: str = ONE, *, shown: Platform | None = None) -> None:
    """Do all that waits. shown: the platform that the config of an image shows, where nobody asked for one."""
    for job in await queue.claim("p1", 100, 60.0):
        own = {request.image for request in job.requests if request.platform is None}
        platforms = {PlatformName(request.image, request.platform) for request in job.requests if request.platform is not None}
        if shown is not None:
            platforms |= {PlatformName(image, shown) for image in own}
        await queue.published(
            "p1",
            job.manifest,
            fqrn,
            {image: Publication(fqrn, _own(fqrn), 2) for image in own},
            [],
            platforms={name: Publication(fqrn, _path(fqrn, name.platform), 2) for name in platforms},
        )


async def _status(statuses: Statuses, platform: Platform | None = None) -> ImageStatus:
    status = await statuses.status(DEBIAN, platform)
    assert status is not None
    return status


async def _platforms(statuses: Statuses) -> dict[Platform | None, str | None]:
    return {
        status.platform: status.publication.path if status.publication else None for status in await statuses.platforms(DEBIAN)
    }


async def _leftovers(queue: Queue) -> set[str]:
    found = await queue.leftovers([ONE, TWO], 100)
    assert all(f"/cvmfs/{leftover.fqrn}/" in leftover.path for leftover in found)
    return {leftover.path for leftover in found}


async def test_a_name_has_a_path_for_each_platform_and_one_without(queue: Queue, statuses: Statuses) -> None:
    requests = [_request("m", target="i"), _request("m", AMD64, "i"), _request("n", ARM64, "i")]
    assert await queue.enqueue_all(requests) == requests
    assert await queue.enqueue_all(requests) == []
    await _publish(queue)
    assert (await _status(statuses)).publication == Publication(ONE, _own(ONE), 2)
    assert await _platforms(statuses) == {AMD64: _path(ONE, AMD64), ARM64: _path(ONE, ARM64)}
    for digest, path in (("i", _own(ONE)), ("m", _own(ONE)), ("n", _path(ONE, ARM64))):
        status = await statuses.status(ImageReference.parse(f"debian@{digest_of(digest)}"))
        assert status is not None
        assert status.publication is not None
        assert status.publication.path == path


async def test_the_image_without_a_platform_is_what_an_index_stands_for_published_or_not(
    queue: Queue, statuses: Statuses
) -> None:
    await queue.enqueue(_request("n", ARM64, "i"))
    await _publish(queue)
    await queue.enqueue(_request("m", target="i"))
    status = await statuses.status(ImageReference.parse(f"debian@{digest_of('i')}"))
    assert status is not None
    assert (status.manifest, status.state) == (digest_of("m"), State.QUEUED)


async def test_a_platform_that_publishing_shows_becomes_a_name(queue: Queue, statuses: Statuses) -> None:
    await queue.enqueue(_request("m"))
    await _publish(queue, shown=ARM64)
    assert await _platforms(statuses) == {ARM64: _path(ONE, ARM64)}
    assert not await queue.enqueue(_request("m"))


async def test_a_link_that_moves_with_its_tag_is_never_left_over(queue: Queue, statuses: Statuses) -> None:
    await queue.enqueue(_request("old"))
    await _publish(queue, shown=AMD64)
    await queue.enqueue(_request("new"))
    assert await _leftovers(queue) == set(), "the old links stay until the new image is there"
    await _publish(queue, shown=AMD64)
    assert await _leftovers(queue) == set()
    assert (await _status(statuses, AMD64)).manifest == digest_of("new")


async def test_a_tag_that_moves_to_the_other_repository_leaves_its_links_behind_to_be_removed(
    queue: Queue, statuses: Statuses
) -> None:
    await queue.enqueue(_request("old"))
    await _publish(queue, ONE, shown=AMD64)
    await queue.enqueue(_request("new"))
    assert (await _status(statuses)).state is State.QUEUED
    await _publish(queue, TWO, shown=AMD64)
    assert (await _status(statuses)).publication == Publication(TWO, _own(TWO), 2)
    assert await _leftovers(queue) == {_own(ONE), _path(ONE, AMD64)}
    await queue.removed([Leftover(ONE, _own(ONE))])
    assert await _leftovers(queue) == {_path(ONE, AMD64)}


async def test_a_tag_that_comes_back_in_time_has_its_old_link_again(queue: Queue) -> None:
    for manifest, fqrn in (("old", ONE), ("new", TWO), ("newest", ONE)):
        await queue.enqueue(_request(manifest))
        await _publish(queue, fqrn)
    assert await _leftovers(queue) == {_own(TWO)}


async def test_a_tag_that_becomes_an_image_for_another_platform_has_no_other_platform_any_more(
    queue: Queue, statuses: Statuses
) -> None:
    await queue.enqueue_all([_request("m", target="i"), _request("m", AMD64, "i"), _request("n", ARM64, "i")])
    await _publish(queue)
    await queue.enqueue(_request("new"))
    await _publish(queue, shown=ARM64)
    assert await _platforms(statuses) == {ARM64: _path(ONE, ARM64)}
    assert (await _status(statuses, ARM64)).manifest == digest_of("new")
    assert await _leftovers(queue) == {_path(ONE, AMD64)}


async def test_a_link_that_was_placed_for_a_name_that_is_gone_is_left_over(queue: Queue, statuses: Statuses) -> None:
    await queue.enqueue_all([_request("m", target="i"), _request("n", ARM64, "i")])
    jobs = {job.manifest: job for job in await queue.claim("p1", 10, 60.0)}
    await queue.enqueue_all([], [(DEBIAN, ARM64)])
    job = jobs[digest_of("n")]
    platforms = {PlatformName(DEBIAN, ARM64): Publication(ONE, _path(ONE, ARM64), 3)}
    await queue.published("p1", job.manifest, ONE, {}, [], platforms=platforms)
    assert await _leftovers(queue) == {_path(ONE, ARM64)}
    assert await _platforms(statuses) == {}
    left = await statuses.status(ImageReference.parse(f"debian@{digest_of('n')}"))
    assert left is not None, "what was requested stays requested, under its digest"


async def test_a_platforms_link_of_an_image_that_its_name_has_left_meanwhile_is_set_right_again(
    queue: Queue, statuses: Statuses
) -> None:
    await queue.enqueue(_request("old"))
    [old] = await queue.claim("p1", 10, 60.0)
    await queue.enqueue(_request("new"))
    [new] = [job for job in await queue.claim("p1", 10, 60.0) if job.manifest == digest_of("new")]
    own, platform = {DEBIAN: Publication(ONE, _own(ONE), 2)}, PlatformName(DEBIAN, AMD64)
    link = {platform: Publication(ONE, _path(ONE, AMD64), 2)}
    await queue.published("p1", new.manifest, ONE, own, [], platforms=link)
    await queue.published("p1", old.manifest, ONE, own, [], platforms=link)
    await _publish(queue, shown=AMD64)
    for found in (await _status(statuses), await _status(statuses, AMD64)):
        assert (found.manifest, found.state) == (digest_of("new"), State.PUBLISHED)
    assert await _leftovers(queue) == set()


async def test_an_image_that_turns_out_to_be_none_says_so_and_is_left_alone_for_a_while(queue: Queue, statuses: Statuses) -> None:
    await queue.enqueue(_request("m"))
    await queue.claim("p1", 1, 60.0)
    with pytest.raises(LeaseExpired):
        await queue.not_an_image("p2", digest_of("m"), "an attestation")
    await queue.not_an_image("p1", digest_of("m"), "an attestation")
    status = await _status(statuses)
    assert (status.state, status.reason) == (State.NOT_AN_IMAGE, "an attestation")
    assert State.NOT_AN_IMAGE in await statuses.times(digest_of("m"))
    assert (await statuses.counts())[State.NOT_AN_IMAGE] == 1
    assert not await queue.enqueue(_request("m"))


async def test_an_artifact_is_noted_once(queue: Queue, statuses: Statuses, database: SwitchedDatabase) -> None:
    assert await queue.note_artifact([DEBIAN], digest_of("chart"), "a chart")
    uses = database.uses
    assert not await queue.note_artifact([DEBIAN], digest_of("chart"), "a chart")
    assert database.uses == uses + 1
    assert await queue.claim("p1", 10, 60.0) == []
    assert (await _status(statuses)).reason == "a chart"


async def test_a_name_that_is_gone_is_seen_by_those_who_remember_it(queue: Queue, statuses: Statuses) -> None:
    await queue.enqueue_all([_request("m", target="i"), _request("n", ARM64, "i")])
    before = await statuses.serial()
    await queue.enqueue_all([], [(DEBIAN, ARM64)])
    assert (await statuses.changes(before)).repositories == {DEBIAN.name}


async def test_indexes_remember_what_they_list_in_order(database: SwitchedDatabase) -> None:
    children = [
        Descriptor(OCI_MANIFEST, digest_of("z"), 1, ARM64),
        Descriptor(OCI_MANIFEST, digest_of("a"), 2),
        Descriptor(OCI_MANIFEST, digest_of("a"), 2, Platform("../x", "amd64", "v1/v2")),
        Descriptor(OCI_MANIFEST, digest_of("s"), 3, AMD64, artifact_type="application/spdx+json"),
    ]
    for indexes in (Indexes(database), Indexes(database)):
        await indexes.add(digest_of("i"), children)
        uses = database.uses
        await indexes.add(digest_of("i"), children)
        assert database.uses == uses
    await Indexes(database).add(digest_of("empty"), [])
    found = await Indexes(database).children(digest_of("i"))
    assert [(child.digest, child.platform) for child in found] == [
        (digest_of("z"), ARM64),
        (digest_of("a"), None),
        (digest_of("a"), None),
        (digest_of("s"), Platform("unknown", "unknown")),
    ]
    assert await Indexes(database).listing(digest_of("a")) == [digest_of("i")]
    assert await Indexes(database).listing(digest_of("never")) == []


async def test_where_names_have_links_is_known_for_any_number_of_names(queue: Queue) -> None:
    await queue.enqueue_all([_request("m", target="i"), _request("m", AMD64, "i")])
    await _publish(queue, TWO)
    assert await queue.link_places([DEBIAN]) == {TWO}
    assert await queue.link_places([ImageReference.parse("debian:13")]) == frozenset()
    many = [ImageReference.parse(f"debian:{number}") for number in range(5000)]
    assert await queue.link_places(many) <= {TWO}
