"""What is needed of a repository as it is published now: told to the marks, and told again when something was published."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.cvmfs.history import History, Tag
from publisher.cvmfs.manifest import MANIFEST_NAME, RepositoryManifest
from publisher.cvmfs.reflog import Reference, ReferenceType, Reflog
from publisher.errors import PublishError
from publisher.gc.kept import in_use_since
from publisher.gc.mark import Marker
from publisher.gc.marks import Marks
from publisher.gc.policy import CollectionPolicy
from publisher.repository import Repository

KINDS = {
    ReferenceType.CATALOG: ObjectKind.CATALOG,
    ReferenceType.CERTIFICATE: ObjectKind.CERTIFICATE,
    ReferenceType.HISTORY: ObjectKind.HISTORY,
    ReferenceType.METAINFO: ObjectKind.METAINFO,
}


class Needed:
    """For one thread at a time. Methods raise RepositoryDamaged, Unavailable, StorageFull (of temporary files)."""

    def __init__(
        self,
        repository: Repository,
        policy: CollectionPolicy,
        now: float,
        marks: Marks,
        marker: Marker,
        *,
        read: Callable[[], RepositoryManifest],
    ) -> None:
        """Look at what is published, under the lock; nothing is marked yet. now: Unix seconds; read: how to get the manifest."""
        self._repository = repository
        self._policy = policy
        self._since = min(policy.cutoff(now), now - policy.age)
        self._marks = marks
        self._marker = marker
        self._read = read
        self.look()

    def look(self) -> Reflog:
        """See what is published now, and return the reference log; under the lock. Raises PublishError as `collect` does."""
        self.manifest = self._read()
        if not self.manifest.garbage_collectable:
            name = self.manifest.fqrn
            raise PublishError(f"{name} says that it is never collected (G); publish a revision, which will say otherwise")
        self._seen = self._repository.store.read_file(MANIFEST_NAME)
        reflog = self._repository.reflog()
        self.references: Mapping[ContentHash, Reference] = reflog.references()
        return reflog

    def follow(self) -> None:
        """Mark what was published since the last look; under the lock."""
        if self._repository.store.read_file(MANIFEST_NAME) != self._seen:
            self.look()
            self.mark()

    def mark(self) -> None:
        """Mark all that is needed of what was published at the last look."""
        manifest = self.manifest
        self._marks.add(manifest.certificate, ObjectKind.CERTIFICATE)
        for content, kind in ((manifest.history, ObjectKind.HISTORY), (manifest.metainfo, ObjectKind.METAINFO)):
            if content is not None:
                self._marks.add(content, kind)
        self._marker.mark(manifest.root, complete=True)
        for tag in self._tags(manifest.history):
            self._marker.mark(tag.root, complete=True)
        publications = self._mark_earlier()
        for reference in in_use_since(self.references.values(), publications, self._since):
            self._mark_used(reference)
        for reference in self.references.values():
            if reference.timestamp >= publications[0] and reference.type is not ReferenceType.CATALOG:
                self._marks.add(reference.content, KINDS[reference.type])

    def holds(self, reference: Reference) -> bool:
        """Whether an entry of the reference log is needed."""
        return self._marks.holds(reference.content, KINDS[reference.type])

    def _mark_earlier(self) -> Sequence[int]:
        """Mark the revisions before the current one that are kept; when these, and the current one, were published, ascending."""
        root: ContentHash | None = self.manifest.root
        publications: list[int] = []
        last = self.manifest.timestamp
        while root is not None and self._marker.mark(root, complete=False):
            reference = self.references.get(root)
            last = last if reference is None else min(last, reference.timestamp) if publications else reference.timestamp
            publications.append(last)
            if len(publications) > self._policy.revisions and last < self._since:
                break
            root = self._marker.previous(root)
        return publications[::-1]

    def _mark_used(self, reference: Reference) -> None:
        if reference.type is ReferenceType.CATALOG:
            self._marker.mark(reference.content, complete=False)
            return
        self._marks.add(reference.content, KINDS[reference.type])
        is_history = reference.type is ReferenceType.HISTORY
        if is_history and self._repository.store.contains(reference.content, ObjectKind.HISTORY):
            for tag in self._tags(reference.content):
                self._marker.mark(tag.root, complete=False)

    def _tags(self, history: ContentHash | None) -> list[Tag]:
        if history is None:
            return []
        data = self._repository.objects.metadata(history, ObjectKind.HISTORY)
        return list(History(data, self._repository.fqrn).tags().values())
