"""What a stack of layers shows, found from the top down: to check what merging made of it from the bottom up. Pure.

Source: OCI image specification, layer.md, "Applying Changesets". For each name the uppermost layer that has it decides: a
deletion, and whatever is no directory, hides all that lower layers have there; an opaque directory hides what they have in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from publisher.cvmfs.entry import Directory, Entry
from publisher.layers.tree import is_implied, only_deletes


class _Above(Enum):
    """What the layers above have at a path."""

    OPEN = "a directory, in which lower layers show"
    CLOSED = "something that hides all lower layers"


def visible(layers: Sequence[Directory]) -> dict[bytes, Entry]:
    """Every object by its path from the root, which is left out. layers: lowest first, with overlayfs's own marks."""
    found: dict[bytes, Entry] = {}
    above: dict[bytes, _Above] = {}
    for layer in reversed(layers):
        opaque: list[bytes] = []
        pending = [(b"", layer)]
        while pending:
            prefix, directory = pending.pop()
            for name, child in directory.children.items():
                path = prefix + name
                is_new = path not in above
                if isinstance(child, Entry):
                    above[path] = _Above.CLOSED
                    if is_new and not child.is_whiteout:
                        found[path] = child
                elif above.get(path) is not _Above.CLOSED:
                    pending.append((path + b"/", child))
                    # Deletions make no directory by themselves: whether there is one is for the layers below to say.
                    if is_new and not (is_implied(child.entry) and only_deletes(child)):
                        found[path] = child.entry
                        above[path] = _Above.OPEN
                    if child.entry.is_opaque:
                        opaque.append(path)
        above.update(dict.fromkeys(opaque, _Above.CLOSED))
        if layer.entry.is_opaque:
            break
    return found


def first_misplaced(flat: Directory, layers: Sequence[Directory]) -> bytes | None:
    """The first path, in the order of bytes, that a root file system has against what its layers show; None if it is right.

    Directories need only be there: their attributes are the upper layers' and, where these say nothing, the lower ones'.
    """
    wanted = visible(layers)
    wrong = []
    for path, entry in flat.walk():
        shown = wanted.pop(path, None)
        if shown is not entry and not (shown is not None and shown.is_directory and entry.is_directory):
            wrong.append(path)
    return min([*wrong, *wanted], default=None)
