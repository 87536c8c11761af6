"""A layer's tree while it grows: directories that may only be implied yet, and files whose hashes are not known yet."""

from __future__ import annotations

import stat
from dataclasses import dataclass, field
from typing import TypeAlias

from publisher.cvmfs.entry import Entry
from publisher.objects.pipeline import Ticket


@dataclass(slots=True, eq=False)
class File:
    """A regular file; several names of one are hard links."""

    attributes: Entry
    """Everything but the content."""
    ticket: Ticket
    _entry: Entry | None = None

    def entry(self) -> Entry:
        """The file's entry, always the same one; to be asked for once its intake is finished."""
        if self._entry is None:
            known = self.attributes
            self._entry = Entry(
                mode=known.mode,
                uid=known.uid,
                gid=known.gid,
                mtime=known.mtime,
                mtime_ns=known.mtime_ns,
                size=self.ticket.size,
                content=self.ticket.content,
                chunks=self.ticket.chunks,
                xattrs=known.xattrs,
            )
        return self._entry


@dataclass(slots=True, eq=False)
class Folder:
    """A directory of the layer."""

    attributes: Entry | None = None
    """None as long as only paths of other members imply the directory."""
    opaque: bool = False
    """Hides all that lower layers have in it."""
    children: dict[bytes, Node] = field(default_factory=dict)
    deleted: set[bytes] = field(default_factory=set)
    """Names that lower layers no longer have, whether or not this one has them anew."""


Node: TypeAlias = "Folder | File | Entry"


def is_symlink(node: object) -> bool:
    """Whether the node is a symbolic link."""
    return isinstance(node, Entry) and stat.S_ISLNK(node.mode)
