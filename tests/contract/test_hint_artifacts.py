"""Hint artifacts found by digest, in what the state database says of a repository, by processes that did not list them."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import update

from mirror.jobs.blocks import Blocks
from mirror.jobs.change import Change, is_of
from mirror.jobs.model import Publication
from mirror.jobs.publications import PublicationIndex
from mirror.jobs.queue import Queue
from mirror.jobs.statuses import Statuses
from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_INDEX, OCI_MANIFEST, Descriptor
from mirror.oci.platform import Platform
from mirror.oci.reference import ImageReference, RepositoryName
from mirror.proxy.hint_artifact import HintArtifact
from mirror.proxy.hint_artifacts import HintArtifacts
from mirror.state.schema import names
from mirror.store.links import Links
from tests.support.state import Clock, SwitchedDatabase, digest_of, request_for

FQRN = "images.example.org"
DEBIAN = RepositoryName.of("docker.io", "debian")
KEPT = 600.0


@pytest.fixture
def queue(database: SwitchedDatabase, clock: Clock) -> Queue:
    return Queue(database, clock=clock)


def process(database: SwitchedDatabase, clock: Clock, remembered: int = 1000) -> HintArtifacts:
    """With memories of its own."""
    statuses = Statuses(database)
    index = PublicationIndex(statuses)
    return HintArtifacts(index, statuses, Links(database), kept_seconds=KEPT, remembered=remembered, timer=clock)


async def publish(database: SwitchedDatabase, queue: Queue, image: str, manifest: str, target: str | None = None) -> None:
    """As the mirror and the publisher do it: the manifests are pulled, and published."""
    links = Links(database)
    request = request_for(image, manifest, target)
    for digest, media_type in {request.manifest: OCI_MANIFEST, request.target: OCI_INDEX if target else OCI_MANIFEST}.items():
        await links.add(request.image.name, Descriptor(media_type, digest, 100), [])
    await queue.enqueue(request)
    for job in await queue.claim("p1", 100, 60.0):
        publications = {one.image: Publication(FQRN, f"/cvmfs/{FQRN}/{one.image}", 2) for one in job.requests}
        await queue.published("p1", job.manifest, FQRN, publications, [])


async def listed(hints: HintArtifacts, subject: str, name: RepositoryName = DEBIAN) -> HintArtifact:
    found = await hints.of(name, digest_of(subject))
    assert found is not None
    return found


@pytest.mark.parametrize("subject", ["m", "index"])
async def test_every_part_is_found_by_who_did_not_list_it(
    database: SwitchedDatabase, queue: Queue, clock: Clock, subject: str
) -> None:
    await publish(database, queue, "debian:12", "m", target="index")
    await publish(database, queue, "debian:13", "n")
    artifact = await listed(process(database, clock), subject)
    for digest in artifact.digests:
        found = await process(database, clock).find(DEBIAN, digest)
        assert found is not None
        assert digest in found.digests
    assert await process(database, clock).find(DEBIAN, artifact.digest) == artifact
    assert await process(database, clock).find(RepositoryName.of("quay.io", "debian"), artifact.digest) is None


async def test_what_comes_later_is_found_by_who_has_looked_before(database: SwitchedDatabase, queue: Queue, clock: Clock) -> None:
    other = process(database, clock)
    await publish(database, queue, "debian:12", "m")
    first = await listed(process(database, clock), "m")
    assert await other.find(DEBIAN, digest_of("nothing")) is None
    await publish(database, queue, "debian:13", "n")
    second = await listed(process(database, clock), "n")
    assert [await other.find(DEBIAN, one.digest) for one in (first, second)] == [first, second]


async def test_what_is_true_no_more_is_found_for_a_while_by_who_listed_it(
    database: SwitchedDatabase, queue: Queue, clock: Clock
) -> None:
    await publish(database, queue, "debian:12", "m")
    hints = process(database, clock)
    old = await listed(hints, "m")
    async with Change.begin(database, clock()) as change:
        await change.update_name(ImageReference.parse("debian:12"), revision=3)
    new = await listed(hints, "m")
    assert new.digest != old.digest
    clock.advance(KEPT - 1)
    assert await hints.find(DEBIAN, old.digest) == old
    clock.advance(2)
    assert await hints.find(DEBIAN, old.digest) is None
    assert await hints.find(DEBIAN, new.digest) == new


async def test_what_is_taken_down_is_found_by_nobody_else(database: SwitchedDatabase, queue: Queue, clock: Clock) -> None:
    await publish(database, queue, "debian:12", "m")
    await publish(database, queue, "debian:13", "n")
    other = process(database, clock)
    gone = await listed(process(database, clock), "n")
    assert await other.find(DEBIAN, digest_of("nothing")) is None
    await Blocks(database, clock=clock).add([digest_of("n")], ImageReference.parse("debian:13"), "for a test", "the test")
    assert await other.find(DEBIAN, gone.digest) is None
    assert await other.of(DEBIAN, digest_of("n")) is None
    # What all artifacts have in common is still there for those that are left.
    empty = await other.find(DEBIAN, Digest.of(b"{}"))
    assert empty is not None
    assert empty.subject.digest == digest_of("m")


async def test_of_more_than_is_remembered_the_newest_are_found(database: SwitchedDatabase, queue: Queue, clock: Clock) -> None:
    for number in range(12):
        await publish(database, queue, f"debian:{number}", f"m{number}")
    new, old = [await listed(process(database, clock), subject) for subject in ("m11", "m0")]
    hints = process(database, clock, remembered=80)
    assert await hints.find(DEBIAN, new.digest) == new
    assert await hints.find(DEBIAN, old.digest) is None


async def test_what_an_upstream_may_have_is_left_to_it(database: SwitchedDatabase, queue: Queue, clock: Clock) -> None:
    await publish(database, queue, "debian:12", "m")
    empty = Digest.of(b"{}")
    assert await process(database, clock).find(DEBIAN, empty) is not None
    await Links(database).add(DEBIAN, Descriptor(OCI_MANIFEST, digest_of("chart"), 100), [Descriptor("a/b", empty, 2)])
    assert await process(database, clock).find(DEBIAN, empty) is None


async def test_an_image_for_a_platform_has_the_path_of_that(database: SwitchedDatabase, queue: Queue, clock: Clock) -> None:
    await publish(database, queue, "debian:12", "m", target="index")
    arm = Platform("linux", "arm64")
    path = f"/cvmfs/{FQRN}/.multiarch/arm64/docker.io/library/debian:12"
    async with Change.begin(database, clock()) as change:
        values = {"platform": str(arm), "path": path, "serial": change.serial}
        await change.connection.execute(update(names).where(*is_of(ImageReference.parse("debian:12"))).values(values))
    artifact = await listed(process(database, clock), "m")
    layer = json.loads(artifact.manifest)["layers"][0]["digest"]
    assert json.loads(artifact.blobs[Digest.parse(layer)])["platform"] == str(arm)
    assert await process(database, clock).find(DEBIAN, artifact.digest) == artifact


async def test_without_the_database_nothing_fails(database: SwitchedDatabase, queue: Queue, clock: Clock) -> None:
    await publish(database, queue, "debian:12", "m")
    hints = process(database, clock)
    artifact = await listed(hints, "m")
    database.away = True
    assert await hints.find(DEBIAN, artifact.digest) == artifact
    other = process(database, clock)
    assert await other.find(DEBIAN, artifact.digest) is None
    assert await other.of(DEBIAN, digest_of("m")) is None
