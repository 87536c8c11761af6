"""Lays a tree over what a repository has at a path, as unpacking an archive over a directory does."""

from __future__ import annotations

from dataclasses import replace

from publisher.cvmfs.entry import Directory, Entry
from publisher.cvmfs.path import ROOT, normalise
from publisher.layers.tree import IMPLIED
from publisher.transaction import Transaction


def date(tree: Directory, now: int) -> None:
    """Let directories of the tree that are only implied by the paths of others be of this time, Unix seconds."""
    pending = [tree]
    while pending:
        directory = pending.pop()
        if directory.entry == IMPLIED:
            directory.entry = replace(IMPLIED, mtime=now, mtime_ns=0)
        pending += [child for child in directory.children.values() if isinstance(child, Directory)]


def lay_over(transaction: Transaction, path: bytes, tree: Directory, now: int) -> None:
    """Put everything of the tree at the path; what is there under other names stays.

    now: Unix seconds, the time of new directories that are only implied by the paths of others. Directories that are there get
    the attributes of the tree's, unless these are only implied; the root of the repository keeps its own. Anything of another
    kind is replaced, a directory with everything in it. All content must be in the store already. Raises as the transaction's
    methods do.
    """
    pending = [(normalise(path), tree)]
    while pending:
        place, directory = pending.pop()
        present = transaction.lookup(place)
        if present is not None and not present.is_directory:
            transaction.remove(place)
            present = None
        if present is None:
            date(directory, now)
            transaction.put_tree(place, directory)
            continue
        if place != ROOT and directory.entry is not IMPLIED:
            transaction.make_directory(place, directory.entry)
        files = {name: child for name, child in directory.children.items() if isinstance(child, Entry)}
        for name in files:
            below = transaction.lookup(place + b"/" + name)
            if below is not None and below.is_directory:
                transaction.remove(place + b"/" + name)
        transaction.put_files(place, files)
        pending += [(place + b"/" + name, child) for name, child in directory.children.items() if isinstance(child, Directory)]
