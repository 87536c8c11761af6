"""Any order of pulls, claims, crashes, expiries, reports: one live claim an image, nothing lost, every name ends up published."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import select

from mirror.jobs.leases import LeaseExpired
from mirror.jobs.model import Job, PlatformName, Publication, PublishRequest, State
from mirror.jobs.queue import Queue
from mirror.jobs.retry import RetryPolicy
from mirror.jobs.statuses import Statuses
from mirror.oci.digest import Digest
from mirror.oci.platform import Platform
from mirror.oci.reference import ImageReference
from mirror.state.engine import Database, DatabaseSettings, sqlite_url
from mirror.state.migrate import migrate
from mirror.state.schema import images
from tests.support.state import Clock, digest_of, request_for

T = TypeVar("T")

FQRNS = ("one.example.org", "two.example.org")
SHOWN = Platform("linux", "amd64")
"""What the config of every image says."""
PLATFORM_LIST = (SHOWN, Platform("linux", "arm64"), Platform("linux", "riscv64"))
PLATFORMS = st.sampled_from(PLATFORM_LIST)
LEASE = 60.0
OWNERS = st.sampled_from(["p1", "p2"])
TAGS = st.sampled_from(["debian:1", "debian:2", "quay.io/x/y:1"])
MANIFESTS = st.sampled_from(["a", "b", "c", "d"])
WHICH = st.integers(0, 5)


class PublishQueue(RuleBasedStateMachine):
    """The queue, beside what a user and a repository know."""

    template: ClassVar[Path | None] = None

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = Path(tempfile.mkdtemp())
        self.clock = Clock()
        self.wanted: dict[ImageReference, Digest] = {}
        self.acknowledged: set[Digest] = set()
        self.in_work: dict[str, list[Job]] = {"p1": [], "p2": [], "last": []}
        self.leases: dict[Digest, tuple[str, float]] = {}
        self.targets: dict[ImageReference, str] = {}
        """Names that stand for an index."""
        self.links: dict[str, Digest] = {}
        """What each path leads to, in both repositories."""
        self.revision = 0

    def run_async(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    @initialize()
    def start(self) -> None:
        path = self.directory / "state.sqlite"
        if PublishQueue.template is not None:
            shutil.copy(PublishQueue.template, path)
        self.database = Database(DatabaseSettings(sqlite_url(path)))
        if PublishQueue.template is None:
            self.run_async(migrate(self.database))
            self.run_async(self.database.close())
            PublishQueue.template = Path(tempfile.mkdtemp()) / "template.sqlite"
            shutil.copy(path, PublishQueue.template)
        policy = RetryPolicy(first_pause=10, longest_pause=100, attempts=5, deaths=2, refused_pause=1000)
        self.queue = Queue(self.database, policy=policy, clock=self.clock, luck=lambda: 0.5)
        self.statuses = Statuses(self.database)

    @rule(tag=TAGS, manifest=MANIFESTS)
    def pull(self, tag: str, manifest: str) -> None:
        request = request_for(tag, manifest)
        self.run_async(self.queue.enqueue(request))
        self.wanted[request.image] = request.manifest
        self.targets.pop(request.image, None)
        self.acknowledged.add(request.manifest)

    @rule(tag=TAGS, manifest=MANIFESTS, platform=PLATFORMS)
    def pull_of_an_index(self, tag: str, manifest: str, platform: Platform) -> None:
        """The image that the index stands for, and its name for its platform; the platforms of before are gone."""
        own = request_for(tag, manifest, f"index of {manifest}")
        named = PublishRequest(own.image, own.target, own.manifest, platform)
        gone = [(own.image, other) for other in PLATFORM_LIST if other != platform]
        self.run_async(self.queue.enqueue_all([named, own], gone))
        self.wanted[own.image] = own.manifest
        self.targets[own.image] = f"index of {manifest}"
        self.acknowledged.add(own.manifest)

    @rule(manifest=MANIFESTS)
    def pull_by_digest(self, manifest: str) -> None:
        request = request_for(f"debian@{digest_of(manifest)}", manifest)
        self.run_async(self.queue.enqueue(request))
        self.wanted[request.image] = request.manifest
        self.acknowledged.add(request.manifest)

    @rule(owner=OWNERS, limit=st.integers(1, 3))
    def claim(self, owner: str, limit: int) -> None:
        for job in self.run_async(self.queue.claim(owner, limit, LEASE)):
            assert job.requests
            _, until = self.leases.get(job.manifest, ("", 0.0))
            assert until <= self.clock(), "somebody else works on it"
            self.leases[job.manifest] = (owner, self.clock() + LEASE)
            self.in_work[owner] = [other for other in self.in_work[owner] if other.manifest != job.manifest]
            self.in_work[owner].append(job)
        # What has killed publishers too often is taken from its last one and left to wait.
        for manifest in [manifest for manifest in self.leases if self.run_async(self._state(manifest)) is State.FAILED]:
            assert self.leases.pop(manifest)[1] <= self.clock()

    @rule(owner=OWNERS)
    def crash(self, owner: str) -> None:
        self.in_work[owner].clear()

    @rule(owner=OWNERS)
    def stop_in_good_order(self, owner: str) -> None:
        self.run_async(self.queue.release(owner))
        for manifest, (holder, _) in list(self.leases.items()):
            if holder == owner:
                del self.leases[manifest]
        self.in_work[owner].clear()

    @rule(seconds=st.sampled_from([1.0, 15.0, LEASE, 200.0, 2000.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(owner=OWNERS)
    def renew(self, owner: str) -> None:
        jobs = self.in_work[owner]
        lost = self.run_async(self.queue.renew(owner, [job.manifest for job in jobs], LEASE))
        assert lost == {job.manifest for job in jobs if not self._holds(owner, job)}
        for job in jobs:
            if job.manifest not in lost:
                self.leases[job.manifest] = (owner, self.clock() + LEASE)
        self.in_work[owner] = [job for job in jobs if job.manifest not in lost]

    @rule(owner=OWNERS, which=WHICH, state=st.sampled_from([State.INGESTING, State.COMMITTING]))
    def advance(self, owner: str, which: int, state: State) -> None:
        job = self._job(owner, which)
        if job is not None:
            with self._fenced(owner, job):
                self.run_async(self.queue.advance(owner, [job.manifest], state))
            self.in_work[owner].append(job)

    @rule(owner=OWNERS, which=WHICH)
    def publish(self, owner: str, which: int) -> None:
        job = self._job(owner, which)
        if job is not None:
            self._publish(owner, job)

    @rule(owner=OWNERS, which=WHICH)
    def fail(self, owner: str, which: int) -> None:
        job = self._job(owner, which)
        if job is not None:
            with self._fenced(owner, job):
                self.run_async(self.queue.failed(owner, job.manifest, "failed"))
                del self.leases[job.manifest]

    @rule(owner=OWNERS, which=WHICH)
    def refuse(self, owner: str, which: int) -> None:
        job = self._job(owner, which)
        if job is not None:
            with self._fenced(owner, job):
                self.run_async(self.queue.refused(owner, job.manifest, "refused"))
                del self.leases[job.manifest]

    @invariant()
    def every_wanted_name_is_known_and_no_path_lies(self) -> None:
        for image, manifest in self.wanted.items():
            status = self.run_async(self.statuses.status(image))
            assert status is not None
            if image.reference.tag is not None:
                assert status.manifest == manifest
            if status.publication is not None:
                assert self.links[status.publication.path] == status.manifest
            for named in self.run_async(self.statuses.platforms(image)):
                if named.publication is not None:
                    assert self.links[named.publication.path] == named.manifest

    @rule()
    def tidy(self) -> None:
        """The writers remove what is left over."""
        gone = self.run_async(self.queue.leftovers(FQRNS, 100))
        for leftover in gone:
            del self.links[leftover.path]
        self.run_async(self.queue.removed(gone))

    def teardown(self) -> None:
        if hasattr(self, "queue"):
            self._finish()
            self.run_async(self.database.close())
        self.runner.close()
        shutil.rmtree(self.directory)

    def _finish(self) -> None:
        """Publishers that do their work, and users that pull once more, bring everything to /cvmfs."""
        for _ in range(10):
            self.clock.advance(5000.0)
            for image, manifest in self.wanted.items():
                name = next(name for name in ("a", "b", "c", "d") if digest_of(name) == manifest)
                self.run_async(self.queue.enqueue(request_for(str(image), name, self.targets.get(image))))
            for job in self.run_async(self.queue.claim("last", 100, LEASE)):
                self.leases[job.manifest] = ("last", self.clock() + LEASE)
                self._publish("last", job)
        for image, manifest in self.wanted.items():
            status = self.run_async(self.statuses.status(image))
            assert status is not None
            assert (status.manifest, status.state) == (manifest, State.PUBLISHED)
        self.tidy()
        paths = set()
        for image in self.wanted:
            for status in [self.run_async(self.statuses.status(image)), *self.run_async(self.statuses.platforms(image))]:
                assert status is not None
                assert status.publication is not None
                paths.add(status.publication.path)
                assert self.links[status.publication.path] == status.manifest
                if image.reference.tag is not None:
                    assert status.manifest == self.wanted[image], "a tag leads to one image, with or without its platform"
        tags = {str(image) for image in self.wanted if image.reference.tag is not None}
        assert {path for path in self.links if any(path.endswith(tag) for tag in tags)} <= paths, "no old link is left"
        counts = self.run_async(self.statuses.counts())
        assert counts[State.PUBLISHED] + counts[State.REFUSED] == sum(counts.values()) == len(self.acknowledged)

    def _publish(self, owner: str, job: Job) -> None:
        with self._fenced(owner, job):
            self.revision += 1
            fqrn = FQRNS[self.revision % 2]
            own = {request.image for request in job.requests if request.platform is None}
            asked = {PlatformName(request.image, request.platform) for request in job.requests if request.platform is not None}
            shown = {PlatformName(image, SHOWN) for image in own - {name.image for name in asked}}
            paths = {image: Publication(fqrn, f"/cvmfs/{fqrn}/{image}", self.revision) for image in own}
            platforms = {
                name: Publication(fqrn, f"/cvmfs/{fqrn}/{name.platform}/{name.image}", self.revision) for name in asked | shown
            }
            self.run_async(self.queue.published(owner, job.manifest, fqrn, paths, [], platforms=platforms))
            self.links |= {publication.path: job.manifest for publication in [*paths.values(), *platforms.values()]}
            del self.leases[job.manifest]

    async def _state(self, manifest: Digest) -> State:
        statement = select(images.c.state).where(images.c.manifest_digest == str(manifest))
        async with self.database.read() as connection:
            return State((await connection.execute(statement)).scalar_one())

    def _job(self, owner: str, which: int) -> Job | None:
        jobs = self.in_work[owner]
        return jobs.pop(which % len(jobs)) if jobs else None

    def _holds(self, owner: str, job: Job) -> bool:
        return self.leases.get(job.manifest, ("", 0.0))[0] == owner

    @contextlib.contextmanager
    def _fenced(self, owner: str, job: Job) -> Any:
        """Reports are accepted from the holder of the lease and refused from anybody else."""
        holds = self._holds(owner, job)
        try:
            yield
        except LeaseExpired:
            assert not holds
        else:
            assert holds


PublishQueue.TestCase.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestPublishQueue = PublishQueue.TestCase
