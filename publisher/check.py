"""Verifies a whole repository: signatures, reference log, named snapshots, every catalog's consistency, every object.

Repository format, section 10, and beyond it the content of objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from mirror.errors import MirrorError
from publisher.cvmfs.catalog import Catalog, NestedReference
from publisher.cvmfs.consistency import CatalogInspection, Findings, WantedObject, differing
from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.cvmfs.history import History
from publisher.cvmfs.manifest import MANIFEST_NAME
from publisher.cvmfs.path import ROOT, show
from publisher.cvmfs.reader import RepositoryReader
from publisher.cvmfs.reflog import REFLOG_NAME, ReferenceType
from publisher.cvmfs.row import Row
from publisher.cvmfs.snapshot import Snapshot
from publisher.cvmfs.statistics import Counters, Statistics
from publisher.errors import RepositoryDamaged, Untrusted

Contains = Callable[[ContentHash, ObjectKind], bool]

_RESTORE = "restore the object from a replica or a backup, or publish the path again"
_REWRITE = "publish the directory again, or go back to an earlier revision"
_OPEN = "restore it from a replica or a backup; without it no client can mount the repository"
_TRUST = "if the public key is the right one, sign the whitelist again (resign), or restore the file from a backup"
_BATCH = 1024

OnProgress = Callable[[int, int], None]
"""Told how many catalogs and objects were looked at so far."""


def _ignore(catalogs: int, objects: int) -> None:
    """For callers that show nothing."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong."""

    path: bytes
    """In the repository; the root for what concerns the repository as a whole."""
    what: str
    mend: str
    item: str = ""
    """The object or file concerned, as a path below the storage's root."""

    def __str__(self) -> str:
        return f"{show(self.path)}: {self.what}{f' [{self.item}]' if self.item else ''}; {self.mend}"


def unreadable(error: RepositoryDamaged) -> Problem:
    """What is wrong with a repository of which not even the current revision can be opened."""
    return Problem(ROOT, str(error), _TRUST if isinstance(error, Untrusted) else _OPEN, error.item)


@dataclass(frozen=True, slots=True)
class Examined:
    """What was looked at, and what is wrong with it."""

    problems: list[Problem]
    catalogs: int
    objects: int


def check(
    reader: RepositoryReader,
    *,
    contains: Contains | None = None,
    data: bool = False,
    reflog_checksum: ContentHash | None = None,
    workers: int = 4,
) -> list[Problem]:
    """The problems that `examine` finds."""
    return examine(reader, contains=contains, data=data, reflog_checksum=reflog_checksum, workers=workers).problems


def examine(
    reader: RepositoryReader,
    *,
    contains: Contains | None = None,
    data: bool = False,
    reflog_checksum: ContentHash | None = None,
    workers: int = 4,
    progress: OnProgress = _ignore,
) -> Examined:
    """Look at everything that the current revision and the named snapshots reach; the problems found, none if all is well.

    contains: how to ask for an object's presence; without it only catalogs are fetched. data: fetch every object and compare its
    content with its hash and sizes. reflog_checksum: where the manifest's is known to be old (after a collection, on a replica);
    a replica's log is passed over without it.
    What cannot be fetched counts as a problem, too. workers: catalogs and objects looked at at the same time.
    """
    checker = _Checker(reader, contains, data, workers, progress)
    checker.repository(reflog_checksum)
    return Examined(checker.problems, checker.catalogs, checker.objects)


@dataclass(frozen=True, slots=True)
class _Visit:
    """A catalog that was looked at."""

    reference: NestedReference
    findings: Findings | None
    statistics: Statistics
    problem: Problem | None = None


class _Checker:
    def __init__(
        self, reader: RepositoryReader, contains: Contains | None, data: bool, workers: int, progress: OnProgress
    ) -> None:
        self.problems: list[Problem] = []
        self.catalogs = 0
        self.objects = 0
        self._progress = progress
        self._reader = reader
        self._contains = contains
        self._data = data
        self._workers = workers
        self._catalogs: dict[tuple[bytes, ContentHash], Counters] = {}
        self._seen: set[tuple[ContentHash, ObjectKind, int | None]] = set()

    def repository(self, reflog_checksum: ContentHash | None) -> None:
        self._manifest()
        self._reflog(reflog_checksum)
        self._snapshot(self._reader.snapshot)
        self._history()

    def _report(self, path: bytes, what: str, mend: str, item: str = "") -> None:
        self.problems.append(Problem(path, what, mend, item))

    def _manifest(self) -> None:
        manifest, root = self._reader.manifest, self._reader.snapshot.root
        mend = "publish a new revision"
        if manifest.revision != root.revision:
            self._report(
                ROOT, f"the manifest says revision {manifest.revision}, its root catalog {root.revision}", mend, MANIFEST_NAME
            )
        if manifest.timestamp < root.last_modified:
            self._report(ROOT, "the manifest is older than its root catalog; clients will not take it", mend, MANIFEST_NAME)
        if manifest.metainfo is not None:
            self._fetch(manifest.metainfo, ObjectKind.METAINFO)

    def _reflog(self, checksum: ContentHash | None) -> None:
        try:
            references = self._reader.reflog(checksum).references()
        except MirrorError as error:
            if checksum is None and self._reader.is_replica:
                return
            self._report(ROOT, str(error), "restore .cvmfsreflog or its checksum from a backup", REFLOG_NAME)
            return
        manifest = self._reader.manifest
        wanted = [
            (manifest.root, ReferenceType.CATALOG),
            (manifest.certificate, ReferenceType.CERTIFICATE),
            (manifest.history, ReferenceType.HISTORY),
            (manifest.metainfo, ReferenceType.METAINFO),
        ]
        for content, kind in wanted:
            if content is not None and (content not in references or references[content].type is not kind):
                text = f"the reference log does not know the {kind.name.lower()} {content}; it could never be collected"
                self._report(ROOT, text, "publish a new revision", REFLOG_NAME)

    def _history(self) -> None:
        content = self._reader.manifest.history
        item = content.object_path(ObjectKind.HISTORY) if content else ""
        try:
            history = self._reader.history()
        except MirrorError as error:
            self._report(ROOT, str(error), "restore the history object, or publish without named snapshots", item)
            return
        if history is not None:
            self._branches(history, item)
            for tag in history.tags().values():
                root = tag.root.object_path(ObjectKind.CATALOG)
                try:
                    snapshot = self._reader.at(tag.root, tag.size)
                except MirrorError as error:
                    text = f"the named snapshot '{tag.name}' cannot be read: {error}"
                    self._report(ROOT, text, "remove the snapshot's name (tag -r), or restore the object", root)
                    continue
                if snapshot.root.revision != tag.revision:
                    text = f"the named snapshot '{tag.name}' says another revision than its catalog"
                    self._report(ROOT, text, "name it again (tag -r, tag -a)", item)
                self._snapshot(snapshot)

    def _branches(self, history: History, item: str) -> None:
        branches, tags = history.branches(), history.tags().values()
        mend = "publish a new set of named snapshots"
        for tag in tags:
            if tag.branch not in branches:
                self._report(ROOT, f"the named snapshot '{tag.name}' is on the unknown branch '{tag.branch}'", mend, item)
            elif tag.revision < branches[tag.branch][1]:
                self._report(ROOT, f"the named snapshot '{tag.name}' is older than its branch", mend, item)
        for branch in branches.keys() - {tag.branch for tag in tags}:
            self._report(ROOT, f"no named snapshot is on the branch '{branch}'", mend, item)

    def _snapshot(self, snapshot: Snapshot) -> None:
        """Catalogs side by side, parents before children; then their subtree counters, bottom-up."""
        visits: list[_Visit] = []
        pending: list[tuple[NestedReference, Row | None]] = [(NestedReference(ROOT, snapshot.root_hash, 0), None)]
        with ThreadPoolExecutor(self._workers) as pool:
            while pending:
                batch: dict[tuple[bytes, ContentHash], tuple[NestedReference, Row | None]] = {}
                while pending and len(batch) < self._workers:
                    reference, mountpoint = pending.pop()
                    if (reference.path, reference.content) not in self._catalogs:
                        batch[reference.path, reference.content] = reference, mountpoint
                for visit in pool.map(lambda work: self._visit(snapshot, *work), batch.values()):
                    pending += self._take(visit)
                    visits.append(visit)
        for visit in reversed(visits):
            if visit.findings is not None:
                nested = [below for below, _ in visit.findings.nested]
                self._subtree_counters(visit.reference, visit.statistics.subtree, nested)

    def _visit(self, snapshot: Snapshot, reference: NestedReference, mountpoint: Row | None) -> _Visit:
        """Fetch a catalog and look at it; in a thread of its own."""
        try:
            if reference.path:
                content = self._reader.objects.metadata(reference.content, ObjectKind.CATALOG, reference.size)
                catalog = Catalog(content, reference.path)
            else:
                catalog = snapshot.root
            return _Visit(reference, CatalogInspection(catalog, mountpoint).run(), catalog.statistics)
        except MirrorError as error:
            problem = Problem(reference.path, str(error), _RESTORE, reference.content.object_path(ObjectKind.CATALOG))
            return _Visit(reference, None, Statistics(Counters(), Counters()), problem)

    def _take(self, visit: _Visit) -> list[tuple[NestedReference, Row | None]]:
        """Note what was found in a catalog, and return the ones below it."""
        reference = visit.reference
        if visit.problem is not None:
            self.problems.append(visit.problem)
        if visit.findings is None:
            return []
        self._catalogs[reference.path, reference.content] = visit.statistics.total
        item = reference.content.object_path(ObjectKind.CATALOG)
        self.problems += [Problem(path, text, _REWRITE, item) for path, text in visit.findings.complaints]
        self.catalogs += 1
        self._progress(self.catalogs, self.objects)
        self._objects(visit.findings.objects)
        visit.findings.objects.clear()
        return list(visit.findings.nested)

    def _subtree_counters(self, reference: NestedReference, stated: Counters, nested: list[NestedReference]) -> None:
        counted = Counters()
        for child in nested:
            total = self._catalogs.get((child.path, child.content))
            if total is None:
                return
            counted += total
        for text in differing("subtree", stated, counted):
            self._report(reference.path, text, _REWRITE, reference.content.object_path(ObjectKind.CATALOG))

    def _objects(self, wanted: Iterable[WantedObject]) -> None:
        if not self._data and self._contains is None:
            return
        fresh = []
        for item in wanted:
            key = (item.content, item.kind, item.size if self._data else None)
            if key not in self._seen:
                self._seen.add(key)
                fresh.append(item)
        remaining = iter(fresh)
        with ThreadPoolExecutor(self._workers) as pool:
            while batch := list(islice(remaining, _BATCH)):
                self.problems += [problem for problem in pool.map(self._object, batch) if problem]
                self.objects += len(batch)
                self._progress(self.catalogs, self.objects)

    def _object(self, wanted: WantedObject) -> Problem | None:
        where = wanted.content.object_path(wanted.kind)
        if self._data:
            try:
                self._reader.objects.check_data(wanted.content, wanted.kind, wanted.compression, wanted.size)
            except MirrorError as error:
                return Problem(wanted.path, str(error), _RESTORE, where)
        elif self._contains is not None and not self._contains(wanted.content, wanted.kind):
            return Problem(wanted.path, "its object is missing", _RESTORE, where)
        return None

    def _fetch(self, content: ContentHash, kind: ObjectKind) -> None:
        try:
            self._reader.objects.metadata(content, kind)
        except MirrorError as error:
            self._report(ROOT, str(error), _RESTORE, content.object_path(kind))
