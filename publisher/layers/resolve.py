"""Paths of members that lead through symbolic links: always inside the root, as if it were `/`.

An unpacker that runs in the root, as docker's and containerd's do, follows a link that the same layer brought before. Here
nothing is ever looked up on a real file system.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from publisher.cvmfs.entry import Directory, Entry
from publisher.errors import BrokenLayer, UnsafeLayer
from publisher.layers import names
from publisher.layers.nodes import File, Folder, Node, is_symlink

_MAX_LINKS = 40
"""What Linux follows in one path."""


class Walk:
    """The components of one path, with those of links put in where they are met."""

    def __init__(self, path: names.Path, budget: LinkBudget) -> None:
        self._path = path
        self._pending = list(reversed(path))
        self._budget = budget
        self._links = 0

    def __iter__(self) -> Iterator[bytes]:
        while self._pending:
            component = self._pending.pop()
            if component not in (b"", b"."):
                yield component

    @property
    def at_end(self) -> bool:
        """Whether no component is left."""
        return not self._pending

    def follow(self, link: Entry) -> bool:
        """Go on along a link's target; whether that begins at the root. Raises BrokenLayer for a loop."""
        parts = link.symlink.split(b"/")
        self._links += 1
        if self._links > _MAX_LINKS:
            raise BrokenLayer(f"'{names.shown(self._path)}' leads through more than {_MAX_LINKS} symbolic links")
        self._budget.take(len(parts))
        self._pending.extend(reversed(parts))
        return link.symlink.startswith(b"/")


class LinkBudget:
    """Components that a whole layer may lead its unpacker through by symbolic links; keeps the work linear."""

    def __init__(self, components: int) -> None:
        self._left = components

    def take(self, components: int) -> None:
        """Raises UnsafeLayer when it is used up."""
        self._left -= components
        if self._left < 0:
            raise UnsafeLayer("the layer leads through far too many symbolic links")


def find(root: Folder, lower: Directory | None, path: names.Path, budget: LinkBudget) -> Node | Directory | None:
    """What a path means in the layer laid over the lower ones; a link at its very end is not followed; None if it is nothing."""
    walk = Walk(path, budget)
    stack = [_Place(root, None if root.opaque else lower)]
    for component in walk:
        if component == b"..":
            del stack[max(1, len(stack) - 1) :]
            continue
        child = stack[-1].child(component)
        if isinstance(child, _Place):
            stack.append(child)
        elif child is None or walk.at_end:
            return child
        elif isinstance(child, File) or not is_symlink(child):
            return None
        elif walk.follow(child):
            del stack[1:]
    return stack[-1].upper or stack[-1].lower


@dataclass(slots=True)
class _Place:
    """A directory of the layer, of the lower ones, or of both."""

    upper: Folder | None
    lower: Directory | None

    def child(self, name: bytes) -> _Place | File | Entry | None:
        """What the name means here."""
        own = self.upper.children.get(name) if self.upper is not None else None
        hides = self.upper is not None and name in self.upper.deleted
        below = self.lower.children.get(name) if self.lower is not None and not hides else None
        if isinstance(own, Folder):
            return _Place(own, below if isinstance(below, Directory) and not own.opaque else None)
        if own is not None:
            return own
        return _Place(None, below) if isinstance(below, Directory) else below
