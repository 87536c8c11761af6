"""One blob on its way in: a file that grows, a lock that says who fills it, and the hash of what it holds.

Several processes may have the same part open. The one that holds the lock appends; the others read it as it grows, and whoever
gets the lock next (because the holder finished or died) looks whether the file is still the current one and goes on from its end.
Reading from `fileno()` with an explicit offset never moves a shared position, so any number of readers can share
one descriptor, and a descriptor stays readable after the file was committed or discarded.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING

from mirror.errors import MirrorError, StorageFull, Unavailable
from mirror.oci.digest import Digest

if TYPE_CHECKING:
    from hashlib import _Hash

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_HASH_PIECE = 1 << 20


def storage_error(error: OSError, doing: str) -> MirrorError:
    """Our own exception for a failed file operation; `doing` completes "the store cannot"."""
    if error.errno in _FULL:
        return StorageFull(f"the store cannot {doing}: the disk or quota is full; free space, or move the data directory")
    return Unavailable(f"the store cannot {doing}: {error.strerror or error}")


class PartFile:
    """An open part file. Not safe for two threads at once, but for reading; blocking calls."""

    def __init__(self, digest: Digest, path: Path) -> None:
        """Open the file, making it if there is none. Raises StorageFull, Unavailable."""
        self.digest = digest
        self.path = path
        self.locked = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise storage_error(error, f"open {path}") from error
        self._hasher = digest.hasher()
        self._hashed = 0
        self._size = os.fstat(self._descriptor).st_size

    @property
    def size(self) -> int:
        """Bytes in the file, as far as this object knows: as it was opened, refreshed or appended to."""
        return self._size

    @property
    def is_hashed(self) -> bool:
        """Whether the hash covers everything: not so for what an earlier process left."""
        return self._hashed == self._size

    def try_lock(self) -> bool:
        """Become the one that fills the file, if nobody else is; `size` is exact from then on. Raises Unavailable."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            # Not somebody else's lock, which would be waited for, but a file system that has none.
            raise storage_error(error, f"lock {self.path}") from error
        self.locked = True
        self.refresh()
        return True

    def unlock(self) -> None:
        """Let another process go on; the descriptor stays open for readers."""
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        self.locked = False

    def refresh(self) -> int:
        """Look how much a filler in another process has written."""
        self._size = os.fstat(self._descriptor).st_size
        return self._size

    def is_current(self) -> bool:
        """Whether the path still leads to this file: false once it was committed or discarded."""
        try:
            named = self.path.stat()
        except FileNotFoundError:
            return False
        own = os.fstat(self._descriptor)
        return (named.st_dev, named.st_ino) == (own.st_dev, own.st_ino)

    def catch_up(self, limit: int) -> bool:
        """Hash at most `limit` bytes of what is not hashed yet; whether all is hashed now. Raises Unavailable."""
        end = min(self._size, self._hashed + limit)
        piece = bytearray(min(_HASH_PIECE, max(end - self._hashed, 0)))
        view = memoryview(piece)
        while self._hashed < end:
            try:
                count = os.preadv(self._descriptor, [view[: end - self._hashed]], self._hashed)
            except OSError as error:
                raise storage_error(error, f"read {self.path}") from error
            if not count:
                raise Unavailable(f"the store cannot read {self.path}: it became shorter")
            self._hasher.update(view[:count])
            self._hashed += count
        return self.is_hashed

    def append(self, data: bytes | memoryview) -> None:
        """Write to the end, and hash. Raises StorageFull, Unavailable; `size` and hash agree even then."""
        written = 0
        try:
            with memoryview(data) as view:
                while written < len(view):
                    written += os.pwrite(self._descriptor, view[written:], self._size + written)
        except OSError as error:
            raise storage_error(error, f"write {self.path}") from error
        self._hasher.update(data)
        self._size += written
        self._hashed += written

    def hasher(self) -> _Hash:
        """A copy of the hash of everything in the file so far, to go on with elsewhere."""
        return self._hasher.copy()

    def is_right(self) -> bool:
        """Whether the content has the digest that it is filed under."""
        return self.is_hashed and self._hasher.hexdigest() == self.digest.hex

    def fileno(self) -> int:
        """The descriptor, for sendfile with explicit offsets; never seek it."""
        return self._descriptor

    def sync(self) -> None:
        """Return once the content survives a power failure. Raises StorageFull, Unavailable."""
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise storage_error(error, f"write {self.path}") from error

    def discard(self) -> None:
        """Take the file away, if it is still the current one; readers that have it open are not disturbed."""
        if self.locked and self.is_current():
            self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the descriptor, and with it give up the lock."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            self.locked = False
