"""One squashfs, from its bytes to stored objects and a tree of entries. Blocking: to be run in a thread of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from mirror.jobs.notes import Notes
from publisher.cvmfs.entry import Directory
from publisher.layers.keeping import Keeping
from publisher.layers.limits import LayerLimits
from publisher.layers.policy import LayerPolicy
from publisher.objects.pipeline import Pipeline, Ticket
from publisher.squashfs.filesystem import SquashFs
from publisher.squashfs.inodes import NO_FRAGMENT, Inode
from publisher.squashfs.source import Section
from publisher.squashfs.tree import Unread, read_tree


@dataclass(frozen=True, slots=True)
class SquashFsResult:
    """A squashfs whose content is stored."""

    tree: Directory
    """The caller's own."""
    entries: int
    """Names in the tree, the root not."""
    size: int
    """Bytes of content, each file counted once."""
    notes: Notes
    """What was left out of it or changed in it, by rule."""


def ingest_squashfs(
    source: Section, pipeline: Pipeline, limits: LayerLimits, policy: LayerPolicy, progress: Callable[[], None]
) -> SquashFsResult:
    """Unpack a squashfs into the pipeline's store.

    policy: what is kept of it. progress: called often; may raise to stop the work.

    Raises UnsafeLayer and BrokenLayer for content that is refused for good, StorageFull and Unavailable where the store fails.
    """
    filesystem = SquashFs(source, limits)
    keeping = Keeping(policy)
    tree = read_tree(filesystem, limits, keeping, progress)
    stored: dict[_Place, Ticket] = {}
    taken: list[tuple[Unread, Ticket]] = []
    with pipeline.intake() as intake:
        for file in sorted(tree.files, key=_order):
            progress()
            place = _place(file.inode)
            ticket = stored.get(place)
            if ticket is None:
                ticket = stored[place] = intake.add(file.inode.size, _Content(filesystem.content(file.inode)).read)
            taken.append((file, ticket))
    for file, ticket in taken:
        entry = replace(file.attributes, size=ticket.size, content=ticket.content, chunks=ticket.chunks)
        for directory, name in file.places:
            directory.children[name] = entry
    return SquashFsResult(tree.root, tree.entries, sum(file.inode.size for file in tree.files), keeping.notes())


_Place = tuple[int, bytes, int, int, int]
"""Where a file's content is; files of the same content mostly share it."""


def _place(inode: Inode) -> _Place:
    return inode.start, inode.blocks, inode.fragment, inode.offset if inode.fragment != NO_FRAGMENT else 0, inode.size


def _order(file: Unread) -> tuple[int, int, int]:
    """Each fragment is expanded once, for all files that end in it, and the rest is read forward."""
    return file.inode.fragment, file.inode.start, file.inode.offset


class _Content:
    """Blocks of any size as a stream."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._rest = b""

    def read(self, size: int) -> bytes:
        """Exactly the next `size` bytes, which are there."""
        parts = []
        while size > 0:
            block = self._rest or next(self._blocks)
            parts.append(block[:size])
            self._rest = block[size:]
            size -= len(parts[-1])
        return b"".join(parts)
