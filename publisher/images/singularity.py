"""What Apptainer and Singularity look for in a root file system, put into a flat tree. Layout reference, section 4.3.

Nothing here follows a symbolic link of the image: a link where one of these files belongs is replaced, one where a directory is
only wanted stays as it is.
"""

from __future__ import annotations

import json
import stat
from importlib import resources

from mirror.oci.manifest import ImageConfig
from publisher.cvmfs.entry import Directory, Entry
from publisher.images.shell import environment_script, run_script
from publisher.objects.pipeline import Pipeline, Ticket

_SCRIPTS = {
    b"actions/exec": "action-exec",
    b"actions/run": "action-run",
    b"actions/shell": "action-shell",
    b"actions/start": "action-start",
    b"actions/test": "action-test",
    b"env/01-base.sh": "env-01-base.sh",
    b"env/90-environment.sh": "env-90-environment.sh",
    b"env/95-apps.sh": "env-95-apps.sh",
    b"env/99-base.sh": "env-99-base.sh",
    b"env/99-runtimevars.sh": "env-99-runtimevars.sh",
    b"startscript": "startscript",
}
_MOUNT_POINTS = {
    b"dev": 0o755,
    b"proc": 0o755,
    b"root": 0o755,
    b"var/tmp": 0o1777,
    b"tmp": 0o1777,
    b"etc": 0o755,
    b"sys": 0o755,
    b"home": 0o755,
    b"srv": 0o755,
    b"cvmfs": 0o755,
}
"""What the runtime mounts over by default, and where batch systems mount a job's directory and this very file system.

A read-only root gets no mount where nothing is, unless the site's kernel and settings let the runtime lay an overlay over it.
"""
_BOUND_FILES = (b"hosts", b"resolv.conf")
_UTC_BLOCK = b"TZif2" + bytes(15) + bytes(16) + b"\0\0\0\1" + b"\0\0\0\4" + bytes(6) + b"UTC\0"
_UTC = _UTC_BLOCK + _UTC_BLOCK + b"\nUTC0\n"
"""A time zone file (RFC 9636) that means what its absence means: the runtime mounts the host's over it."""
_LINKS = {
    b"singularity": b".singularity.d/runscript",
    b".run": b".singularity.d/actions/run",
    b".exec": b".singularity.d/actions/exec",
    b".test": b".singularity.d/actions/test",
    b".shell": b".singularity.d/actions/shell",
    b"environment": b".singularity.d/env/90-environment.sh",
}
_OWN = b".singularity.d"


def with_singularity_files(flat: Directory, config: ImageConfig, pipeline: Pipeline) -> None:
    """Add `.singularity.d`, its links, and what the runtime mounts over, to a flat tree that belongs to the caller.

    Raises InvalidInput for a config whose texts no shell can hold, StorageFull and Unavailable where the store fails.
    """
    contents = {path: _packaged(name) for path, name in _SCRIPTS.items()}
    contents[b"env/10-docker2singularity.sh"] = environment_script(config)
    contents[b"runscript"] = run_script(config)
    labels = json.dumps(config.labels, indent=2, sort_keys=True).encode("ascii") + b"\n"

    with pipeline.intake() as intake:
        scripts = {path: intake.add_bytes(content) for path, content in contents.items()}
        labels_ticket = intake.add_bytes(labels)

    own = _own_directory(flat, _OWN)
    for name in (b"actions", b"env", b"libs"):
        _own_directory(own, name)
    for path, ticket in scripts.items():
        directory, _, name = path.rpartition(b"/")
        parent = _own_directory(own, directory) if directory else own
        parent.children[name] = _file(ticket, 0o755)
    own.children[b"labels.json"] = _file(labels_ticket, 0o644)

    _add_mount_points(flat, pipeline, emptied=True)
    for name, target in _LINKS.items():
        flat.children.setdefault(name, Entry(mode=stat.S_IFLNK | 0o777, symlink=target))


def with_mount_points(flat: Directory, pipeline: Pipeline) -> None:
    """Add what the runtime mounts over where it lacks, to the tree of a SIF image, which has all else of its own.

    Raises StorageFull and Unavailable where the store fails.
    """
    _add_mount_points(flat, pipeline, emptied=False)


def _add_mount_points(flat: Directory, pipeline: Pipeline, *, emptied: bool) -> None:
    """emptied: whether files to mount over lose what the image has in them."""
    for path, mode in _MOUNT_POINTS.items():
        _mount_point(flat, path, mode)
    etc = flat.children[b"etc"]
    if not isinstance(etc, Directory):
        return
    with pipeline.intake() as intake:
        empty, utc = intake.add_bytes(b""), intake.add_bytes(_UTC)
    for name in _BOUND_FILES:
        if emptied or name not in etc.children:
            etc.children[name] = _file(empty, 0o644)
    etc.children.setdefault(b"localtime", _file(utc, 0o644))


def _packaged(name: str) -> bytes:
    return resources.files("publisher.images").joinpath("scripts", name).read_bytes()


def _file(ticket: Ticket, permissions: int) -> Entry:
    return Entry(mode=stat.S_IFREG | permissions, size=ticket.size, content=ticket.content, chunks=ticket.chunks)


def _own_directory(parent: Directory, name: bytes) -> Directory:
    """The directory of this name; whatever else has the name makes place for it."""
    child = parent.children.get(name)
    if not isinstance(child, Directory):
        child = parent.children[name] = Directory(Entry(mode=stat.S_IFDIR | 0o755))
    return child


def _mount_point(flat: Directory, path: bytes, mode: int) -> None:
    """Make the directory, unless it, or something on the way to it, is there as something else."""
    *parents, name = path.split(b"/")
    directory = flat
    for parent in parents:
        child = directory.children.setdefault(parent, Directory(Entry(mode=stat.S_IFDIR | 0o755)))
        if not isinstance(child, Directory):
            return
        directory = child
    directory.children.setdefault(name, Directory(Entry(mode=stat.S_IFDIR | mode)))
