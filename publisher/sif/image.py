"""A SIF file in the mirror's store, as the root file system of an image. Blocking: to be run in a thread of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import structlog

from mirror.errors import Unavailable
from publisher.cvmfs.entry import Directory
from publisher.images.singularity import with_mount_points
from publisher.layers.limits import LayerLimits
from publisher.layers.permissions import PermissionPolicy, apply_permissions
from publisher.layers.policy import LayerPolicy
from publisher.objects.pipeline import Pipeline
from publisher.sif.facts import SifFacts
from publisher.sif.unpack import unpack_sif
from publisher.squashfs.source import FileBytes

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class SifRules:
    """What an image may be, what is kept of it, and what its root lets its readers do."""

    limits: LayerLimits
    policy: LayerPolicy
    permissions: PermissionPolicy


def flat_root(file: Path, pipeline: Pipeline, rules: SifRules, is_stopped: Callable[[], bool]) -> tuple[Directory, SifFacts]:
    """Unpack the file; the tree is ready to be published, with the image's own `.singularity.d`.

    Raises what `unpack_sif` raises, and Unavailable when stopped, or if the file is not there any more.
    """

    def progress() -> None:
        if is_stopped():
            raise Unavailable("the publisher is stopping; the image is unpacked when it runs again")

    started = monotonic()
    try:
        opened = file.open("rb", buffering=0)
    except OSError as error:
        raise Unavailable(f"the SIF image cannot be read: {error}") from error
    with opened:
        result = unpack_sif(FileBytes(opened.fileno()), pipeline, rules.limits, rules.policy, progress)
    root = result.root
    log.info(
        "sif_ingested",
        digest=file.name,
        architecture=result.architecture,
        entries=root.entries,
        size=root.size,
        seconds=round(monotonic() - started, 3),
        **root.notes.as_dict(),
    )
    apply_permissions(root.tree, rules.permissions)
    with_mount_points(root.tree, pipeline)
    return root.tree, SifFacts(result.architecture, root.size, root.entries, root.notes)
