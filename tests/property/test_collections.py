"""Random lives of a repository: whatever is published, named, forgotten and collected, what is kept is whole."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from publisher.cvmfs.entry import Directory
from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.errors import Conflict
from publisher.gc.collect import collect
from publisher.gc.policy import CollectionPolicy
from publisher.repository import Repository, Revision, Step
from publisher.transaction import Transaction
from tests.support.collecting import AT_ONCE, DAY, attached, image, needed, objects
from tests.support.memory_store import MemoryStore
from tests.support.repositories import Clock, new_repository, problems
from tests.support.sample_tree import facts

HOUR = 3600.0
IMAGES = st.sampled_from(["a", "b", "c"])
NAMES = st.sampled_from(["one", "two"])
WAITS = st.sampled_from([0.0, 1.0, 3 * HOUR, 23 * HOUR, 25 * HOUR, 3 * DAY])
POLICIES = st.builds(
    CollectionPolicy,
    revisions=st.sampled_from([0, 0, 1, 3]),
    age=st.sampled_from([0.0, 0.0, 2 * DAY]),
    grace=st.sampled_from([3 * HOUR, DAY]),
)
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), IMAGES),
        st.tuples(st.just("remove"), IMAGES),
        st.tuples(st.just("tag"), NAMES),
        st.tuples(st.just("untag"), NAMES),
        st.tuples(st.just("rollback"), NAMES),
        st.tuples(st.just("die"), IMAGES),
        st.tuples(st.just("prepare"), IMAGES),
        st.tuples(st.just("finish"), st.none()),
        st.tuples(st.just("wait"), WAITS),
        st.tuples(st.just("collect"), POLICIES),
    ),
    max_size=25,
)


@dataclass
class Past:
    """A revision, the named snapshots of its time, and when the next one came."""

    root: ContentHash
    tags: dict[str, ContentHash]
    tree: object
    """Facts of all that it holds."""
    ended: float = float("inf")


@dataclass
class Life:
    """A repository, and a model of what its collector must keep."""

    repository: Repository
    store: MemoryStore
    clock: Clock
    revisions: list[Past] = field(default_factory=list)
    gone: set[ContentHash] = field(default_factory=set)
    prepared: tuple[str, Directory, float] | None = None

    def live(self, operation: str, value: object) -> None:
        if operation == "wait":
            assert isinstance(value, float)
            self.clock.now += value
            self.repository.renew_whitelist()
        elif operation == "collect":
            assert isinstance(value, CollectionPolicy)
            self.collect(value)
        elif operation == "prepare":
            assert isinstance(value, str)
            self.prepared = (value, image(self.store, value), self.clock())
        else:
            self.publish(operation, str(value))

    def publish(self, operation: str, value: str) -> None:
        path = b"images/" + value.encode()
        with Transaction(self.repository) as transaction:
            if operation in {"publish", "die"}:
                transaction.graft(path, image(self.store, value))
            elif operation == "finish" and self.prepared is not None:
                name, tree, since = self.prepared
                try:
                    transaction.rely_on(since)
                except Conflict:
                    return
                transaction.graft(b"images/" + name.encode(), tree)
            elif operation == "remove":
                transaction.remove(path)
            elif operation == "tag":
                transaction.tag(value)
            elif operation == "untag":
                transaction.untag(value)
            elif operation == "rollback" and value in self.revisions[-1].tags:
                transaction.go_back(self.revisions[-1].tags[value], None)
            if operation == "die":
                self.die(transaction)
            else:
                self.published(transaction.commit())

    def die(self, transaction: Transaction) -> None:
        def on_step(step: Step) -> None:
            if step is Step.MANIFEST:
                raise KeyboardInterrupt

        try:
            transaction.commit(on_step)
        except KeyboardInterrupt:
            self.clock.now += 1

    def published(self, revision: Revision) -> None:
        if not self.revisions or revision.root_hash != self.revisions[-1].root:
            if self.revisions:
                self.revisions[-1].ended = self.clock()
            history = self.repository.reader().history()
            tags = {} if history is None else {name: tag.root for name, tag in history.tags().items()}
            tree = facts(self.repository.reader().tree(b""))
            self.revisions.append(Past(revision.root_hash, tags, tree))
        self.clock.now += 1

    def collect(self, policy: CollectionPolicy) -> None:
        wanted = self.wanted(policy)
        result = collect(self.repository, policy, limits=AT_ONCE)
        known = {past.root for past in self.revisions}
        self.gone |= {root for root in known if not self.store.contains(root, ObjectKind.CATALOG)}
        assert not wanted & self.gone
        reader = self.repository.reader()
        for past in self.revisions:
            if past.root in wanted:
                assert facts(reader.at(past.root).tree(b"")) == past.tree
        assert needed(self.repository, known - self.gone) <= objects(self.store), "a revision is there by halves"
        assert result.roots >= len(wanted)
        assert problems(self.repository) == []

    def wanted(self, policy: CollectionPolicy) -> set[ContentHash]:
        """By the plainest reading of the policy."""
        since = self.clock() - max(policy.age, policy.grace)
        kept = {past.root for past in self.revisions if past.ended >= since}
        kept |= {root for past in self.revisions if past.ended >= since for root in past.tags.values()}
        for past in reversed(self.revisions[-policy.revisions - 1 :]):
            if past.root in self.gone:
                break
            kept.add(past.root)
        return kept - self.gone


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(OPERATIONS)
def test_what_is_kept_is_whole_and_garbage_goes(operations: list[tuple[str, object]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        clock = Clock()
        repository, store = new_repository(Path(directory), clock=clock)
        life = Life(repository, store, clock)
        life.published(Revision(1, repository.manifest().root, repository.manifest()))
        for operation, value in operations:
            life.live(operation, value)
        clock.now += 10 * DAY
        repository.renew_whitelist()
        with Transaction(repository):
            pass
        life.collect(CollectionPolicy())
        roots = {repository.manifest().root, *life.revisions[-1].tags.values()}
        assert objects(store) == needed(repository, roots) | attached(repository)
        assert {reference.content for reference in repository.reflog().references().values()} == roots | {
            content for content, _ in attached(repository)
        }
