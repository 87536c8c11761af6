"""What unpacking keeps of a layer where keeping it is a matter of opinion. Defaults: layout reference, sections 3 and 4.2."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LayerPolicy:
    """Device nodes are left out whatever it says, FIFOs and the sticky bit kept; an archive cannot hold sockets."""

    setuid: bool = True
    """Whether files keep set-user-ID and set-group-ID. Without effect where clients mount with nosuid, as for CVMFS."""
    capabilities: bool = False
    """Whether files keep `security.capability`, of all attributes that are not `user.*`."""
