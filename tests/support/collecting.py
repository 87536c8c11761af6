"""Repositories with a past, for tests of garbage collection."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from publisher.cvmfs.consistency import CatalogInspection
from publisher.cvmfs.cuts import CutLimits
from publisher.cvmfs.entry import Directory
from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.gc.collect import collect
from publisher.gc.policy import Collected, CollectionLimits, CollectionPolicy, OnProgress, ignore_progress
from publisher.objects.store import ObjectStore
from publisher.repository import Repository, Revision
from publisher.transaction import Transaction
from tests.support.repositories import Clock
from tests.support.sample_tree import chunked, directory, regular

DAY = 86_400.0
AT_ONCE = CollectionLimits(lock_pause=0, lock_wait=0, workers=2)
ONE_BY_ONE = CollectionLimits(lock_pause=0, lock_wait=0, workers=1, batch=1)

Key = tuple[ContentHash, ObjectKind]


def image(store: ObjectStore, name: str) -> Directory:
    """A tree with content of its own, content that all images share, chunks, and enough directories to be cut into catalogs."""
    top = directory()
    for number in range(4):
        folder = top.children[b"folder%d" % number] = directory()
        for place in range(5):
            folder.children[b"own%d" % place] = regular(store, f"{name} {number} {place}".encode())
            folder.children[b"shared%d" % place] = regular(store, b"shared %d" % place)
    top.children[b"big"] = chunked(store, [name.encode() * 5000, b"shared chunk" * 1000])
    return top


def publish(repository: Repository, change: Callable[[Transaction], object]) -> Revision:
    """One revision, with small catalogs; a hundred seconds after what was before."""
    assert isinstance(repository.clock, Clock)
    repository.clock.now += 100
    with Transaction(repository, limits=CutLimits(most=20, fewest=3)) as transaction:
        change(transaction)
        return transaction.commit()


def publish_image(repository: Repository, name: str) -> Revision:
    """At `/images/<name>`."""
    return publish(repository, lambda transaction: transaction.graft(b"images/" + name.encode(), image(repository.store, name)))


def remove_image(repository: Repository, name: str) -> Revision:
    """And nothing else."""
    return publish(repository, lambda transaction: transaction.remove(b"images/" + name.encode()))


def collect_later(
    repository: Repository,
    seconds: float = 2 * DAY,
    policy: CollectionPolicy | None = None,
    *,
    dry_run: bool = False,
    progress: OnProgress = ignore_progress,
    limits: CollectionLimits = AT_ONCE,
) -> Collected:
    """Collect so much later than the last publication."""
    now = repository.clock() + seconds
    return collect(repository, policy or CollectionPolicy(), dry_run=dry_run, now=now, progress=progress, limits=limits)


def objects(store: ObjectStore) -> set[Key]:
    """All there are."""
    return {(stored.content, stored.kind) for stored in store.objects()}


def needed(repository: Repository, roots: Iterable[ContentHash]) -> set[Key]:
    """What these revisions consist of, told by the code that checks repositories."""
    found: set[Key] = set()
    reader = repository.reader()
    for root in roots:
        for catalog, content in reader.at(root).catalogs():
            found.add((content, ObjectKind.CATALOG))
            inspection = CatalogInspection(catalog, None)
            found.update((wanted.content, wanted.kind) for wanted in inspection.run().objects)
    return found


def attached(repository: Repository) -> set[Key]:
    """What the manifest names beside the root catalog."""
    manifest = repository.manifest()
    named = [
        (manifest.certificate, ObjectKind.CERTIFICATE),
        (manifest.history, ObjectKind.HISTORY),
        (manifest.metainfo, ObjectKind.METAINFO),
    ]
    return {(content, kind) for content, kind in named if content is not None}


def storage_files(root: Path) -> set[str]:
    """Of a storage directory, those that are objects."""
    return {str(path.relative_to(root)) for path in (root / "data").rglob("*") if path.is_file()}
