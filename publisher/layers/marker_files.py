"""Deletions as files named `.wh.<name>`, the form that layers have them in and that DUCC leaves in repositories. Pure.

Everywhere else in the publisher a layer's tree has overlayfs's own marks (`publisher.layers.whiteout`); it is changed to files
when it is put into a repository that wants them, and back when it is read. Layout reference, section 3.
"""

from __future__ import annotations

import stat
from dataclasses import replace

from publisher.cvmfs.entry import Directory, Entry
from publisher.cvmfs.path import NAME_MAX
from publisher.errors import UnsafeLayer
from publisher.layers import names
from publisher.layers.whiteout import is_aufs_internal, whiteout_entry, with_opaque, without_opaque

_OPAQUE = names.WHITEOUT_PREFIX + names.WHITEOUT_PREFIX + b".opq"


def with_marker_files(tree: Directory, empty: Entry) -> Directory:
    """A copy of a layer with files for marks. empty: attributes and content of an empty file; each mark gets a copy.

    Raises UnsafeLayer for a deleted name that is so long that no file can be named for it.
    """
    entry = tree.entry
    children: dict[bytes, Directory | Entry] = {}
    if entry.is_opaque:
        entry = replace(entry, xattrs=without_opaque(entry.xattrs))
        children[_OPAQUE] = replace(empty)
    for name, child in tree.children.items():
        if isinstance(child, Directory):
            children[name] = with_marker_files(child, empty)
        elif child.is_whiteout:
            mark = names.WHITEOUT_PREFIX + name
            if len(mark) > NAME_MAX:
                raise UnsafeLayer(
                    f"the deletion of '{names.shown(name)}' has no place in a file's name; it is too long for '.wh.'"
                )
            children[mark] = replace(empty)
        else:
            children[name] = child
    return Directory(entry, children)


def without_marker_files(tree: Directory) -> Directory:
    """A copy of a layer with overlayfs's own marks, whatever form it is in.

    A name that is both deleted and there is there, and hides what lower layers have: of a directory, all that they have in it.
    """
    entry = tree.entry
    deleted = set()
    children: dict[bytes, Directory | Entry] = {}
    for name, child in tree.children.items():
        if not name.startswith(names.WHITEOUT_PREFIX) or isinstance(child, Directory):
            children[name] = without_marker_files(child) if isinstance(child, Directory) else child
        elif name == _OPAQUE:
            entry = _opaque(entry)
        elif not is_aufs_internal(name) and stat.S_ISREG(child.mode):
            deleted.add(name.removeprefix(names.WHITEOUT_PREFIX))
    for name in sorted(deleted - {b"", b".", b".."}):
        present = children.get(name)
        if present is None:
            children[name] = whiteout_entry()
        elif isinstance(present, Directory):
            present.entry = _opaque(present.entry)
    return Directory(entry, children)


def _opaque(entry: Entry) -> Entry:
    return entry if entry.is_opaque else replace(entry, xattrs=with_opaque(entry.xattrs))
