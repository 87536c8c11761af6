"""The tree of one layer, built member by member, with deletions in overlayfs's own form.

Rules: the last member of a name wins, and replaces a whole subtree if only one of the two is a directory; a member wins over a
deletion of the same name, wherever the two stand in the archive, but hides what lower layers have there; directories that
only the paths of others imply look as in the lower layers, or else are root's, 0755.
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import replace

from publisher.cvmfs.entry import Directory, Entry
from publisher.errors import BrokenLayer, UnsafeLayer
from publisher.layers import names
from publisher.layers.limits import LayerLimits
from publisher.layers.nodes import File, Folder, Node, is_symlink
from publisher.layers.resolve import LinkBudget, Walk, find
from publisher.layers.whiteout import Whiteout, whiteout_entry, with_opaque

IMPLIED = Entry(mode=stat.S_IFDIR | 0o755, mtime_ns=1)
"""What directories are that neither a member nor a lower layer describes: this very entry, with a time that no archive has.

A layer's root that no member describes is always this, whatever the lower layers have: nearly all layers are so, and it must not
make them depend on the layers that they happened to be unpacked over first.
"""


class _NoDirectory(BrokenLayer):
    """A path leads through something that is no directory."""


class LayerTree:
    """Takes members in the archive's order. Raises UnsafeLayer and BrokenLayer; both name the member."""

    def __init__(self, limits: LayerLimits, lower: Callable[[], Directory] | None) -> None:
        """lower: gives the merged tree of the layers below; called at most once, and only if the layer needs it."""
        self._limits = limits
        self._lower = lower
        self._lower_tree: Directory | None = None
        self.depends_on_lower = False
        """Whether the tree is as it is only over these lower layers: it has links into them, or directories that look alike."""
        self._root = Folder()
        self._names = 0
        self._budget = LinkBudget(8 * limits.entries)
        self._opened: tuple[names.Path, Folder] = ((), self._root)
        """The directory that was asked for last: members mostly come directory by directory."""

    def add_directory(self, path: names.Path, attributes: Entry) -> None:
        """A directory; of one that is there already only the attributes change."""
        if not path:
            self._root.attributes = attributes
            return
        parent = self._open(path[:-1])
        existing = parent.children.get(path[-1])
        if isinstance(existing, Folder):
            existing.attributes = attributes
        else:
            if existing is not None:
                parent.deleted.add(path[-1])  # what it replaces had replaced the lower layers' directory already
            self._put(parent, path, Folder(attributes))

    def add(self, path: names.Path, node: File | Entry) -> None:
        """Anything that is not a directory, in the place of whatever has the name."""
        if not path:
            raise BrokenLayer("the layer's root is not a directory")
        self._put(self._open(path[:-1]), path, node)

    def add_hard_link(self, path: names.Path, target: names.Path) -> None:
        """Another name for what `target` is, in this layer so far or else in the lower ones."""
        found = find(self._root, None, target, self._budget) or find(self._root, self._below(), target, self._budget)
        if found is None:
            raise BrokenLayer(f"'{names.shown(path)}' is a hard link to '{names.shown(target)}', which does not exist")
        if isinstance(found, Folder | Directory):
            raise BrokenLayer(f"'{names.shown(path)}' is a hard link to '{names.shown(target)}', which is a directory")
        self.add(path, found)

    def leave_out(self, path: names.Path) -> None:
        """A member that is not kept: what it would have replaced, here or in the lower layers, is not there either."""
        if find(self._root, None, path, self._budget) is None and find(self._root, self._below(), path, self._budget) is None:
            return
        parent = self._open(path[:-1])
        if parent.children.pop(path[-1], None) is not None:
            self._opened = ((), self._root)
        self.add_whiteout(Whiteout(path[:-1], path[-1]))

    def add_whiteout(self, whiteout: Whiteout) -> None:
        """Hide one name of the lower layers, or all that they have in a directory.

        Where this layer has put something else in the directory's place nothing is left to hide: umoci writes whiteouts for all
        that was in a directory which became a file.
        """
        try:
            folder = self._open(whiteout.parent)
        except _NoDirectory:
            return
        if whiteout.name is None:
            folder.opaque = True
        else:
            self._count()
            folder.deleted.add(whiteout.name)

    def finish(self) -> tuple[Directory, int]:
        """The tree, and how many names it has; once the intake of all its files is finished."""
        lower = self._below() if any(map(_has_implied, _folders(self._root))) else None
        self._names = 0
        return self._finished(self._root, lower, 0), self._names

    def _below(self) -> Directory | None:
        self.depends_on_lower = True
        if self._lower_tree is None and self._lower is not None:
            self._lower_tree = self._lower()
        return self._lower_tree

    def _count(self) -> None:
        self._names += 1
        if self._names > self._limits.entries:
            raise UnsafeLayer(f"the layer makes more than the {self._limits.entries} names that are allowed")

    def _put(self, parent: Folder, path: names.Path, node: Node) -> None:
        self._count()
        if path[-1] in parent.children:
            self._opened = ((), self._root)  # whose path may lead elsewhere now
        parent.children[path[-1]] = node

    def _open(self, path: names.Path) -> Folder:
        """The directory of this path, made where it lacks, links of this layer followed inside the root."""
        if self._opened[0] == path:
            return self._opened[1]
        walk = Walk(path, self._budget)
        stack = [self._root]
        for component in walk:
            if component == b"..":
                del stack[max(1, len(stack) - 1) :]
                continue
            child = stack[-1].children.get(component)
            if isinstance(child, Folder):
                stack.append(child)
            elif child is None:
                names.split(component, self._limits, "directory")
                if names.is_reserved(component):
                    raise UnsafeLayer(
                        f"'{names.shown(path)}' leads through a link to the reserved name '{names.shown(component)}'"
                    )
                implied = Folder()
                self._put(stack[-1], (component,), implied)
                stack.append(implied)
            elif isinstance(child, Entry) and is_symlink(child):
                if walk.follow(child):
                    del stack[1:]
            else:
                raise _NoDirectory(
                    f"'{names.shown(path)}' is the path of a member, but '{names.shown(component)}' is no directory"
                )
            if len(stack) > self._limits.depth:
                raise UnsafeLayer(f"'{names.shown(path)}' leads more than {self._limits.depth} levels deep")
        self._opened = (path, stack[-1])
        return stack[-1]

    def _finished(self, folder: Folder, lower: Directory | None, length: int, *, anew: bool = False) -> Directory:
        """lower: what the layers below have here; length: bytes of the path to here; anew: this hides all of `lower`."""
        lower = None if anew else lower
        attributes = folder.attributes
        if attributes is None:
            attributes = IMPLIED if lower is None or folder is self._root else lower.entry
        if anew or folder.opaque:
            attributes = replace(attributes, xattrs=with_opaque(attributes.xattrs))
            lower = None
        children: dict[bytes, Directory | Entry] = {name: whiteout_entry() for name in sorted(folder.deleted)}
        for name, child in folder.children.items():
            if length + len(name) > self._limits.path_bytes:
                raise UnsafeLayer(f"a path that ends in '{names.shown(name)}' has more than {self._limits.path_bytes} bytes")
            if isinstance(child, Folder):
                below = lower.children.get(name) if lower is not None else None
                below = below if isinstance(below, Directory) else None
                anew = name in folder.deleted
                made = self._finished(child, below, length + len(name) + 1, anew=anew)
                is_bare = not made.children or only_deletes(made)
                if anew and child.attributes is None and not child.opaque and is_bare:
                    self._names -= len(made.children)  # all of it is deleted anyway
                else:
                    children[name] = made
            else:
                children[name] = child.entry() if isinstance(child, File) else child
        self._names += len(children)
        return Directory(attributes, children)


def is_implied(entry: Entry) -> bool:
    """Whether this is IMPLIED, in memory or read back from a repository."""
    return entry is IMPLIED or (
        (entry.mtime_ns, entry.mtime, entry.mode, entry.uid, entry.gid) == (1, 0, IMPLIED.mode, 0, 0) and not entry.xattrs
    )


def only_deletes(directory: Directory) -> bool:
    """Whether something is in it, and nothing but deletions, and directories that only these imply."""
    return bool(directory.children) and all(
        child.is_whiteout if isinstance(child, Entry) else is_implied(child.entry) and only_deletes(child)
        for child in directory.children.values()
    )


def _has_implied(folder: Folder) -> bool:
    return folder.attributes is None or any(map(_has_implied, _folders(folder)))


def _folders(folder: Folder) -> list[Folder]:
    return [child for child in folder.children.values() if isinstance(child, Folder)]
