"""Content addressed storage of blobs, manifests and configs (see `mirror.store.layout` for the paths).

What is under `blobs/` is complete and has the digest of its name: it gets there by a rename, after it was verified and synced.
All calls are blocking and short, but for those of `PartFile` and `commit`, which belong into a thread. Any number of processes
may use one store.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mirror.errors import IntegrityError, NotFound, StorageFull
from mirror.oci.digest import ALGORITHMS, Digest, is_digest
from mirror.store.eviction import StoredBlob
from mirror.store.layout import StoreLayout
from mirror.store.part import PartFile, storage_error

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_USE_STEP = 300.0
"""Seconds after which another use of a blob is noted; eviction spares for longer than that."""


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep removed: files, and bytes in them."""

    files: int
    size: int


class BlobStore:
    """Blobs below one data directory."""

    def __init__(self, root: Path, min_free_bytes: int) -> None:
        """min_free_bytes: space on the file system that no blob may take; content goes by unkept before it is touched.

        Raises StorageFull, Unavailable if the directories cannot be made.
        """
        self.layout = StoreLayout(root)
        self._min_free = min_free_bytes
        self._put_numbers = itertools.count()
        try:
            for directory in (self.layout.blobs, self.layout.puts):
                directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(error, f"make its directories below {root}") from error

    def size(self, digest: Digest) -> int | None:
        """Bytes of the committed blob; None if it is not there. Raises Unavailable."""
        try:
            found = self.path(digest).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise storage_error(error, f"look for {digest}") from error
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def path(self, digest: Digest) -> Path:
        """Where the blob is, or would be."""
        return self.layout.blob(digest)

    def open(self, digest: Digest) -> BinaryIO:
        """The blob, open for reading, unbuffered; that counts as a use of it. Raises NotFound, Unavailable."""
        try:
            file = self.path(digest).open("rb", buffering=0)
        except FileNotFoundError as error:
            raise NotFound(f"the store has no {digest}") from error
        except OSError as error:
            raise storage_error(error, f"open {digest}") from error
        _note_use(file.fileno())
        return file

    def read(self, digest: Digest, limit: int) -> bytes:
        """The whole of a small blob, of at most `limit` bytes. Raises NotFound, IntegrityError if it is larger, Unavailable."""
        with self.open(digest) as file:
            try:
                size = os.fstat(file.fileno()).st_size
                if size > limit:
                    raise IntegrityError(f"{digest} has {size} bytes, more than the {limit} expected of it")
                return file.read()
            except OSError as error:
                raise storage_error(error, f"read {digest}") from error

    def put(self, digest: Digest, data: bytes) -> None:
        """Store small content durably, unless it is there.

        Raises IntegrityError if the digest is not the content's own, StorageFull, Unavailable.
        """
        if Digest.of(data, digest.algorithm) != digest:
            raise IntegrityError(f"{len(data)} bytes offered as {digest} have another digest")
        if self.size(digest) == len(data):
            return
        temporary = self.layout.put(digest, os.getpid(), next(self._put_numbers))
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            self._rename(temporary, digest)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise storage_error(error, f"write {digest}") from error

    def check_readable(self) -> None:
        """Raise Unavailable if what is stored cannot be read: its directory is gone, say, with a file system."""
        try:
            with os.scandir(self.layout.blobs) as entries:
                next(entries, None)
        except OSError as error:
            raise storage_error(error, f"read {self.layout.blobs}") from error

    def check_space(self, size: int) -> None:
        """Raise StorageFull if `size` more bytes would leave less free space than must remain."""
        free = self.free_bytes()
        if free - size < self._min_free:
            lacking = f"too little for {_words(size)} more and" if size else "less than"
            raise StorageFull(
                f"the disk of the cache has {_words(free)} free, {lacking} the {_words(self._min_free)} that must remain "
                "(store.min_free): free space, or lower this setting"
            )

    def shortage(self, size: int) -> int:
        """Bytes that must go before `size` more can be stored; 0 or less if there is room. Raises Unavailable."""
        return self._min_free + size - self.free_bytes()

    def free_bytes(self) -> int:
        """Space that is left for this user. Raises Unavailable."""
        try:
            figures = os.statvfs(self.layout.root)
        except OSError as error:
            raise storage_error(error, f"tell the free space of {self.layout.root}") from error
        return figures.f_bavail * figures.f_frsize

    def part(self, digest: Digest) -> PartFile:
        """The part file of a blob, with what earlier processes left in it; not locked yet. Raises StorageFull, Unavailable."""
        return PartFile(digest, self.layout.part(digest))

    def commit(self, part: PartFile) -> Path:
        """Make a locked, complete part a blob, durably.

        Raises IntegrityError if its digest is wrong, StorageFull, Unavailable.
        """
        if not part.locked or not part.is_right():
            raise IntegrityError(f"{part.size} bytes fetched as {part.digest} have another digest")
        part.sync()
        try:
            self._rename(part.path, part.digest)
        except OSError as error:
            raise storage_error(error, f"commit {part.digest}") from error
        return self.path(part.digest)

    def delete(self, digest: Digest) -> None:
        """Remove a blob; no error if it is gone already. Who has it open can still read it. Raises Unavailable."""
        try:
            self.path(digest).unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(error, f"delete {digest}") from error

    def evict(self, blob: StoredBlob) -> bool:
        """Remove a blob unless it was used meanwhile; whether it was removed. Raises Unavailable."""
        path = self.path(blob.digest)
        try:
            found = path.stat()
            if max(found.st_atime, found.st_mtime) > blob.last_use:
                return False
            path.unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise storage_error(error, f"delete {blob.digest}") from error
        return True

    def sweep(self, unused_seconds: float, now: float | None = None) -> Swept:
        """Remove parts, and small content never finished, that nobody fills and that did not grow for so long.

        now: Unix seconds, the clock's if None. Raises Unavailable.
        """
        limit = (time.time() if now is None else now) - unused_seconds
        files = size = 0
        try:
            for path in self._parts():
                removed = self._sweep_file(path, limit)
                if removed is not None:
                    files, size = files + 1, size + removed
        except OSError as error:
            raise storage_error(error, f"sweep {self.layout.parts}") from error
        return Swept(files, size)

    def _parts(self) -> list[Path]:
        """All files of ours below `parts`; what else somebody put there is left alone."""
        found = list(self.layout.puts.iterdir())
        for algorithm in ALGORITHMS:
            with contextlib.suppress(FileNotFoundError):
                found += (path for path in (self.layout.parts / algorithm).iterdir() if is_digest(algorithm, path.name))
        return found

    def _sweep_file(self, path: Path, limit: float) -> int | None:
        try:
            found = path.stat()
        except FileNotFoundError:
            return None
        if found.st_mtime > limit:
            return None
        if path.parent == self.layout.puts:
            path.unlink(missing_ok=True)
            return found.st_size
        part = PartFile(Digest(path.parent.name, path.name), path)
        try:
            if not part.try_lock() or not part.is_current():
                return None
            part.discard()
            return found.st_size
        finally:
            part.close()

    def _rename(self, source: Path, digest: Digest) -> None:
        target = self.path(digest)
        if not target.parent.is_dir():
            target.parent.mkdir(parents=True, exist_ok=True)
            _sync_directory(target.parent.parent)
            _sync_directory(self.layout.blobs)
        source.rename(target)
        _sync_directory(target.parent)


def _words(size: int) -> str:
    """A number of bytes with the unit that people would choose."""
    exponent = min(max(size.bit_length() - 1, 0) // 10, len(_UNITS) - 1)
    return f"{size / (1 << 10 * exponent):.4g} {_UNITS[exponent]}"


def _note_use(descriptor: int) -> None:
    """Have the time of access tell, whatever the file system is mounted with; who may not write it reads nevertheless."""
    now, found = time.time(), os.fstat(descriptor)
    if now - max(found.st_atime, found.st_mtime) >= _USE_STEP:
        with contextlib.suppress(OSError):
            os.utime(descriptor, ns=(int(now * 1e9), found.st_mtime_ns))


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
