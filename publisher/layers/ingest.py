"""One layer, from its blob to stored objects and a tree of entries. Blocking: to be run in a thread of its own."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from mirror.jobs.notes import Notes
from mirror.oci.digest import Digest
from publisher.cvmfs.entry import Directory, Entry
from publisher.errors import BrokenLayer
from publisher.layers import names, whiteout
from publisher.layers.header import Kind
from publisher.layers.keeping import Keeping
from publisher.layers.limits import LayerLimits
from publisher.layers.nodes import File
from publisher.layers.packed import Readable
from publisher.layers.policy import LayerPolicy
from publisher.layers.stream import LayerStream
from publisher.layers.tar import Member, TarReader
from publisher.layers.tree import LayerTree
from publisher.objects.pipeline import Intake, Pipeline

log = structlog.get_logger()

Progress = Callable[[int, int], None]
"""Told uncompressed bytes and members so far, every few megabytes. May raise to stop the work."""

_ALGORITHM = "sha256"
"""Of an archive whose digest nobody named."""
_PROGRESS_STEP = 8 << 20
_DEVICES = frozenset({Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE})


@dataclass(frozen=True, slots=True)
class LayerResult:
    """A layer whose content is stored."""

    tree: Directory
    """With overlayfs's own whiteouts and opaque directories."""
    diff_id: Digest
    """Of the uncompressed archive."""
    size: int
    """Bytes of the uncompressed archive."""
    entries: int
    """Names in the tree, whiteouts included, the root not."""
    depends_on_lower: bool
    """Whether over other layers the same archive would have to be unpacked in another way."""
    notes: Notes
    """What was left out of it or changed in it, by rule."""


def ingest_layer(
    blob: Readable,
    diff_id: Digest | None,
    pipeline: Pipeline,
    limits: LayerLimits,
    *,
    lower: Callable[[], Directory] | None = None,
    progress: Progress | None = None,
    deletions: bool = True,
    policy: LayerPolicy | None = None,
) -> LayerResult:
    """Unpack a layer into the pipeline's store.

    blob: the layer as it is stored; gzip, zstd and plain tar are told apart by their first bytes, whatever the media type says.
    diff_id: what the image's config says that the uncompressed archive's digest is; None for an archive that nobody promised.
    deletions: whether names that begin with `.wh.` are deletions, as in layers, or ordinary names, as in any other archive.
    policy: what is kept of it. Default: `LayerPolicy()`.
    lower: gives the merged tree of the layers below (`merge`); None for the lowest. Called at most once, and only if a hard link
    leads there, or if the layer implies directories without describing them.

    Raises UnsafeLayer and BrokenLayer for content that is refused for good, StorageFull and Unavailable where the store fails.
    """
    algorithm = diff_id.algorithm if diff_id is not None else _ALGORITHM
    hasher = hashlib.new(algorithm, usedforsecurity=False)
    stream = LayerStream(blob, limits, hasher)
    tree = LayerTree(limits, lower)
    keeping = Keeping(policy or LayerPolicy())
    with pipeline.intake() as intake:
        reader = TarReader(stream, limits)
        taker = _Taker(reader, tree, intake, keeping, deletions=deletions)
        reported = 0
        for count, member in enumerate(reader, 1):
            taker.take(member)
            if progress is not None and stream.position - reported >= _PROGRESS_STEP:
                reported = stream.position
                progress(reported, count)
        stream.drain()
        found = Digest(algorithm, hasher.hexdigest())
        if diff_id is not None and found != diff_id:
            raise BrokenLayer(f"the layer's content has the digest {found}, but the image's config says {diff_id}")
    directory, entries = tree.finish()
    notes = keeping.notes()
    if notes != Notes():
        log.info("layer_notes", diff_id=str(found), **notes.as_dict())
    return LayerResult(directory, found, stream.size, entries, tree.depends_on_lower, notes)


class _Taker:
    """Decides what becomes of each member. Design, section 8, rule 4."""

    def __init__(self, reader: TarReader, tree: LayerTree, intake: Intake, keeping: Keeping, *, deletions: bool) -> None:
        self._deletions = deletions
        self._reader = reader
        self._tree = tree
        self._intake = intake
        self._keeping = keeping
        self._dropped_devices: set[names.Path] = set()

    def take(self, member: Member) -> None:
        """Put one member into the tree, or drop it by rule."""
        deletion = None
        if names.may_mean_something(member.path):
            if any(names.is_marker(part) or (self._deletions and whiteout.is_aufs_internal(part)) for part in member.path):
                self._keeping.drop_name()
                return
            deletion = whiteout.parse(member.path) if self._deletions else None
        if deletion is not None:
            self._delete(deletion)
        elif member.kind is Kind.DIRECTORY:
            self._tree.add_directory(member.path, self._entry(member, stat.S_IFDIR))
        elif member.kind is Kind.FILE:
            ticket = self._intake.add(member.size, self._reader.read)
            self._tree.add(member.path, File(self._entry(member, stat.S_IFREG), ticket))
        elif member.kind in _DEVICES or member.link in self._dropped_devices:
            self._dropped_devices.add(member.path)
            self._keeping.drop_device()
            self._tree.leave_out(member.path)
        elif member.kind is Kind.HARD_LINK:
            self._tree.add_hard_link(member.path, member.link)
        elif member.kind is Kind.SYMLINK:
            self._tree.add(member.path, self._entry(member, stat.S_IFLNK))
        else:
            self._tree.add(member.path, self._entry(member, stat.S_IFIFO))

    def _delete(self, deletion: whiteout.Whiteout) -> None:
        if deletion.name is not None and names.is_marker(deletion.name):
            self._keeping.drop_name()
        else:
            self._tree.add_whiteout(deletion)

    def _entry(self, member: Member, file_type: int) -> Entry:
        return Entry(
            mode=self._keeping.mode(file_type | member.mode),
            uid=member.uid,
            gid=member.gid,
            mtime=member.mtime,
            mtime_ns=member.mtime_ns,
            symlink=member.target,
            xattrs=self._keeping.xattrs(member.xattrs) if member.xattrs else (),
        )
