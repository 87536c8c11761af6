"""What a publisher is called in the state database."""

from __future__ import annotations

import socket

from mirror.data import DataDirectory


def owner_name(data: DataDirectory) -> str:
    """The name of the publisher of a data directory; there is one at a time."""
    return f"{socket.gethostname()}:{data.root}"
