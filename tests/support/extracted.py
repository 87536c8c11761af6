"""A part of a repository written out to a directory, for tools that want files: what a mounted client would show, in a copy."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from publisher.cvmfs.entry import Directory, Entry
from publisher.cvmfs.reader import RepositoryReader


def extract(reader: RepositoryReader, place: Path, *paths: bytes) -> None:
    """Write out these directories, as root: with owners, deletion marks and extended attributes.

    Links that lead to /cvmfs/<fqrn> lead to the copy.
    """
    for path in paths:
        _write(reader, os.fsencode(place), b"/" + path, reader.tree(path))


def _write(reader: RepositoryReader, top: bytes, path: bytes, tree: Directory) -> None:
    os.makedirs(top + path)  # noqa: PTH103 - pathlib has no paths of bytes
    written: dict[int, bytes] = {}
    for name, child in tree.children.items():
        below = path + b"/" + name
        if isinstance(child, Directory):
            _write(reader, top, below, child)
        elif id(child) in written:
            os.link(written[id(child)], top + below)
        else:
            _write_entry(reader, top, top + below, child)
            written[id(child)] = top + below
    _dress(top + path, tree.entry)


def _write_entry(reader: RepositoryReader, top: bytes, place: bytes, entry: Entry) -> None:
    if stat.S_ISLNK(entry.mode):
        os.symlink(entry.symlink.replace(f"/cvmfs/{reader.fqrn}/".encode(), top + b"/"), place)  # noqa: PTH211 - as above
    elif stat.S_ISREG(entry.mode):
        with open(place, "wb") as file:  # noqa: PTH123 - as above
            file.writelines(reader.snapshot.content(entry))
    else:
        os.mknod(place, entry.mode, entry.rdev)
    _dress(place, entry)


def _dress(place: bytes, entry: Entry) -> None:
    os.lchown(place, entry.uid, entry.gid)
    if not stat.S_ISLNK(entry.mode):
        os.chmod(place, stat.S_IMODE(entry.mode))  # noqa: PTH101 - as above
        for name, value in entry.xattrs:
            os.setxattr(place, name, value)
    time = entry.mtime * 10**9 + entry.mtime_ns
    os.utime(place, ns=(time, time), follow_symlinks=False)
