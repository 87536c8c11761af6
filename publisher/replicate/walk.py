"""The way through the catalogs: from the roots down, and a catalog is stored once everything below it is.

So a catalog that the replica has means that it has all below it, and ends the descent; after a kill at any moment the next
replication goes on where this one stopped (repository format, section 9).

Depth first, with several catalogs in work at a time. References to nested catalogs are read from an open one as they are needed,
so what is held are the catalogs in work and those on the way down to them, not the repository.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from itertools import islice
from pathlib import Path

from mirror.errors import NotFound
from publisher.cvmfs.catalog import NestedReference
from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.cvmfs.path import ROOT, show
from publisher.errors import RepositoryDamaged
from publisher.replicate.fetch import ObjectFetcher, stored_limit
from publisher.replicate.files import local_failures
from publisher.replicate.listing import CatalogListing, WantedObject, open_listing
from publisher.replicate.model import Step
from publisher.replicate.workbench import Workbench

_OBJECTS = 128
"""Looked for in the store at a time, by each thread."""
_REFERENCES = 64


@dataclass(frozen=True, slots=True)
class Root:
    """A root catalog to be taken; size: its uncompressed bytes, 0 if nothing states them."""

    content: ContentHash
    size: int = 0
    may_lack: bool = False
    """The source may have collected it."""
    follow: int = 0
    """How many of its predecessors are wanted as well."""


@dataclass(eq=False, slots=True)
class _Node:
    """A catalog in work."""

    reference: NestedReference
    depth: int
    file: Path
    """Its stored form, until it goes into the store."""
    above: list[_Node]
    """Catalogs that wait for it."""
    waiting: int = 1
    """Objects and catalogs below it that are not stored, and one for as long as more may be found."""


@dataclass(eq=False, slots=True)
class _Cursor:
    """References of a catalog that are still to be looked at."""

    node: _Node
    listing: CatalogListing
    references: Iterator[NestedReference]
    lacking: deque[NestedReference] = field(default_factory=deque)
    """Some of them, which the store does not have."""
    is_read: bool = False
    """Whether there are no others."""


@dataclass(frozen=True, slots=True)
class _Visit:
    reference: NestedReference
    above: _Node | None = None
    root: Root | None = None


class CatalogWalk:
    """One walk over any number of roots, in tasks of the given group, which the first failure ends."""

    def __init__(
        self,
        bench: Workbench,
        fetcher: ObjectFetcher,
        group: asyncio.TaskGroup,
        *,
        doubtful: Collection[ContentHash] = (),
        known_roots: Collection[ContentHash] = (),
        collectable: bool = False,
        revision: int = 0,
    ) -> None:
        """doubtful: catalogs in the store that prove nothing; known_roots: those of the replica's reference log.

        collectable: predecessors of roots may be missing at the source. revision: the one that the replica shows; what came
        before older ones is not followed.
        """
        self._bench = bench
        self._fetcher = fetcher
        self._group = group
        self._doubtful = doubtful
        self._known_roots = known_roots
        self._collectable = collectable
        self._revision = revision
        self._roots: deque[Root] = deque()
        self._cursors: list[_Cursor] = []
        self._nodes: dict[ContentHash, _Node] = {}
        self._visiting = 0
        self._choosing = asyncio.Lock()
        self._changed = asyncio.Event()
        self._complete: asyncio.Queue[_Node] = asyncio.Queue()
        self.taken: dict[ContentHash, None] = {}
        """Roots that the store has when the walk is over."""
        self.skipped: list[ContentHash] = []
        """Roots that the source does not have any more."""

    async def run(self, roots: Iterable[Root]) -> None:
        """Return when the store has all that the roots reach; to be called once."""
        self._roots.extend(roots)
        storers = [self._group.create_task(self._store_all()) for _ in range(max(1, self._bench.limits.threads // 2))]
        visitors = [self._group.create_task(self._visit_all()) for _ in range(self._bench.limits.catalogs)]
        await asyncio.wait(visitors)
        while self._nodes:
            self._changed.clear()
            await self._changed.wait()
        for storer in storers:
            storer.cancel()

    async def _visit_all(self) -> None:
        while visit := await self._next():
            try:
                await self._visit(visit)
            finally:
                self._visiting -= 1
                self._changed.set()

    async def _next(self) -> _Visit | None:
        """What comes next, the deepest first; None if nothing is left and nothing can be added any more."""
        async with self._choosing:
            while True:
                if self._cursors:
                    cursor = self._cursors[-1]
                    if cursor.lacking:
                        cursor.node.waiting += 1
                        self._visiting += 1
                        return _Visit(cursor.lacking.popleft(), cursor.node)
                    if cursor.is_read:
                        self._cursors.remove(cursor)
                        self._finish(cursor)
                    else:
                        await self._bench.threads.run(partial(self._read_on, cursor))
                elif self._roots:
                    root = self._roots.popleft()
                    self._visiting += 1
                    return _Visit(NestedReference(ROOT, root.content, root.size), root=root)
                elif self._visiting:
                    self._changed.clear()
                    await self._changed.wait()
                else:
                    return None

    async def _visit(self, visit: _Visit) -> None:
        reference, above, root = visit.reference, visit.above, visit.root
        content = reference.content
        if await self._bench.threads.run(partial(self._is_there, content)):
            if root is not None:
                await self._take_present(root)
            if above is not None:
                self._settle(above)
            return
        node = self._nodes.get(content)
        if node is not None:
            if node.reference.path != reference.path:
                raise RepositoryDamaged(f"the catalog {content} is named at {show(reference.path)} and at another path")
            node.above += [above] if above else []
            return
        depth = above.depth + 1 if above else 0
        if depth > self._bench.limits.depth:
            raise RepositoryDamaged(f"the catalog at {show(reference.path)} is nested deeper than {self._bench.limits.depth}")
        node = _Node(reference, depth, self._file(content), [above] if above else [])
        self._nodes[content] = node
        if await self._fetched(node, root):
            await self._list(node, root)

    async def _fetched(self, node: _Node, root: Root | None) -> bool:
        """Whether the catalog is here now; False if it is one that the source may lack."""
        reference, limits = node.reference, self._bench.limits
        limit = stored_limit(min(reference.size or limits.catalog_bytes, limits.catalog_bytes))
        try:
            await self._fetcher.catalog(reference.content, limit, node.file)
        except NotFound as error:
            if root is None or not root.may_lack:
                raise RepositoryDamaged(f"the catalog of {show(reference.path)} is missing at the source: {error}") from error
            del self._nodes[reference.content]
            self.skipped.append(reference.content)
            return False
        return True

    async def _list(self, node: _Node, root: Root | None) -> None:
        """Ask for everything that the catalog names."""
        run, limits = self._bench.threads.run, self._bench.limits
        cursor, objects, lacking, more = await run(partial(self._begin, node))
        if root is not None:
            self._take(root, cursor.listing)
        await self._want(node, lacking)
        while more:
            batch = await run(lambda: list(islice(objects, _OBJECTS * limits.threads)))
            more = bool(batch)
            parts = [batch[start : start + _OBJECTS] for start in range(0, len(batch), _OBJECTS)]
            for lacking in await asyncio.gather(*[run(partial(self._lacking, part)) for part in parts]):
                await self._want(node, lacking)
        if cursor.lacking or not cursor.is_read:
            self._cursors.append(cursor)
        else:
            self._finish(cursor)

    def _begin(self, node: _Node) -> tuple[_Cursor, Iterator[WantedObject], list[WantedObject], bool]:
        """Open a catalog and read the first of what it names, which for most is all: one job for a thread, not four.

        A cursor; the objects not read yet, those read that the store lacks, and whether there may be more.
        """
        listing = self._open(node.file, node.reference)
        objects = listing.objects()
        first = list(islice(objects, _OBJECTS))
        cursor = _Cursor(node, listing, listing.nested())
        self._read_on(cursor)
        return cursor, objects, self._lacking(first), len(first) == _OBJECTS

    async def _want(self, node: _Node, lacking: list[WantedObject]) -> None:
        for wanted in lacking:
            node.waiting += 1
            await self._fetcher.want(wanted, partial(self._settle, node))

    def _read_on(self, cursor: _Cursor) -> None:
        """Read some more references. Blocking."""
        some = list(islice(cursor.references, _REFERENCES))
        cursor.lacking.extend([reference for reference in some if not self._is_there(reference.content)])
        cursor.is_read = len(some) < _REFERENCES

    def _finish(self, cursor: _Cursor) -> None:
        """Nothing more comes from this catalog."""
        self._close(cursor.listing)
        self._settle(cursor.node)

    def _settle(self, node: _Node) -> None:
        """One thing less to wait for."""
        node.waiting -= 1
        if node.waiting == 0:
            self._complete.put_nowait(node)

    async def _store_all(self) -> None:
        bench = self._bench
        while True:
            node = await self._complete.get()
            bench.on_step(Step.CATALOG)
            size = await bench.threads.run(partial(self._store, node))
            bench.progress.catalogs += 1
            bench.progress.bytes += size
            bench.on_progress(bench.progress)
            del self._nodes[node.reference.content]
            for above in node.above:
                self._settle(above)
            self._changed.set()

    def _store(self, node: _Node) -> int:
        with local_failures(node.file):
            size = node.file.stat().st_size
        self._bench.store.put_file(node.reference.content, ObjectKind.CATALOG, node.file)
        return size

    async def _take_present(self, root: Root) -> None:
        """A root that the store has: only what it followed may be wanted still."""
        self.taken[root.content] = None
        if root.follow and root.content not in self._known_roots:
            reference = NestedReference(ROOT, root.content, root.size)
            listing = await self._bench.threads.run(partial(self._open, None, reference))
            self._take(root, listing)
            self._close(listing)

    def _take(self, root: Root, listing: CatalogListing) -> None:
        self.taken[root.content] = None
        previous = listing.previous
        if root.follow and previous is not None and listing.revision > self._revision:
            self._roots.append(Root(previous, may_lack=self._collectable, follow=root.follow - 1))

    def _file(self, content: ContentHash) -> Path:
        return self._bench.scratch / f"{content}{ObjectKind.CATALOG.value}"

    def _is_there(self, content: ContentHash) -> bool:
        return content not in self._doubtful and self._bench.store.contains(content, ObjectKind.CATALOG)

    def _lacking(self, wanted: list[WantedObject]) -> list[WantedObject]:
        return [item for item in wanted if not self._bench.store.contains(item.content, item.kind)]

    def _open(self, stored: Path | None, reference: NestedReference) -> CatalogListing:
        """From a file, or from the store."""
        limit, scratch = self._bench.limits.catalog_bytes, self._file(reference.content).with_suffix(".db")
        if stored is None:
            content = self._bench.store.get(reference.content, ObjectKind.CATALOG)
            listing = open_listing(BytesIO(content), reference, scratch, limit)
        else:
            with local_failures(stored), stored.open("rb") as file:
                listing = open_listing(file, reference, scratch, limit)
        self._bench.listings.add(listing)
        return listing

    def _close(self, listing: CatalogListing) -> None:
        self._bench.listings.discard(listing)
        listing.close()
