"""What a flat root lets its readers do, in other ways than the image says. Layout reference, section 4.2, row "permissions"."""

from __future__ import annotations

import stat
from dataclasses import dataclass, replace

from publisher.cvmfs.entry import Directory, Entry

SETUID = stat.S_ISUID | stat.S_ISGID


@dataclass(frozen=True, slots=True)
class PermissionPolicy:
    """Bits that are added, and those that are taken away; the sticky bit never is."""

    owner_access: bool = True
    """Directories get u+rwx, files u+rw: else an image's owner may be locked out of parts of it."""
    world_readable: bool = False
    """Like chmod a+rX: directories and whatever somebody may execute get a+rx, other files a+r."""
    setuid: bool = True
    """Whether files keep set-user-ID and set-group-ID."""


def apply_permissions(flat: Directory, policy: PermissionPolicy) -> None:
    """Change the tree in place; an entry with several names stays one entry."""
    changed: dict[int, Entry] = {}
    directories = (0o700 if policy.owner_access else 0) | (0o555 if policy.world_readable else 0)
    files = (0o600 if policy.owner_access else 0) | (0o444 if policy.world_readable else 0)
    taken = 0 if policy.setuid else SETUID
    executables = files | (0o111 if policy.world_readable else 0)

    def apply(directory: Directory) -> None:
        if directory.entry.mode & directories != directories:
            directory.entry = replace(directory.entry, mode=directory.entry.mode | directories)
        for name, child in directory.children.items():
            if isinstance(child, Directory):
                apply(child)
                continue
            wanted = executables if child.mode & 0o111 else files
            if (child.mode & wanted != wanted or child.mode & taken) and stat.S_ISREG(child.mode):
                new = changed.get(id(child))
                if new is None:
                    new = changed[id(child)] = replace(child, mode=(child.mode | wanted) & ~taken)
                directory.children[name] = new

    apply(flat)
