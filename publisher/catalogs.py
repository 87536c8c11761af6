"""The catalogs of one revision, opened for change where a change needs them, and written again with all above them.

Only the catalogs on touched paths are opened, changed in memory and stored, so that the cost depends on the change and not on the
repository. Repository format, sections 4 and 8.1.
"""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from publisher.catalog_memory import CatalogMemory
from publisher.cvmfs.builder import Stamp, marker_entry
from publisher.cvmfs.catalog import NestedReference
from publisher.cvmfs.cuts import GrowthLimits, has_outgrown, overgrown
from publisher.cvmfs.editor import CatalogEditor
from publisher.cvmfs.entry import Directory, Entry
from publisher.cvmfs.hash import HASH_SIZE, ContentHash, ObjectKind
from publisher.cvmfs.manifest import RepositoryManifest
from publisher.cvmfs.objects import VerifiedObjects
from publisher.cvmfs.path import ROOT, ancestors, basename, check_names, is_below, parent_key, path_key, show
from publisher.cvmfs.row import MARKER_NAME, Flags, Row, entry_row, hardlinks
from publisher.cvmfs.statistics import Counters
from publisher.errors import PublishError, RepositoryDamaged
from publisher.objects.store import ObjectStore

_UNWRITTEN = ContentHash(bytes(HASH_SIZE))
"""Stands for a nested catalog that is written when the transaction commits."""
_PUTS = 8
"""Catalogs that are packed, or on their way into the store, at the same time: a distant store takes long for each."""


class OpenCatalogs:
    """The catalogs that a transaction has opened. Paths are absolute and normalised. To be closed.

    Methods raise RepositoryDamaged, Unavailable; those that store, also StorageFull.
    """

    def __init__(
        self, store: ObjectStore, objects: VerifiedObjects, memory: CatalogMemory, base: RepositoryManifest, stamp: Stamp
    ) -> None:
        """base: the revision to change. stamp: what is written into changed catalogs."""
        self._store = store
        self._objects = objects
        self._memory = memory
        self._stamp = stamp
        self._editors: dict[bytes, CatalogEditor] = {}
        self.open(NestedReference(ROOT, base.root, base.catalog_size or 0))

    @property
    def changed(self) -> bool:
        """Whether any differs from what is stored."""
        return any(editor.changed for editor in self._editors.values())

    def close(self) -> None:
        """Give them back; changes that are not written are lost."""
        for editor in self._editors.values():
            self._memory.keep(editor)
        self._editors.clear()

    def replace_root(self, root: ContentHash, size: int | None, previous: ContentHash) -> None:
        """Go on with the tree of another revision; its root catalog follows `previous`. Nothing else may be changed yet.

        It is read from the storage, never from memory: an old revision whose root is there is complete, for collectors delete
        roots first.
        """
        editor = CatalogEditor(self._objects.metadata(root, ObjectKind.CATALOG, size), ROOT, root)
        editor.root_row()
        editor.follow(previous)
        self.close()
        self._editors[ROOT] = editor

    def open(self, reference: NestedReference) -> CatalogEditor:
        """A catalog by its place and hash."""
        editor = self._editors.get(reference.path)
        if editor is None:
            editor = self._memory.take(reference.path, reference.content)
            if editor is None:
                data = self._objects.metadata(reference.content, ObjectKind.CATALOG, reference.size or None)
                editor = CatalogEditor(data, reference.path, reference.content)
                editor.root_row()
            self._editors[reference.path] = editor
        return editor

    def holder(self, path: bytes) -> CatalogEditor:
        """The catalog that has the path's row, or would have it; a nested catalog's own, for its directory."""
        editor = self._editors[ROOT]
        while reference := editor.nested_towards(path):
            editor = self.open(reference)
        return editor

    def prepare_parent(self, path: bytes) -> CatalogEditor:
        """Make the directories above a path that are missing, and return the catalog that is to hold it. Raises PublishError."""
        above = ancestors(path)[:-1]
        holder = self.holder(above[-1])
        missing = []
        while (row := holder.row(path_key(above[-1]))) is None:
            missing.append(above.pop())
        if not row.is_directory:
            raise PublishError(f"{show(above[-1])} is no directory; remove it first")
        for place in reversed(missing):
            self.insert_directory(holder, place, None)
        return holder

    def insert_directory(self, holder: CatalogEditor, path: bytes, entry: Entry | None) -> None:
        """A new directory in the catalog that holds its parent; root's with mode 0755 without an entry."""
        made = entry or Entry(mode=stat.S_IFDIR | 0o755, mtime=self._stamp.modified)
        holder.insert(entry_row(path_key(path), parent_key(path), basename(path), made, links=hardlinks(2)))
        holder.add_links(parent_key(path), 1)

    def put_all(self, holder: CatalogEditor, directory: bytes, entries: Mapping[bytes, Entry]) -> None:
        """Objects that are no directories into the catalog that holds their directory, in place of those of the same names.

        Names of one and the same entry become hard links of one another. Raises InvalidInput for what the format cannot hold.
        """
        parent = path_key(directory)
        groups = {identity: count for identity, count in Counter(map(id, entries.values())).items() if count > 1}
        first = holder.next_link_group() if groups else 0
        links = {identity: hardlinks(count, first + number) for number, (identity, count) in enumerate(groups.items())}
        prefix = directory + b"/"
        for name, entry in entries.items():
            row = entry_row(path_key(prefix + name), parent, name, entry, links=links.get(id(entry), hardlinks(1)))
            old = holder.row(row.key)
            if old is not None:
                if old == row and holder.chunks(old) == entry.chunks:
                    continue
                holder.delete(old)
            holder.insert(row, entry.chunks)

    def insert_tree(self, path: bytes, tree: Directory) -> None:
        """A whole tree where there is nothing, into the catalog that holds its parent. Raises InvalidInput as `put_all`."""
        holder = self.prepare_parent(path)
        pending = [(path, tree)]
        while pending:
            place, directory = pending.pop()
            check_names(directory.children)
            below = [(place + b"/" + name, child) for name, child in directory.children.items() if isinstance(child, Directory)]
            links = hardlinks(2 + len(below))
            holder.insert(entry_row(path_key(place), parent_key(place), basename(place), directory.entry, links=links))
            files = {name: child for name, child in directory.children.items() if isinstance(child, Entry)}
            self.put_all(holder, place, files)
            pending += reversed(below)
        holder.add_links(parent_key(path), 1)

    def take_away(self, path: bytes) -> None:
        """Remove what is at a path, if there is something."""
        holder = self.holder(path)
        row = holder.row(path_key(path))
        if row is None:
            return
        if holder.path == path:
            nested, holder = holder, self._parent_of(path)
            mountpoint = holder.row(row.key)
            if mountpoint is None:
                raise RepositoryDamaged(f"{holder.what} lacks the mountpoint of {nested.what}")
            holder.detach(path, nested.accounted)
            holder.delete(mountpoint)
        elif row.is_directory:
            self._delete_below(holder, row, path)
            holder.delete(row)
        else:
            holder.delete(row)
        if row.is_directory:
            holder.add_links(row.parent, -1)
        for place in [place for place in self._editors if place == path or is_below(place, path)]:
            self._memory.keep(self._editors.pop(place))

    def split(self, holder: CatalogEditor, path: bytes) -> CatalogEditor:
        """Move a directory's content from the catalog that holds it to a new one of its own."""
        root = holder.row(path_key(path))
        if root is None:
            raise RepositoryDamaged(f"{holder.what} lacks {show(path)}")
        editor = CatalogEditor.new(path)
        editor.insert(root._replace(flags=root.flags | Flags.NESTED_ROOT))
        pending = [(root, path)]
        while pending:
            above, place = pending.pop()
            for row in holder.children(above.key):
                below = place + b"/" + row.name
                if row.flags & Flags.MOUNTPOINT:
                    total = self._accounted(holder, below)
                    reference = holder.nested_towards(below)
                    holder.detach(below, total)
                    editor.insert(row)
                    if reference is not None:
                        editor.attach(reference, total)
                else:
                    editor.insert(row, holder.chunks(row))
                    if row.is_directory:
                        pending.append((row, below))
                holder.delete(row._replace(hardlinks=hardlinks(1)))
        marker_key = path_key(path + b"/" + MARKER_NAME)
        if editor.row(marker_key) is None:
            marker = marker_entry(self._store, self._stamp.modified)
            editor.insert(entry_row(marker_key, root.key, MARKER_NAME, marker))
        holder.replace(root, root._replace(flags=root.flags | Flags.MOUNTPOINT))
        holder.attach(NestedReference(path, _UNWRITTEN, 0), Counters())
        self._editors[path] = editor
        return editor

    def write(self, ttl: int, growth: GrowthLimits) -> tuple[ContentHash, int]:
        """Store every changed catalog, children before parents; hash and uncompressed size of the root. ttl: seconds.

        Catalogs that have outgrown the limits are split before.
        """
        for editor in list(self._editors.values()):
            self._split_overgrown(editor, growth)
        levels: dict[int, list[CatalogEditor]] = {}
        for path, editor in self._editors.items():
            levels.setdefault(path.count(b"/"), []).append(editor)
        with ThreadPoolExecutor(_PUTS) as pool:
            puts = []
            for level in sorted(levels, reverse=True):
                changed = [editor for editor in levels[level] if editor.changed or not editor.path]
                packed = pool.map(lambda editor: editor.pack(self._stamp, None if editor.path else ttl), changed)
                for editor, (content, stored) in zip(changed, packed, strict=True):
                    puts.append(pool.submit(self._store.put, content, ObjectKind.CATALOG, stored))
                    if editor.path:
                        reference = NestedReference(editor.path, content, editor.size)
                        self._parent_of(editor.path).update_nested(editor, reference)
        for put in puts:
            put.result()
        root = self._editors[ROOT]
        return root.content or _UNWRITTEN, root.size

    def _parent_of(self, path: bytes) -> CatalogEditor:
        """The open catalog in which a nested catalog's mountpoint is."""
        return next(self._editors[place] for place in reversed(ancestors(path)[:-1]) if place in self._editors)

    def _delete_below(self, holder: CatalogEditor, directory: Row, path: bytes) -> None:
        pending = [(directory, path)]
        while pending:
            above, place = pending.pop()
            for row in holder.children(above.key):
                below = place + b"/" + row.name
                if row.flags & Flags.MOUNTPOINT:
                    holder.detach(below, self._accounted(holder, below))
                elif row.is_directory:
                    pending.append((row, below))
                holder.delete(row)

    def _accounted(self, holder: CatalogEditor, path: bytes) -> Counters:
        """What a nested catalog adds to the subtree counters of the one that names it."""
        reference = holder.nested_towards(path)
        if reference is None or reference.path != path:
            raise RepositoryDamaged(f"{holder.what} does not name the nested catalog at {show(path)}")
        return self.open(reference).accounted

    def _split_overgrown(self, editor: CatalogEditor, growth: GrowthLimits) -> None:
        """Give the largest directories of a catalog that became too large catalogs of their own; and so on in those."""
        pending = [editor]
        while pending:
            grown = pending.pop()
            if has_outgrown(grown.entries_before, grown.counters.own.entries, growth):
                pending += [self.split(grown, path) for path in overgrown(grown, growth)]
