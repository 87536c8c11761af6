"""Marks whole revisions: every catalog is read once, however many revisions share it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import structlog

from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.errors import RepositoryDamaged
from publisher.gc.marks import Marks
from publisher.repository import Repository

log = structlog.get_logger()


class Marker:
    """For one thread at a time; to be closed. What it is asked for adds up."""

    def __init__(self, repository: Repository, marks: Marks, workers: int, on_catalog: Callable[[int], None]) -> None:
        """workers: catalogs fetched and inflated ahead. on_catalog: told the number of catalogs read before each one."""
        self._store = repository.store
        self._objects = repository.objects
        self._marks = marks
        self._workers = workers
        self._on_catalog = on_catalog
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="catalogs")
        self._previous: dict[ContentHash, ContentHash | None] = {}
        self.catalogs = 0
        self.rows = 0
        self.missing = 0

    @property
    def roots(self) -> int:
        """Revisions marked."""
        return len(self._previous)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(cancel_futures=True)

    def previous(self, root: ContentHash) -> ContentHash | None:
        """The root catalog that a marked one replaced."""
        return self._previous[root]

    def mark(self, root: ContentHash, *, complete: bool) -> bool:
        """Mark a revision with all that it needs; whether its root catalog is there.

        complete: it must be there as a whole. Without it, catalogs that are gone are passed over: nothing can be lost by them any
        more. Raises RepositoryDamaged, Unavailable, StorageFull (of temporary files).
        """
        pending = [root]
        coming: dict[ContentHash, Future[bytes | None]] = {}
        while pending or coming:
            while pending and len(coming) < self._workers:
                content = pending.pop()
                if content not in coming and not self._marks.holds(content, ObjectKind.CATALOG):
                    coming[content] = self._pool.submit(self._load, content, complete)
            if not coming:
                continue
            content = next(iter(coming))
            self._on_catalog(self.catalogs)
            data = coming.pop(content).result()
            if data is not None:
                pending += self._take(content, data, is_root=content == root)
            elif content != root:
                self.missing += 1
                log.warning("catalog_missing", catalog=str(content), root=str(root))
        return root in self._previous

    def _take(self, content: ContentHash, data: bytes, *, is_root: bool) -> tuple[ContentHash, ...]:
        links = self._marks.add_catalog(content, data)
        self.catalogs += 1
        self.rows += links.rows
        if is_root:
            self._previous[content] = links.previous
        return links.nested

    def _load(self, content: ContentHash, complete: bool) -> bytes | None:
        try:
            return self._objects.metadata(content, ObjectKind.CATALOG)
        except RepositoryDamaged:
            if complete or self._store.contains(content, ObjectKind.CATALOG):
                raise
            return None
