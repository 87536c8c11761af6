"""A part of a repository written out to a directory, for tools that want files: what a mounted client would show, in a copy."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from publisher.cvmfs.entry import Directory, Entry
from publisher.cvmfs.reader import RepositoryReader


def extract(reader: RepositoryReader, place: Path, *paths: bytes) -> None:
    """Write out these directories, with deletion marks and extended attributes as far as the user may make them."""
    for path in paths:
        _write(reader, os.fsencode(place) + b"/" + path, reader.tree(path))


def _write(reader: RepositoryReader, place: bytes, tree: Directory) -> None:
    os.makedirs(place, exist_ok=True)  # noqa: PTH103 - pathlib has no paths of bytes
    for name, child in tree.children.items():
        if isinstance(child, Directory):
            _write(reader, place + b"/" + name, child)
        else:
            _write_entry(reader, place + b"/" + name, child)
    _dress(place, tree.entry)


def _write_entry(reader: RepositoryReader, place: bytes, entry: Entry) -> None:
    if stat.S_ISLNK(entry.mode):
        os.symlink(entry.symlink, place)  # noqa: PTH211 - as above
        return
    if stat.S_ISREG(entry.mode):
        with open(place, "wb") as file:  # noqa: PTH123 - as above
            file.writelines(reader.snapshot.content(entry))
    else:
        os.mknod(place, entry.mode, entry.rdev)
    _dress(place, entry)


def _dress(place: bytes, entry: Entry) -> None:
    os.chmod(place, stat.S_IMODE(entry.mode))  # noqa: PTH101 - as above
    for name, value in entry.xattrs:
        with suppress(PermissionError, OSError):
            os.setxattr(place, name, value)
