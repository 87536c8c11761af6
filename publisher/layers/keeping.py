"""What is kept of files' modes and extended attributes, and the count of what is not. Design, section 8, rule 4."""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Mapping

from mirror.jobs.notes import Notes
from publisher.cvmfs.xattr import Xattrs, representable
from publisher.layers.permissions import SETUID
from publisher.layers.policy import LayerPolicy

_MOST_XATTRS = 252
"""A catalog holds 255; two are left for the marks of an opaque directory, one for capabilities."""
_CAPABILITY = b"security.capability"
_OWNER_ACCESS = {stat.S_IFREG: 0o600, stat.S_IFDIR: 0o700}
"""What `publisher.layers.permissions` adds in the root file system."""
_OVERLAY_XATTRS = (b"user.overlay.", b"user.fuseoverlayfs.")


class Keeping:
    """The rules for one layer, or for one file system."""

    def __init__(self, policy: LayerPolicy) -> None:
        self._policy = policy
        self._counts: Counter[str] = Counter()

    def drop_device(self) -> None:
        """Count a device node, or a socket, that is left out."""
        self._counts["devices_dropped"] += 1

    def drop_name(self) -> None:
        """Count something that is left out for its name."""
        self._counts["names_dropped"] += 1

    def mode(self, mode: int) -> int:
        """A full st_mode as it is to be."""
        kind = stat.S_IFMT(mode)
        if mode & SETUID and kind == stat.S_IFREG:
            self._counts["setuid_kept" if self._policy.setuid else "setuid_dropped"] += 1
            if not self._policy.setuid:
                mode &= ~SETUID
        if ~mode & _OWNER_ACCESS.get(kind, 0):
            self._counts["access_added"] += 1
        return mode

    def xattrs(self, xattrs: Mapping[bytes, bytes]) -> Xattrs:
        """What stays of a file's attributes, by full name."""
        given = dict(xattrs)
        capability = given.pop(_CAPABILITY, None)
        user = [pair for pair in given.items() if pair[0].startswith(b"user.")]
        kept = representable([pair for pair in user if not pair[0].startswith(_OVERLAY_XATTRS)])[:_MOST_XATTRS]
        if len(kept) < len(given):
            self._counts["xattrs_dropped"] += len(given) - len(kept)
        if capability is None:
            return kept
        stays = representable([(_CAPABILITY, capability)]) if self._policy.capabilities else ()
        self._counts["capabilities_kept" if stays else "capabilities_dropped"] += 1
        return tuple(sorted((*kept, *stays)))

    def notes(self) -> Notes:
        """What was left out or changed so far."""
        return Notes(**self._counts)
