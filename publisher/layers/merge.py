"""A root file system from its layers, by metadata only. OCI image specification, layer.md, "Applying Changesets"."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import replace

from publisher.cvmfs.entry import Directory, Entry
from publisher.layers.tree import is_implied, only_deletes
from publisher.layers.whiteout import without_opaque


def merge(layers: Sequence[Directory]) -> Directory:
    """Lay the layers over one another, lowest first; without one the result is an empty root.

    A layer's deletions and opaque directories act on the layers below it and then are gone; a directory in several layers has the
    attributes of the topmost; anything over something of another type replaces all of it. The layers are not changed and
    share no directory with the result, only entries, so hard links stay hard links.
    """
    flat = Directory(Entry(mode=stat.S_IFDIR | 0o755))
    for layer in layers:
        root = flat.entry
        _lay_over(flat, layer)
        if is_implied(flat.entry):
            flat.entry = root
    return flat


def _lay_over(flat: Directory, layer: Directory) -> None:
    entry = layer.entry
    if entry.xattrs and entry.is_opaque:
        flat.children.clear()
        entry = replace(entry, xattrs=without_opaque(entry.xattrs))
    flat.entry = entry
    children = flat.children
    for name, child in layer.children.items():
        if isinstance(child, Directory):
            below = children.get(name)
            if not isinstance(below, Directory):
                if is_implied(child.entry) and only_deletes(child):
                    continue  # deletions make no directory where there is nothing to delete from
                below = children[name] = Directory(child.entry)
            _lay_over(below, child)
        elif child.is_whiteout:
            children.pop(name, None)
        else:
            children[name] = child
