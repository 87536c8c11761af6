"""The one commit point: changes to a repository, made together and published as one revision, or not at all.

Only the catalogs on touched paths are fetched, changed in memory and written again, so that the cost depends on the change and
not on the repository. Repository format, sections 4 and 8.1.
"""

from __future__ import annotations

import stat
from contextlib import ExitStack
from types import TracebackType
from typing import Self

import structlog

from mirror.errors import InvalidInput, NotFound
from publisher.cvmfs.builder import Stamp, build, marker_entry, store_metadata
from publisher.cvmfs.catalog import NestedReference
from publisher.cvmfs.cuts import CutLimits
from publisher.cvmfs.editor import CatalogEditor
from publisher.cvmfs.entry import Directory, Entry
from publisher.cvmfs.hash import HASH_SIZE, ContentHash, ObjectKind
from publisher.cvmfs.history import TRUNK, TRUNK_PREVIOUS, History, Tag, check_tag_name
from publisher.cvmfs.manifest import RepositoryManifest
from publisher.cvmfs.path import ROOT, ancestors, basename, is_below, normalise, parent_key, path_key, show
from publisher.cvmfs.row import MARKER_NAME, TRANSITION, Flags, Row, entry_row, hardlinks, row_entry
from publisher.cvmfs.statistics import Counters
from publisher.errors import PublishError, RepositoryDamaged
from publisher.repository import NewRoot, OnStep, Repository, Revision, Step, ignore_step

_UNWRITTEN = ContentHash(bytes(HASH_SIZE))
"""Stands for a nested catalog that is written when the transaction commits."""

log = structlog.get_logger()


class Transaction:
    """A context manager that holds the repository's lock. Not for use by two threads at a time.

    Paths are bytes, with or without a leading slash. Parents that are missing are made as directories of mode 0755. Methods raise
    InvalidInput for what the format cannot hold and PublishError where something else is in the way, both without having changed
    anything but missing parents; after RepositoryDamaged, StorageFull or Unavailable the transaction is to be left.
    """

    def __init__(self, repository: Repository, *, limits: CutLimits | None = None, wait: float = 60.0) -> None:
        """limits: entries per catalog; wait: seconds to wait for another writer."""
        self._repository = repository
        self._limits = limits or CutLimits()
        self._wait = wait
        self._exit = ExitStack()
        self._editors: dict[bytes, CatalogEditor] = {}
        self._tags: dict[str, str | None] = {}

    def __enter__(self) -> Self:
        """Lock, settle what an interrupted commit left, and base on the current revision. Raises Conflict, RepositoryDamaged."""
        with ExitStack() as stack:
            stack.enter_context(self._repository.spool.lock(self._wait))
            stack.callback(self._close)
            self._base = self._repository.recover()
            self._reflog = self._repository.reflog()
            now = max(int(self._repository.clock()), self._base.timestamp)
            self._stamp = Stamp(self._base.revision + 1, now)
            self._open(NestedReference(ROOT, self._base.root, self._base.catalog_size or 0))
            self._exit = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._exit.close()

    @property
    def base(self) -> RepositoryManifest:
        """The manifest of the revision on which this builds."""
        return self._base

    @property
    def changed(self) -> bool:
        """Whether a commit would publish anything."""
        return bool(self._tags) or any(editor.changed for editor in self._editors.values())

    def lookup(self, path: bytes) -> Entry | None:
        """The object at a path, as it will be after a commit; symbolic links are not followed."""
        path = normalise(path)
        editor = self._holder(path)
        row = editor.row(path_key(path))
        return row_entry(row, editor.chunks(row)) if row else None

    def exists(self, path: bytes) -> bool:
        """Whether there is anything at the path."""
        path = normalise(path)
        return self._holder(path).row(path_key(path)) is not None

    def read(self, path: bytes) -> bytes:
        """Content of a regular file, as it will be after a commit. Raises NotFound, InvalidInput if it is something else."""
        entry = self.lookup(path)
        if entry is None:
            raise NotFound(f"{show(normalise(path))} does not exist")
        if not stat.S_ISREG(entry.mode):
            raise InvalidInput(f"{show(normalise(path))} is not a regular file")
        return b"".join(self._repository.objects.content(entry))

    def graft(self, path: bytes, tree: Directory) -> None:
        """Put a whole tree at the path as a nested catalog, in place of anything that is there.

        It is cut into further nested catalogs where it is larger than the limits allow. All content must be in the store already.
        """
        path = _inner(path)
        holder = self._holder(path)
        previous = holder.content if holder.path == path else None
        built = build(self._repository.store, path, tree, self._stamp, self._limits, previous=previous)
        self._take_away(path)
        holder = self._prepare_parent(path)
        holder.insert(built.mountpoint)
        holder.attach(built.reference, built.total)
        holder.add_links(parent_key(path), 1)

    def make_directory(self, path: bytes, entry: Entry | None = None) -> None:
        """Make a directory; if it exists, it stays, with mode, owner, time and xattrs of `entry` if one is given."""
        path = normalise(path)
        if entry is not None and not entry.is_directory:
            raise InvalidInput(f"{show(path)} cannot be made a directory with the mode {entry.mode:o}")
        holder = self._holder(path)
        row = holder.row(path_key(path))
        if row is None:
            self._insert_directory(self._prepare_parent(path), path, entry)
        elif not row.is_directory:
            raise PublishError(f"{show(path)} is no directory; remove it first")
        elif entry is not None:
            transition = row.flags & TRANSITION
            new = entry_row(row.key, row.parent, row.name, entry, links=row.hardlinks, transition=transition)
            if new != row:
                holder.replace(row, new)

    def make_catalog(self, path: bytes) -> None:
        """Let a directory, made if need be, have a nested catalog of its own; no change if it has."""
        path = _inner(path)
        self.make_directory(path)
        holder = self._holder(path)
        if holder.path != path:
            self._split(holder, path)

    def put_file(self, path: bytes, entry: Entry) -> None:
        """Put any object but a directory at the path, in place of one of these. Content must be in the store already."""
        path = _inner(path)
        if entry.is_directory or basename(path) == MARKER_NAME:
            raise InvalidInput(f"{show(path)} cannot be put as a file")
        holder = self._holder(path)
        old = holder.row(path_key(path))
        row = entry_row(path_key(path), parent_key(path), basename(path), entry)
        if old is None:
            holder = self._prepare_parent(path)
        elif old.is_directory:
            raise PublishError(f"{show(path)} is a directory; remove it first")
        elif old == row and holder.chunks(old) == entry.chunks:
            return
        else:
            holder.delete(old)
        holder.insert(row, entry.chunks)

    def put_symlink(self, path: bytes, target: bytes) -> None:
        """Put a symbolic link at the path; no change if it is there with this target."""
        present = self.lookup(path)
        if present is None or not stat.S_ISLNK(present.mode) or present.symlink != target:
            self.put_file(path, Entry(mode=stat.S_IFLNK | 0o777, mtime=self._stamp.modified, symlink=target))

    def remove(self, path: bytes) -> bool:
        """Take an object away, a directory with everything below it; whether there was one."""
        path = _inner(path)
        if not self.exists(path):
            return False
        self._take_away(path)
        return True

    def tag(self, name: str, description: str = "") -> None:
        """Name the revision that the commit publishes. Raises InvalidInput for an impossible name."""
        check_tag_name(name)
        self._tags[name] = description

    def untag(self, name: str) -> None:
        """Forget a named snapshot."""
        self._tags[name] = None

    def commit(self, on_step: OnStep = ignore_step) -> Revision:
        """Publish. Without any change nothing is published, and the current revision is returned.

        on_step: told of each step just before it is taken, on this thread; what it raises ends the commit (LeaseLost, say).
        Raises Conflict if somebody else published meanwhile, StorageFull, Unavailable.
        """
        if not self.changed:
            return Revision(self._base.revision, self._base.root, self._base)
        on_step(Step.CATALOGS)
        root, size = self._write_catalogs()
        on_step(Step.HISTORY)
        history = self._write_history(root, size)
        revision = self._repository.publish(NewRoot(root, size, self._stamp, history), self._reflog, self._base, on_step)
        log.info("revision_published", fqrn=self._repository.fqrn, revision=revision.revision, root=str(root))
        return revision

    def _close(self) -> None:
        for editor in self._editors.values():
            editor.close()
        self._editors.clear()

    def _open(self, reference: NestedReference) -> CatalogEditor:
        editor = self._editors.get(reference.path)
        if editor is None:
            data = self._repository.objects.metadata(reference.content, ObjectKind.CATALOG, reference.size or None)
            editor = CatalogEditor(data, reference.path, reference.content)
            editor.root_row()
            self._editors[reference.path] = editor
        return editor

    def _holder(self, path: bytes) -> CatalogEditor:
        """The catalog that has the path's row, or would have it; a nested catalog's own, for its directory."""
        editor = self._editors[ROOT]
        while reference := editor.nested_towards(path):
            editor = self._open(reference)
        return editor

    def _parent_of(self, path: bytes) -> CatalogEditor:
        """The open catalog in which a nested catalog's mountpoint is."""
        return next(self._editors[place] for place in reversed(ancestors(path)[:-1]) if place in self._editors)

    def _prepare_parent(self, path: bytes) -> CatalogEditor:
        """Make the directories above a path that are missing, and return the catalog that is to hold it. Raises PublishError."""
        above = ancestors(path)[:-1]
        holder = self._holder(above[-1])
        missing = []
        while (row := holder.row(path_key(above[-1]))) is None:
            missing.append(above.pop())
        if not row.is_directory:
            raise PublishError(f"{show(above[-1])} is no directory; remove it first")
        for place in reversed(missing):
            self._insert_directory(holder, place, None)
        return holder

    def _insert_directory(self, holder: CatalogEditor, path: bytes, entry: Entry | None) -> None:
        made = entry or Entry(mode=stat.S_IFDIR | 0o755, mtime=self._stamp.modified)
        holder.insert(entry_row(path_key(path), parent_key(path), basename(path), made, links=hardlinks(2)))
        holder.add_links(parent_key(path), 1)

    def _take_away(self, path: bytes) -> None:
        """Remove what is at a path, if there is something."""
        holder = self._holder(path)
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
            self._editors.pop(place).close()

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
        return self._open(reference).accounted

    def _split(self, holder: CatalogEditor, path: bytes) -> None:
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
            marker = marker_entry(self._repository.store, self._stamp.modified)
            editor.insert(entry_row(marker_key, root.key, MARKER_NAME, marker))
        holder.replace(root, root._replace(flags=root.flags | Flags.MOUNTPOINT))
        holder.attach(NestedReference(path, _UNWRITTEN, 0), Counters())
        self._editors[path] = editor

    def _write_catalogs(self) -> tuple[ContentHash, int]:
        """Store every changed catalog, children before parents; hash and uncompressed size of the root."""
        for path in sorted(self._editors, key=len, reverse=True):
            editor = self._editors[path]
            if path and editor.changed:
                content, size = self._store(editor)
                self._parent_of(path).update_nested(editor, NestedReference(path, content, size))
        return self._store(self._editors[ROOT])

    def _store(self, editor: CatalogEditor) -> tuple[ContentHash, int]:
        data = editor.finish(self._stamp, None if editor.path else self._repository.settings.ttl)
        return store_metadata(self._repository.store, data, ObjectKind.CATALOG), len(data)

    def _write_history(self, root: ContentHash, size: int) -> ContentHash | None:
        """Follow the wanted tags, and the two that CernVM-FS's server tools keep, where they are kept."""
        base = self._base
        if base.history is None and not any(text is not None for text in self._tags.values()):
            return None
        history = self._history()
        tags = history.tags()
        for name, description in self._tags.items():
            if description is None:
                history.remove(name)
            else:
                history.put(Tag(name, root, self._stamp.revision, self._stamp.modified, size, description))
        if TRUNK in tags and TRUNK not in self._tags:
            previous = Tag(
                TRUNK_PREVIOUS, base.root, base.revision, base.timestamp, base.catalog_size or 0, "default undo target"
            )
            history.put(previous)
            history.put(Tag(TRUNK, root, self._stamp.revision, self._stamp.modified, size, "current HEAD"))
        now = history.tags()
        if now == tags:
            return base.history
        if not now:
            return None
        return store_metadata(self._repository.store, history.serialise(base.history), ObjectKind.HISTORY)

    def _history(self) -> History:
        content = self._base.history
        if content is None:
            return History.empty(self._repository.fqrn)
        return History(self._repository.objects.metadata(content, ObjectKind.HISTORY), self._repository.fqrn)


def _inner(path: bytes) -> bytes:
    path = normalise(path)
    if path == ROOT:
        raise InvalidInput("the root of a repository cannot be replaced or removed as a whole")
    return path
