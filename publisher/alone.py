"""The lock by which a publisher keeps others from its data directory."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from mirror.data import DataDirectory
from publisher.errors import Conflict


@contextmanager
def only_publisher(data: DataDirectory) -> Iterator[None]:
    """Keep other publishers from the data directory; it ends with the process. Raises Conflict if there is one."""
    path = data.run / "publisher.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(f"another publisher works on this data directory (it holds {path}); stop it first") from error
        yield
    finally:
        os.close(descriptor)
