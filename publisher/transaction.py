"""The one commit point: changes to a repository, made together and published as one revision, or not at all.

Repository format, sections 4 and 8.1. What happens to the catalogs is in `publisher.catalogs`.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Self

import structlog

from mirror.errors import InvalidInput, NotFound
from publisher.catalogs import OpenCatalogs
from publisher.cvmfs.builder import Stamp, build, store_metadata
from publisher.cvmfs.cuts import CutLimits, GrowthLimits, exceeds
from publisher.cvmfs.entry import Directory, Entry
from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.cvmfs.history import TRUNK, TRUNK_PREVIOUS, History, Tag, check_tag_name
from publisher.cvmfs.manifest import RepositoryManifest
from publisher.cvmfs.objects import ReadLimits
from publisher.cvmfs.path import ROOT, basename, check_names, normalise, parent, parent_key, path_key, show
from publisher.cvmfs.row import MARKER_NAME, TRANSITION, entry_row, row_entry
from publisher.cvmfs.snapshot import Snapshot
from publisher.errors import Conflict, PublishError, RepositoryDamaged
from publisher.repository import NewRoot, OnStep, Repository, Revision, Step, ignore_step

log = structlog.get_logger()

Verify = Callable[[Snapshot], None]


class Transaction:
    """A context manager that holds the repository's lock. Not for use by two threads at a time.

    Paths are bytes, with or without a leading slash. Parents that are missing are made as directories of mode 0755. Methods raise
    InvalidInput for what the format cannot hold and PublishError where something else is in the way, both without having changed
    anything but missing parents; after RepositoryDamaged, StorageFull or Unavailable the transaction is to be left.
    """

    def __init__(
        self,
        repository: Repository,
        *,
        limits: CutLimits | None = None,
        growth: GrowthLimits | None = None,
        wait: float = 60.0,
    ) -> None:
        """limits: entries of a catalog that is built; growth: of one that changes; wait: seconds to wait for another writer."""
        self._repository = repository
        self._limits = limits or CutLimits()
        self._growth = growth or GrowthLimits()
        self._wait = wait
        self._exit = ExitStack()
        self._tags: dict[str, str | None] = {}

    def __enter__(self) -> Self:
        """Lock, settle what an interrupted commit left, and base on the current revision. Raises Conflict, RepositoryDamaged."""
        with ExitStack() as stack:
            stack.enter_context(self._repository.spool.lock(self._wait))
            repository = self._repository
            self._base = repository.recover()
            self._reflog = repository.reflog()
            now = max(int(repository.clock()), self._base.timestamp)
            self._stamp = Stamp(self._base.revision + 1, now)
            self._catalogs = OpenCatalogs(repository.store, repository.objects, repository.memory, self._base, self._stamp)
            stack.callback(self._catalogs.close)
            self._exit = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._exit.close()

    @property
    def fqrn(self) -> str:
        """Fully qualified name of the repository that this changes."""
        return self._repository.fqrn

    @property
    def base(self) -> RepositoryManifest:
        """The manifest of the revision on which this builds."""
        return self._base

    @property
    def changed(self) -> bool:
        """Whether a commit would publish anything."""
        return bool(self._tags) or self._catalogs.changed

    def rely_on(self, since: float) -> None:
        """Make sure of content that is to be named here, that was stored before the transaction began, and is in no revision.

        since: Unix seconds at which all of it was there: put, put again, or part of the revision that was current then.
        Raises Conflict if a garbage collection may have deleted some of it meanwhile.
        """
        if since < self._repository.spool.swept_before():
            raise Conflict("content that was stored a long time ago may have been collected as garbage; it is stored again")

    def lookup(self, path: bytes) -> Entry | None:
        """The object at a path, as it will be after a commit; symbolic links are not followed."""
        path = normalise(path)
        editor = self._catalogs.holder(path)
        row = editor.row(path_key(path))
        return row_entry(row, editor.chunks(row)) if row else None

    def exists(self, path: bytes) -> bool:
        """Whether there is anything at the path."""
        path = normalise(path)
        return self._catalogs.holder(path).row(path_key(path)) is not None

    def names(self, directory: bytes) -> list[bytes]:
        """Names in a directory, as it will be after a commit, but for marker files; none if there is no such directory."""
        directory = normalise(directory)
        rows = self._catalogs.holder(directory).children(path_key(directory))
        return [row.name for row in rows if row.name != MARKER_NAME]

    def before(self) -> Snapshot:
        """The revision on which this builds, for reading. Raises RepositoryDamaged."""
        repository = self._repository
        return Snapshot(repository.objects, self._base.root, self._base.catalog_size, ReadLimits().cached_catalogs)

    def read(self, path: bytes) -> bytes:
        """Content of a regular file, as it will be after a commit. Raises NotFound, InvalidInput if it is something else."""
        entry = self.lookup(path)
        if entry is None:
            raise NotFound(f"{show(normalise(path))} does not exist")
        if not stat.S_ISREG(entry.mode):
            raise InvalidInput(f"{show(normalise(path))} is not a regular file")
        return self.content(entry)

    def content(self, entry: Entry) -> bytes:
        """Content of a regular file, wherever it is or was, or of one of its chunks. Raises RepositoryDamaged, Unavailable."""
        return b"".join(self._repository.objects.content(entry))

    def graft(self, path: bytes, tree: Directory) -> None:
        """Put a whole tree at the path as a nested catalog, in place of anything that is there.

        It is cut into further nested catalogs where it is larger than the limits allow. All content must be in the store already.
        """
        path = _inner(path)
        built = build(self._repository.store, path, tree, self._stamp, self._limits)
        self._catalogs.take_away(path)
        holder = self._catalogs.prepare_parent(path)
        holder.insert(built.mountpoint)
        holder.attach(built.reference, built.total)
        holder.add_links(parent_key(path), 1)

    def make_directory(self, path: bytes, entry: Entry | None = None) -> None:
        """Make a directory; if it exists, it stays, with mode, owner, time and xattrs of `entry` if one is given."""
        path = normalise(path)
        if entry is not None and not entry.is_directory:
            raise InvalidInput(f"{show(path)} cannot be made a directory with the mode {entry.mode:o}")
        holder = self._catalogs.holder(path)
        row = holder.row(path_key(path))
        if row is None:
            self._catalogs.insert_directory(self._catalogs.prepare_parent(path), path, entry)
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
        holder = self._catalogs.holder(path)
        if holder.path != path:
            self._catalogs.split(holder, path)

    def put_file(self, path: bytes, entry: Entry) -> None:
        """Put any object but a directory at the path, in place of one of these. Content must be in the store already."""
        path = _inner(path)
        self.put_files(parent(path), {basename(path): entry})

    def put_files(self, directory: bytes, entries: Mapping[bytes, Entry]) -> None:
        """Put objects into a directory as `put_file` does; names of one and the same entry become hard links of one another."""
        directory = normalise(directory)
        check_names(entries)
        for name, entry in entries.items():
            if entry.is_directory or name == MARKER_NAME:
                raise InvalidInput(f"{show(directory + b'/' + name)} cannot be put as a file")
        holder = self._catalogs.holder(directory)
        for name in entries:
            row = holder.row(path_key(directory + b"/" + name))
            if row is not None and row.is_directory:
                raise PublishError(f"{show(directory + b'/' + name)} is a directory; remove it first")
        holder = self._catalogs.prepare_parent(directory + b"/" + MARKER_NAME)
        self._catalogs.put_all(holder, directory, entries)

    def put_tree(self, path: bytes, tree: Directory) -> None:
        """Put a whole tree where nothing is, without a nested catalog of its own, unless it is larger than one may be."""
        path = _inner(path)
        if self.exists(path):
            raise PublishError(f"{show(path)} exists; remove it first")
        if exceeds(tree, self._limits.most):
            self.graft(path, tree)
        else:
            self._catalogs.insert_tree(path, tree)

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
        self._catalogs.take_away(path)
        return True

    def go_back(self, root: ContentHash, size: int | None) -> None:
        """Base the tree on that of an earlier revision of this repository; before any other change.

        root: hash of its root catalog; size: the catalog's uncompressed bytes, if known. Raises PublishError if it is gone.
        """
        try:
            self._catalogs.replace_root(root, size, self._base.root)
        except RepositoryDamaged as error:
            raise PublishError(f"the revision with the root catalog {root} is not complete any more: {error}") from error

    def tag(self, name: str, description: str = "") -> None:
        """Name the revision that the commit publishes. Raises InvalidInput for an impossible name."""
        check_tag_name(name)
        self._tags[name] = description

    def untag(self, name: str) -> None:
        """Forget a named snapshot."""
        self._tags[name] = None

    def commit(self, on_step: OnStep = ignore_step, verify: Verify | None = None) -> Revision:
        """Publish. Without any change nothing is published, and the current revision is returned.

        on_step: told of each step just before it is taken, on this thread; what it raises ends the commit (LeaseLost, say).
        verify: shown the new revision as it will be read, before anybody can see it; what it raises ends the commit, too.
        Raises Conflict if somebody else published meanwhile, StorageFull, Unavailable.
        """
        if not self.changed:
            return Revision(self._base.revision, self._base.root, self._base)
        on_step(Step.CATALOGS)
        root, size = self._catalogs.write(self._repository.settings.ttl, self._growth)
        if verify is not None:
            verify(self._repository.snapshot(root, size))
        on_step(Step.HISTORY)
        history = self._write_history(root, size)
        revision = self._repository.publish(NewRoot(root, size, self._stamp, history), self._reflog, self._base, on_step)
        log.info("revision_published", fqrn=self._repository.fqrn, revision=revision.revision, root=str(root))
        return revision

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
