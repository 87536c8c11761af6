"""A SIF file, from its bytes to stored objects and the tree of its root. Blocking: to be run in a thread of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from publisher.errors import BrokenLayer
from publisher.layers.limits import LayerLimits
from publisher.layers.policy import LayerPolicy
from publisher.objects.pipeline import Pipeline
from publisher.sif.header import DESCRIPTOR_SIZE, HEADER_SIZE, Partition, parse_descriptors, parse_header, root_partition
from publisher.squashfs.ingest import SquashFsResult, ingest_squashfs
from publisher.squashfs.source import RandomAccess, Section


@dataclass(frozen=True, slots=True)
class SifResult:
    """A SIF file whose root file system is stored."""

    architecture: str
    """In Go's words; empty where the file does not say."""
    root: SquashFsResult


def find_root(source: RandomAccess) -> tuple[str, Partition]:
    """The architecture and the root's partition of a SIF file. Raises BrokenLayer, InvalidInput with the reason."""
    header = parse_header(source.read_at(0, HEADER_SIZE))
    size = header.descriptors * DESCRIPTOR_SIZE
    descriptors = source.read_at(header.descriptors_offset, size)
    if len(descriptors) < size:
        raise BrokenLayer("the SIF image is cut within its descriptors")
    root = root_partition(parse_descriptors(descriptors))
    return root.architecture or header.architecture, root


def unpack_sif(
    source: RandomAccess, pipeline: Pipeline, limits: LayerLimits, policy: LayerPolicy, progress: Callable[[], None]
) -> SifResult:
    """Unpack the root file system into the pipeline's store.

    policy: what is kept of it. progress: called often; may raise to stop the work.

    Raises InvalidInput for images of kinds that are not unpacked, such as encrypted ones; UnsafeLayer and BrokenLayer for content
    that is refused; StorageFull and Unavailable where the store fails.
    """
    architecture, root = find_root(source)
    section = Section(source, root.offset, root.size)
    return SifResult(architecture, ingest_squashfs(section, pipeline, limits, policy, progress))
