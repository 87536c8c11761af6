"""From the requests that real clients send to the jobs and the records of use that follow."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from mirror.errors import Unavailable
from mirror.jobs.model import Leftover, PlatformName, Publication, PublishRequest, State
from mirror.jobs.queue import Queue
from mirror.jobs.statuses import Statuses
from mirror.jobs.usage import Usage, Use
from mirror.observe.events import Pull, PullQueue
from mirror.observe.intake import Intake
from mirror.observe.nested import NestedIndexes, NestedLimits
from mirror.observe.recorder import Recorder
from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_INDEX, OCI_MANIFEST
from mirror.oci.platform import Platform
from mirror.oci.reference import ImageReference, RepositoryName
from mirror.state.engine import Database
from mirror.store.indexes import Indexes
from mirror.store.tags import TagRecord, Tags
from tests.support.state import Clock, SwitchedDatabase

AMD64_PLATFORM, ARM64_PLATFORM = Platform("linux", "amd64"), Platform("linux", "arm64")
TINY = RepositoryName.of("docker.io", "tiny")


@dataclass(frozen=True)
class Document:
    """A manifest or index as a registry holds it."""

    media_type: str
    raw: bytes

    @property
    def digest(self) -> Digest:
        return Digest.of(self.raw)


def _image(name: str, config: str = "application/vnd.oci.image.config.v1+json") -> Document:
    descriptor = {"mediaType": config, "digest": str(Digest.of(name.encode())), "size": 2}
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor, "layers": []}
    return Document(OCI_MANIFEST, json.dumps(document).encode())


def _index(**platforms: Document) -> Document:
    """Of images for Linux by architecture; `unknown` is for no system either, and `inner...` is listed without a platform."""
    manifests = []
    for architecture, image in platforms.items():
        entry: dict[str, object] = {"mediaType": image.media_type, "digest": str(image.digest), "size": len(image.raw)}
        if not architecture.startswith("inner"):
            system = "unknown" if architecture == "unknown" else "linux"
            entry["platform"] = {"os": system, "architecture": architecture}
        manifests.append(entry)
    return Document(OCI_INDEX, json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}).encode())


AMD64, ARM64 = _image("amd64"), _image("arm64")
MULTI = _index(arm64=ARM64, amd64=AMD64)


class Mirror:
    """What the handlers do with a manifest request, and what the recorder makes of it."""

    def __init__(self, database: Database, clock: Clock, pulls: PullQueue) -> None:
        self.clock = clock
        self.pulls = pulls
        self.tags = Tags(database)
        self.queue = Queue(database, clock=clock)
        self.statuses = Statuses(database)
        self.usage = Usage(database)
        self.hub: dict[Digest, Document] = {}
        nested = NestedIndexes(self._fetch, NestedLimits(depth=3, indexes=4, children=20, seconds=5, pause=0))
        intake = Intake(self.statuses, self.tags, Indexes(database), nested, [AMD64_PLATFORM])
        self.recorder = Recorder(
            pulls,
            queue=self.queue,
            statuses=self.statuses,
            intake=intake,
            usage=self.usage,
            batch=3,
            retry_seconds=0.01,
            rest_seconds=3600,
            timer=clock,
        )

    async def _fetch(self, name: RepositoryName, digest: Digest) -> tuple[bytes, str]:
        assert name == TINY
        if digest not in self.hub:
            raise Unavailable("the hub is away")
        return self.hub[digest].raw, self.hub[digest].media_type

    async def publish(self, *, fqrn: str = "one.example.org", revision: int = 2) -> None:
        """Record everything, and do the publisher's work, as far as the state sees it."""
        assert await self.recorder.drain(20) == 0
        for job in await self.queue.claim("p1", 100, 60.0):
            own = [request for request in job.requests if request.platform is None]
            named = [PlatformName(request.image, request.platform) for request in job.requests if request.platform is not None]
            await self.queue.published(
                "p1",
                job.manifest,
                fqrn,
                {request.image: Publication(fqrn, f"/cvmfs/{fqrn}/{request.image}", revision) for request in own},
                [],
                platforms={
                    name: Publication(fqrn, f"/cvmfs/{fqrn}/{name.platform.architecture}/{name.image}", revision)
                    for name in named
                },
            )

    async def head(self, tag: str, document: Document) -> None:
        """HEAD by tag."""
        await self._resolve(tag, document)
        self._serve(f"{TINY}:{tag}", document, None)

    async def get(self, tag: str, document: Document) -> None:
        """GET by tag."""
        await self._resolve(tag, document)
        self._serve(f"{TINY}:{tag}", document, document.raw)

    def get_digest(self, document: Document) -> None:
        """GET by digest."""
        self._serve(f"{TINY}@{document.digest}", document, document.raw)

    async def _resolve(self, tag: str, document: Document) -> None:
        await self.tags.put(TINY, tag, TagRecord(document.digest, document.media_type, len(document.raw), self.clock()))

    def _serve(self, image: str, document: Document, raw: bytes | None) -> None:
        assert self.pulls.put(Pull(self.clock(), ImageReference.parse(image), document.digest, document.media_type, raw))
        self.clock.advance(1)

    async def requests(self) -> list[PublishRequest]:
        """Record everything and return what a publisher is asked to do, tags first."""
        assert await self.recorder.drain(20) == 0
        requests = [request for job in await self.queue.claim("p1", 100, 60.0) for request in job.requests]
        return sorted(
            requests, key=lambda request: (request.image.reference.tag is None, str(request.image), str(request.platform))
        )


@pytest.fixture
def mirror(database: Database, clock: Clock) -> Mirror:
    return Mirror(database, clock, PullQueue())


@contextlib.asynccontextmanager
async def _running(recorder: Recorder) -> AsyncIterator[None]:
    task = asyncio.create_task(recorder.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _until_empty(pulls: PullQueue) -> None:
    for _ in range(2000):
        if not len(pulls):
            return
        await asyncio.sleep(0.005)
    pytest.fail("the recorder does not work")


def _order(request: PublishRequest) -> tuple[bool, str, str]:
    return request.image.reference.tag is None, str(request.image), str(request.platform)


def _named(reference: str, target: Document, manifest: Document, platform: Platform | None = None) -> PublishRequest:
    separator = "@" if ":" in reference else ":"
    return PublishRequest(ImageReference.parse(f"{TINY}{separator}{reference}"), target.digest, manifest.digest, platform)


def _default(reference: str) -> list[PublishRequest]:
    """What the index MULTI stands for under this name."""
    return [_named(reference, MULTI, AMD64), _named(reference, MULTI, AMD64, AMD64_PLATFORM)]


async def test_apptainer_gets_a_tag(mirror: Mirror) -> None:
    await mirror.get("1", AMD64)
    assert await mirror.requests() == [_named("1", AMD64, AMD64)]


async def test_skopeo_and_podman_get_a_tag_then_the_image_of_the_index(mirror: Mirror) -> None:
    await mirror.get("1", MULTI)
    mirror.get_digest(AMD64)
    assert await mirror.requests() == _default("1")


async def test_docker_and_containerd_ask_for_the_tag_by_head_and_get_by_digest(mirror: Mirror) -> None:
    await mirror.head("1", MULTI)
    mirror.get_digest(MULTI)
    mirror.get_digest(AMD64)
    assert await mirror.requests() == _default("1")


async def test_docker_gets_a_second_tag_of_the_same_image_right_after_the_first(mirror: Mirror) -> None:
    for tag in ("1", "latest"):
        await mirror.head(tag, AMD64)
        mirror.get_digest(AMD64)
        assert await mirror.recorder.drain(20) == 0
    assert await mirror.requests() == [_named("1", AMD64, AMD64), _named("latest", AMD64, AMD64)]


async def test_another_platform_gets_the_name_of_the_tag_for_itself(mirror: Mirror) -> None:
    await mirror.get("1", MULTI)
    mirror.get_digest(ARM64)
    assert await mirror.requests() == [*_default("1"), _named("1", MULTI, ARM64, ARM64_PLATFORM)]


async def test_an_image_of_an_index_that_a_tag_has_left_gets_its_digest_as_name(mirror: Mirror) -> None:
    newer = _image("newer")
    await mirror.get("1", MULTI)
    await mirror.publish()
    await mirror.get("1", newer)
    mirror.get_digest(ARM64)
    assert await mirror.requests() == [_named("1", newer, newer), _named(str(ARM64.digest), ARM64, ARM64)]


async def test_an_index_that_is_only_known_by_digest_has_platforms_too(mirror: Mirror) -> None:
    mirror.get_digest(MULTI)
    mirror.get_digest(ARM64)
    name = str(MULTI.digest)
    assert await mirror.requests() == [*_default(name), _named(name, MULTI, ARM64, ARM64_PLATFORM)]


async def test_an_attestation_is_never_published(mirror: Mirror) -> None:
    index = _index(amd64=AMD64, unknown=_image("attestation"))
    await mirror.get("1", index)
    mirror.get_digest(_image("attestation"))
    assert {request.manifest for request in await mirror.requests()} == {AMD64.digest}
    status = await mirror.statuses.status(ImageReference.parse(f"{TINY}@{_image('attestation').digest}"))
    assert status is not None
    assert status.state is State.NOT_AN_IMAGE


@pytest.mark.parametrize("by_tag", [True, False])
@pytest.mark.parametrize(
    ("artifact", "kind"),
    [
        (_image("chart", "application/vnd.cncf.helm.config.v1+json"), "helm"),
        (Document("application/vnd.oci.artifact.manifest.v1+json", b"{}"), "artifact.manifest"),
        (_index(unknown=_image("attestation")), "index"),
    ],
)
async def test_an_artifact_is_said_to_be_no_image(mirror: Mirror, artifact: Document, kind: str, *, by_tag: bool) -> None:
    if by_tag:
        await mirror.get("1", artifact)
    else:
        mirror.get_digest(artifact)
    assert await mirror.requests() == []
    status = await mirror.statuses.status(ImageReference.parse(f"{TINY}:1" if by_tag else f"{TINY}@{artifact.digest}"))
    assert status is not None
    assert (status.state, status.manifest) == (State.NOT_AN_IMAGE, artifact.digest)
    assert kind in (status.reason or "")


async def test_a_tag_that_moves_from_image_to_artifact_and_back_is_followed(mirror: Mirror) -> None:
    chart = _image("chart", "application/vnd.cncf.helm.config.v1+json")
    await mirror.get("1", MULTI)
    await mirror.publish()
    await mirror.get("1", chart)
    await mirror.publish()
    one = ImageReference.parse(f"{TINY}:1")
    status = await mirror.statuses.status(one)
    assert status is not None
    assert (status.state, status.publication) == (State.NOT_AN_IMAGE, None)
    assert len(await mirror.queue.leftovers(["one.example.org"], 10)) == 2, "the link of the tag, and that for its platform"
    await mirror.get("1", MULTI)
    await mirror.publish(revision=4)
    status = await mirror.statuses.status(one)
    assert status is not None
    assert status.publication is not None
    assert await mirror.queue.leftovers(["one.example.org"], 10) == []


async def test_a_tag_that_moves_takes_the_platforms_along_that_it_was_used_for(mirror: Mirror) -> None:
    await mirror.get("1", MULTI)
    mirror.get_digest(ARM64)
    await mirror.publish()
    newer = _index(arm64=_image("newer arm64"), amd64=_image("newer amd64"), riscv64=_image("newer riscv64"))
    await mirror.get("1", newer)
    assert {(request.manifest, request.platform) for request in await mirror.requests()} == {
        (_image("newer amd64").digest, None),
        (_image("newer amd64").digest, AMD64_PLATFORM),
        (_image("newer arm64").digest, ARM64_PLATFORM),
    }


async def test_a_platform_that_a_tag_has_no_more_loses_its_link(mirror: Mirror) -> None:
    await mirror.get("1", MULTI)
    mirror.get_digest(ARM64)
    await mirror.publish()
    await mirror.get("1", _index(amd64=_image("newer amd64")))
    assert await mirror.recorder.drain(20) == 0
    path = f"/cvmfs/one.example.org/arm64/{TINY}:1"
    assert await mirror.queue.leftovers(["one.example.org"], 10) == [Leftover("one.example.org", path)]
    one = ImageReference.parse(f"{TINY}:1")
    assert [status.platform for status in await mirror.statuses.platforms(one)] == [AMD64_PLATFORM]


async def test_indexes_in_indexes_are_looked_into(mirror: Mirror) -> None:
    inner = _index(inner_image=AMD64)
    deep = _index(inner_index=_index(riscv64=_image("deep")))
    outer = Document(
        OCI_INDEX,
        _index(arm64=ARM64, amd64=inner, inner_deep=deep).raw,
    )
    for document in (inner, deep, _index(riscv64=_image("deep"))):
        mirror.hub[document.digest] = document
    await mirror.get("1", outer)
    mirror.get_digest(_image("deep"))
    assert await mirror.requests() == [
        _named("1", outer, AMD64),
        _named("1", outer, AMD64, AMD64_PLATFORM),
        _named("1", outer, _image("deep"), Platform("linux", "riscv64")),
    ]


async def test_an_inner_index_that_cannot_be_read_now_is_read_at_the_next_pull(mirror: Mirror) -> None:
    inner = _index(amd64=AMD64)
    outer = _index(inner=inner)
    await mirror.get("1", outer)
    assert await mirror.requests() == []
    mirror.hub[inner.digest] = inner
    await mirror.get("1", outer)
    assert {request.manifest for request in await mirror.requests()} == {AMD64.digest}


async def test_indexes_in_indexes_have_bounds(mirror: Mirror) -> None:
    document = AMD64
    for _ in range(6):
        document = _index(**{f"inner{number}": document for number in range(3)})
        mirror.hub[document.digest] = document
    await mirror.get("1", document)
    assert await mirror.requests() == []


async def test_an_image_that_is_only_known_by_digest_gets_that_name(mirror: Mirror) -> None:
    mirror.get_digest(MULTI)
    mirror.get_digest(AMD64)
    assert await mirror.requests() == _default(str(MULTI.digest))


async def test_looking_is_not_pulling(mirror: Mirror) -> None:
    await mirror.head("1", AMD64)
    assert await mirror.requests() == []


async def test_a_manifest_that_cannot_be_read_does_not_stop_the_next_one(mirror: Mirror) -> None:
    await mirror.get("broken", Document(OCI_MANIFEST, b'{"config": 7}'))
    await mirror.get("1", AMD64)
    assert await mirror.requests() == [_named("1", AMD64, AMD64)]


async def test_a_tag_that_moves_and_moves_back_is_followed_each_time(mirror: Mirror) -> None:
    for document in (AMD64, ARM64, AMD64):
        await mirror.get("1", document)
    requests = await mirror.requests()
    assert _named("1", AMD64, AMD64) in requests
    assert _named("1", ARM64, ARM64) not in requests


async def test_use_is_the_last_pull_or_head_and_each_pull_counts_once(mirror: Mirror) -> None:
    for _ in range(2):
        await mirror.head("1", MULTI)
        mirror.get_digest(MULTI)
        mirror.get_digest(AMD64)
    await mirror.requests()
    assert await mirror.usage.of(AMD64.digest) == Use(mirror.clock() - 1, 2)
    mirror.clock.advance(3600)
    await mirror.head("1", MULTI)
    await mirror.requests()
    assert await mirror.usage.of(AMD64.digest) == Use(mirror.clock() - 1, 2)


async def test_a_name_that_is_pulled_all_the_time_is_not_judged_all_the_time(mirror: Mirror, database: SwitchedDatabase) -> None:
    await mirror.get("1", AMD64)
    await mirror.requests()
    uses = database.uses
    for _ in range(3):
        mirror._serve(f"{TINY}:1", AMD64, AMD64.raw)
    await mirror.recorder.drain(20)
    assert database.uses == uses + 1, "one record of use for all"


async def test_a_crowd_is_written_down_now_and_then_and_to_the_last_one(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    writes = 0
    add = mirror.usage.add

    async def counted(uses: Mapping[Digest, Use]) -> None:
        nonlocal writes
        writes += 1
        await add(uses)

    monkeypatch.setattr(mirror.usage, "add", counted)
    async with _running(mirror.recorder):
        for _ in range(2):  # The first pull is news; the second one is not, and the recorder rests from then on.
            await mirror.get("1", AMD64)
            await _until_empty(mirror.pulls)
        for _ in range(50):
            await mirror.get("1", AMD64)
            await asyncio.sleep(0)
        assert (writes, len(mirror.pulls)) == (2, 50)
    await mirror.recorder.drain(20)
    assert await mirror.usage.of(AMD64.digest) == Use(mirror.clock() - 1, 52)


async def test_news_behind_a_crowd_of_many_names_does_not_wait_for_rests(mirror: Mirror) -> None:
    tags = [str(number) for number in range(30)]
    for tag in tags:
        await mirror.get(tag, AMD64)
    assert await mirror.recorder.drain(20) == 0
    for tag in tags:
        await mirror.get(tag, AMD64)
    await mirror.get("new", ARM64)
    async with _running(mirror.recorder):
        await _until_empty(mirror.pulls)
    assert _named("new", ARM64, ARM64) in await mirror.requests()


async def test_a_refused_image_is_judged_again_when_it_is_pulled_much_later(mirror: Mirror) -> None:
    await mirror.get("1", AMD64)
    [request] = await mirror.requests()
    await mirror.queue.refused("p1", AMD64.digest, "too big")
    mirror.clock.advance(2 * 24 * 3600)
    await mirror.get("1", AMD64)
    assert await mirror.requests() == [request]


async def test_pulls_wait_while_the_database_is_away_and_none_that_was_accepted_is_lost(
    database: SwitchedDatabase, clock: Clock
) -> None:
    mirror = Mirror(database, clock, PullQueue(pulls=20))
    documents = [_image(str(number)) for number in range(25)]
    async with _running(mirror.recorder):
        database.away = True
        accepted = [
            mirror.pulls.put(Pull(1.0, ImageReference.parse(f"tiny:{number}"), document.digest, OCI_MANIFEST, document.raw))
            for number, document in enumerate(documents)
        ]
        assert accepted == [True] * 20 + [False] * 5
        await asyncio.sleep(0.05)
        assert len(mirror.pulls) == 20
        database.away = False
        await _until_empty(mirror.pulls)
    jobs = await mirror.queue.claim("p1", 100, 60.0)
    assert {job.manifest for job in jobs} == {document.digest for document in documents[:20]}
    assert mirror.pulls.dropped == 5


async def test_a_database_that_goes_away_in_the_middle_loses_nothing(database: SwitchedDatabase, clock: Clock) -> None:
    mirror = Mirror(database, clock, PullQueue())
    for number in range(6):
        await mirror.get(str(number), _image(str(number)))

    enqueue, calls = mirror.queue.enqueue_all, 0

    async def flaky(requests: Sequence[PublishRequest], gone: Any = ()) -> list[PublishRequest]:
        nonlocal calls
        calls += 1
        database.away = calls % 2 == 0
        try:
            return await enqueue(requests, gone)
        finally:
            database.away = False

    mirror.queue.enqueue_all = flaky  # type: ignore[method-assign]
    async with _running(mirror.recorder):
        await _until_empty(mirror.pulls)
    assert len(await mirror.queue.claim("p1", 100, 60.0)) == 6


async def test_what_cannot_be_recorded_before_the_end_is_counted(mirror: Mirror, database: SwitchedDatabase) -> None:
    await mirror.get("1", AMD64)
    database.away = True
    assert await mirror.recorder.drain(0.1) == 1
    database.away = False
    assert await mirror.requests() == [_named("1", AMD64, AMD64)]


async def test_publication_makes_no_new_job_of_the_next_pull(mirror: Mirror) -> None:
    await mirror.get("1", MULTI)
    await mirror.publish()
    mirror.clock.advance(3600)
    await mirror.get("1", MULTI)
    mirror.get_digest(AMD64)
    assert await mirror.requests() == []


async def test_a_pull_that_breaks_the_recorder_does_not_keep_it_from_the_others(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = mirror.statuses.requests

    async def breaks(name: RepositoryName, digest: Digest) -> list[PublishRequest]:
        if digest == AMD64.digest:
            raise ValueError("nobody thought of this")
        return await requests(name, digest)

    monkeypatch.setattr(mirror.statuses, "requests", breaks)
    await mirror.get("bad", AMD64)
    await mirror.get("good", ARM64)
    assert [str(request.image.reference) for request in await mirror.requests()] == ["good"]
