"""One layer, from its blob to stored objects and a tree of entries. Blocking: to be run in a thread of its own."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable
from dataclasses import asdict, dataclass

import structlog

from mirror.oci.digest import Digest
from publisher.cvmfs.entry import Directory, Entry
from publisher.cvmfs.xattr import representable
from publisher.errors import BrokenLayer
from publisher.layers import names, whiteout
from publisher.layers.header import Kind
from publisher.layers.limits import Dropped, LayerLimits
from publisher.layers.nodes import File
from publisher.layers.packed import Readable
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
_MOST_XATTRS = 253
"""A catalog holds 255; two are left for the marks of an opaque directory."""
_DEVICES = frozenset({Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE})
_OVERLAY_XATTRS = (b"user.overlay.", b"user.fuseoverlayfs.")


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
    dropped: Dropped


def ingest_layer(
    blob: Readable,
    diff_id: Digest | None,
    pipeline: Pipeline,
    limits: LayerLimits,
    *,
    lower: Callable[[], Directory] | None = None,
    progress: Progress | None = None,
    deletions: bool = True,
) -> LayerResult:
    """Unpack a layer into the pipeline's store.

    blob: the layer as it is stored; gzip, zstd and plain tar are told apart by their first bytes, whatever the media type says.
    diff_id: what the image's config says that the uncompressed archive's digest is; None for an archive that nobody promised.
    deletions: whether names that begin with `.wh.` are deletions, as in layers, or ordinary names, as in any other archive.
    lower: gives the merged tree of the layers below (`merge`); None for the lowest. Called at most once, and only if a hard link
    leads there, or if the layer implies directories without describing them.

    Raises UnsafeLayer and BrokenLayer for content that is refused for good, StorageFull and Unavailable where the store fails.
    """
    algorithm = diff_id.algorithm if diff_id is not None else _ALGORITHM
    hasher = hashlib.new(algorithm, usedforsecurity=False)
    stream = LayerStream(blob, limits, hasher)
    tree = LayerTree(limits, lower)
    dropped = Dropped()
    with pipeline.intake() as intake:
        reader = TarReader(stream, limits)
        taker = _Taker(reader, tree, intake, dropped, deletions=deletions)
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
    if dropped != Dropped():
        log.info("layer_parts_dropped", diff_id=str(found), **asdict(dropped))
    return LayerResult(directory, found, stream.size, entries, dropped)


class _Taker:
    """Decides what becomes of each member. Design, section 8, rule 4."""

    def __init__(self, reader: TarReader, tree: LayerTree, intake: Intake, dropped: Dropped, *, deletions: bool) -> None:
        self._deletions = deletions
        self._reader = reader
        self._tree = tree
        self._intake = intake
        self._dropped = dropped
        self._dropped_devices: set[names.Path] = set()

    def take(self, member: Member) -> None:
        """Put one member into the tree, or drop it by rule."""
        deletion = None
        if names.may_mean_something(member.path):
            if any(names.is_marker(part) or (self._deletions and whiteout.is_aufs_internal(part)) for part in member.path):
                self._dropped.markers += 1
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
            self._dropped.devices += 1
        elif member.kind is Kind.HARD_LINK:
            self._tree.add_hard_link(member.path, member.link)
        elif member.kind is Kind.SYMLINK:
            self._tree.add(member.path, self._entry(member, stat.S_IFLNK))
        else:
            self._tree.add(member.path, self._entry(member, stat.S_IFIFO))

    def _delete(self, deletion: whiteout.Whiteout) -> None:
        if deletion.name is not None and names.is_marker(deletion.name):
            self._dropped.markers += 1
        else:
            self._tree.add_whiteout(deletion)

    def _entry(self, member: Member, file_type: int) -> Entry:
        return Entry(
            mode=file_type | member.mode,
            uid=member.uid,
            gid=member.gid,
            mtime=member.mtime,
            mtime_ns=member.mtime_ns,
            symlink=member.target,
            xattrs=self._kept_xattrs(member) if member.xattrs else (),
        )

    def _kept_xattrs(self, member: Member) -> tuple[tuple[bytes, bytes], ...]:
        user = [pair for pair in member.xattrs.items() if pair[0].startswith(b"user.")]
        wanted = [pair for pair in user if not pair[0].startswith(_OVERLAY_XATTRS)]
        kept = representable(wanted)[:_MOST_XATTRS]
        self._dropped.xattrs += len(member.xattrs) - len(kept)
        return kept
