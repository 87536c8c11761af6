"""Failures of the local file system on the way into a replica."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mirror.errors import StorageFull, Unavailable

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@contextmanager
def local_failures(place: Path) -> Iterator[None]:
    """Turn the operating system's exceptions into StorageFull or Unavailable that name the directory."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull(f"no space is left for files on their way in {place.parent}; free some") from error
        raise Unavailable(f"{place} cannot be used: {error.strerror or error}") from error
