"""Garbage collection of a repository: mark what kept revisions need, list the storage, delete what is neither marked nor young.

It finds all garbage, also what no reference log knows, and may be run while images are published and replicas pull. Repository
format, section 7.2. What it relies on, and why it is safe:

**What is kept.** The current revision, the named snapshots, what the policy adds, and each revision (with the named snapshots of
its time) that was the current one within the grace period, however old it is itself. So a replica or a client that was given a
revision can read all of it for the grace period after the next one was published. Bind mountpoints are not followed, as in
CernVM-FS: what they lead to must be reachable otherwise.

**Death at any instruction.** The listing is the truth, so a rerun finds what is left; no state of a collection outlives it. The
order of deletion is from the top: root catalogs of revisions that are given up, then other catalogs, then the rest, and at last
the reference log's entries. So a revision is either complete, or its root is missing, which `previous_revision` may lead to, and
replicas that follow it pass over (section 9). CernVM-FS's own collector goes from the bottom, because it finds objects through
catalogs only; in between it leaves revisions that open but cannot be read, and if it dies there, replicas fail on them.

**Publications.** They put objects without a lock, sometimes long before the revision that names them, and do not store again what
is there. Four rules keep them apart from a collection, each for one way in which a new revision can name an object:

1. Objects that it puts: `put` renews the modification time of what it finds, and `expire` deletes nothing that is younger than
   the grace period; both of one object exclude each other (see `publisher.objects.store`). So the time at which the storage was
   listed does not matter.
2. What the revision before it had: deletion happens in small batches under the writer's lock, and before each batch whatever was
   published meanwhile is marked as well; what is marked is not deleted.
3. What an older revision had, which is made the current one again or gets a name: the roots of revisions that are given up go
   first. Who holds the lock and finds a root catalog in the storage has a complete revision.
4. What was put longer than the grace period ago and is still in no revision: the spool says since when objects are safe, written
   under the lock before the first deletion. Transactions refuse to rely on older ones (`Transaction.rely_on`).

Only one collection runs at a time. Publications wait for one batch at the most, a quarter of a second.
"""

from __future__ import annotations

from contextlib import ExitStack, closing

import structlog

from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.cvmfs.reflog import ReferenceType
from publisher.gc.garbage import GarbageList, Turn
from publisher.gc.mark import Marker
from publisher.gc.marks import Marks
from publisher.gc.needed import Needed
from publisher.gc.policy import (
    Collected,
    CollectionLimits,
    CollectionPolicy,
    CollectionStep,
    OnProgress,
    Progress,
    Tally,
    ignore_progress,
)
from publisher.gc.sweep import Sweeper
from publisher.objects.store import ObjectStore
from publisher.repository import Repository

_LISTED_STEP = 10_000
"""Objects listed from one report of progress to the next."""

log = structlog.get_logger()


def collect(
    repository: Repository,
    policy: CollectionPolicy,
    *,
    dry_run: bool = False,
    now: float | None = None,
    progress: OnProgress = ignore_progress,
    limits: CollectionLimits | None = None,
) -> Collected:
    """Delete what nobody needs; blocking. A collection that was interrupted, by whatever, is completed by the next one.

    dry_run: find it, and change nothing. now: Unix seconds, the repository's clock by default. progress: told of each step just
    before it is taken, on this thread; what it raises ends the collection (LeaseLost, say).
    Raises Conflict if another collection runs or a publication takes too long, PublishError if the repository may not be
    collected, RepositoryDamaged if what must be kept cannot be read (nothing is deleted then), StorageFull, Unavailable.
    """
    limits = limits or CollectionLimits()
    now = repository.clock() if now is None else now
    cutoff = policy.cutoff(now)
    with ExitStack() as stack:
        if not dry_run:
            stack.enter_context(repository.spool.collector_lock())
        marks = stack.enter_context(closing(Marks(limits.memory)))
        garbage = stack.enter_context(closing(GarbageList(limits.memory)))
        on_catalog = lambda done: progress(Progress(CollectionStep.MARK, done))  # noqa: E731 (shorter than a def)
        marker = stack.enter_context(closing(Marker(repository, marks, limits.workers, on_catalog)))
        read = repository.manifest if dry_run else repository.recover
        with repository.spool.lock(limits.lock_wait):
            needed = Needed(repository, policy, now, marks, marker, read=read)
        needed.mark()
        marks.settle()
        roots = {content for content, known in needed.references.items() if known.type is ReferenceType.CATALOG}
        kept, young = _list(repository.store, marks, garbage, roots=roots, cutoff=cutoff, progress=progress)
        sweeper = Sweeper(repository, needed, marks, garbage, limits=limits, cutoff=cutoff, progress=progress)
        if dry_run:
            cleared = sum(not needed.holds(reference) for reference in needed.references.values())
        else:
            if garbage.total.objects:
                sweeper.sweep(policy.unsafe_before(now))
            cleared = sweeper.clear_reflog()
        result = Collected(
            dry_run=dry_run,
            revision=needed.manifest.revision,
            roots=marker.roots,
            catalogs=marker.catalogs,
            rows=marker.rows,
            missing=marker.missing,
            kept=kept,
            young=young,
            garbage=dict(garbage.tallies),
            deleted=sweeper.deleted,
            references=cleared,
        )
    log.info(
        "garbage_collected",
        fqrn=repository.fqrn,
        dry_run=dry_run,
        revision=result.revision,
        roots_kept=result.roots,
        objects_kept=kept.objects,
        objects_young=young.objects,
        objects_found=result.found.objects,
        bytes_found=result.found.bytes,
        objects_deleted=result.deleted.objects,
        bytes_deleted=result.deleted.bytes,
    )
    return result


def _list(
    store: ObjectStore, marks: Marks, garbage: GarbageList, *, roots: set[ContentHash], cutoff: float, progress: OnProgress
) -> tuple[Tally, Tally]:
    """Put on the list what is neither needed nor young; how much is needed, and how much is young.

    roots: all root catalogs that the reference log knows. cutoff: Unix seconds.
    """
    kept = young = Tally()
    for number, stored in enumerate(store.objects()):
        if number % _LISTED_STEP == 0:
            progress(Progress(CollectionStep.LIST, number))
        if marks.holds(stored.content, stored.kind):
            kept += Tally(1, stored.size)
        elif stored.modified >= cutoff:
            young += Tally(1, stored.size)
        elif stored.kind is ObjectKind.CATALOG:
            garbage.add(Turn.ROOTS if stored.content in roots else Turn.CATALOGS, stored)
        else:
            garbage.add(Turn.REST, stored)
    return kept, young
