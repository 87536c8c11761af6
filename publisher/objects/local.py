"""A repository's storage as a local directory that any web server can serve. Repository format, section 2.

    <root>/.cvmfspublished, .cvmfswhitelist, .cvmfsreflog ...   the named files
    <root>/data/00 .. data/ff/<38 hex digits><marker><letter>   objects
    <root>/data/txn/                                            files on their way in, on the same file system

A file is written in data/txn and renamed into its place, so a reader sees it complete or not at all. Objects are not synced one
by one: `flush` syncs the file system once, before the manifest that names them is written.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import itertools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType

from mirror.errors import NotFound, StorageFull, Unavailable
from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.objects.names import named_file, parse_object_name
from publisher.objects.store import REFRESH_SECONDS, StoredObject

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_SERVABLE_FILE = 0o644
_SERVABLE_DIRECTORY = 0o755
_COPIED_AT_ONCE = 8 << 20
_READ_AT_ONCE = 1 << 20

_libc = ctypes.CDLL(None, use_errno=True)


class LocalObjectStore:
    """The object store protocol on a local directory; safe for several threads, and for readers in other processes."""

    def __init__(self, root: Path) -> None:
        """Open the storage below `root`; its directories are made where they lack. Raises StorageFull, Unavailable."""
        self._root = root
        self._data = f"{os.fspath(root)}/data"
        self._staging = f"{self._data}/txn"
        self._serial = itertools.count()
        with _Failures(f"the repository storage {root} cannot be set up"):
            for directory in (root, root / "data", root / "data/txn", *(root / f"data/{number:02x}" for number in range(256))):
                if not directory.is_dir():
                    directory.mkdir(parents=True, exist_ok=True)
                    directory.chmod(_SERVABLE_DIRECTORY)

    @property
    def root(self) -> Path:
        """The directory, which other processes may open as a store too."""
        return self._root

    def get(self, content: ContentHash, kind: ObjectKind) -> bytes:
        """The stored (compressed) bytes, not yet verified. Raises NotFound, Unavailable."""
        return self._read(content.object_path(kind))

    def pieces(self, content: ContentHash, kind: ObjectKind) -> Iterator[bytes]:
        """What `get` gives, a piece at a time. Raises NotFound, Unavailable."""
        path = Path(self._path(content, kind))
        with _Failures(f"{path} cannot be read"):
            try:
                file = path.open("rb", buffering=0)
            except FileNotFoundError as error:
                raise NotFound(f"{path} does not exist") from error
            with file:
                while piece := file.read(_READ_AT_ONCE):
                    yield piece

    def read_file(self, name: str) -> bytes:
        """A named file of the repository's root. Raises NotFound, Unavailable."""
        return self._read(named_file(name))

    def put(self, content: ContentHash, kind: ObjectKind, stored: bytes | memoryview) -> bool:
        """Store the object unless it is there; whether it was new.

        An object that is there with another size was torn by a power failure and is replaced. One that is there for long has its
        modification time renewed, so that nobody collects it as garbage. Raises StorageFull, Unavailable.
        """
        return self._store(content, kind, len(stored), partial(self._replace, data=stored, durable=False))

    def put_file(self, content: ContentHash, kind: ObjectKind, stored: Path) -> bool:
        """As `put`, of a file, which becomes the object if it is on the same file system. Raises StorageFull, Unavailable."""
        with _Failures(f"object {content} cannot be stored in {self._root}"):
            size = stored.stat().st_size
        is_new = self._store(content, kind, size, partial(self._take, stored=stored))
        with _Failures(f"{stored} cannot be removed"):
            stored.unlink(missing_ok=True)
        return is_new

    def renew(self, content: ContentHash, kind: ObjectKind, size: int) -> bool:
        """Make an object of this size as good as new; false if there is none. Raises Unavailable."""
        target = self._path(content, kind)
        with _Failures(f"object {content} cannot be renewed in {self._root}"):
            try:
                status = os.stat(target)  # noqa: PTH116 (as above)
            except FileNotFoundError:
                return False
            if status.st_size == size and status.st_mtime > time.time() - REFRESH_SECONDS:
                return True
            with self._expiry(fcntl.LOCK_SH):
                return self._refresh(target, size)

    def contains(self, content: ContentHash, kind: ObjectKind) -> bool:
        """Whether the object is there. Raises Unavailable."""
        with _Failures(f"object {content} cannot be looked up in {self._root}"):
            return os.path.exists(self._path(content, kind))  # noqa: PTH110 (as above)

    def delete(self, content: ContentHash, kind: ObjectKind) -> None:
        """Remove the object; no error if it is gone already. Raises Unavailable."""
        with _Failures(f"object {content} cannot be removed from {self._root}"), suppress(FileNotFoundError):
            Path(self._path(content, kind)).unlink()

    def expire(self, content: ContentHash, kind: ObjectKind, before: float) -> bool:
        """Remove the object if its modification time is before this; whether it was removed. Raises Unavailable."""
        target = self._path(content, kind)
        with _Failures(f"object {content} cannot be removed from {self._root}"), self._expiry(fcntl.LOCK_EX):
            try:
                if os.stat(target).st_mtime >= before:  # noqa: PTH116 (as above)
                    return False
                os.unlink(target)  # noqa: PTH108 (as above)
            except FileNotFoundError:
                return False
        return True

    def objects(self) -> Iterator[StoredObject]:
        """Every object, in no particular order; files that are none are passed over. Raises Unavailable."""
        for number in range(256):
            prefix = f"{number:02x}"
            with _Failures(f"the objects of {self._root} cannot be listed"), os.scandir(f"{self._data}/{prefix}") as files:
                for file in files:
                    parsed = parse_object_name(f"{prefix}/{file.name}")
                    if parsed is None:
                        continue
                    try:
                        status = file.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue  # deleted meanwhile
                    yield StoredObject(*parsed, status.st_size, status.st_mtime)

    def write_file(self, name: str, data: bytes) -> None:
        """Replace a named file atomically and durably. Raises StorageFull, Unavailable."""
        target = f"{self._root}/{named_file(name)}"
        with _Failures(f"{target} cannot be written"):
            self._replace(target, data, durable=True)
            descriptor = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def delete_file(self, name: str) -> None:
        """Remove a named file; no error if it is gone already. Raises Unavailable."""
        target = Path(self._root, named_file(name))
        with _Failures(f"{target} cannot be removed"):
            target.unlink(missing_ok=True)

    def flush(self) -> None:
        """Return once everything put so far survives a power failure (syncfs). Raises StorageFull, Unavailable."""
        with _Failures(f"{self._root} cannot be written to disk"):
            descriptor = os.open(self._data, os.O_RDONLY | os.O_DIRECTORY)
            try:
                if _libc.syncfs(descriptor) != 0:
                    number = ctypes.get_errno()
                    raise OSError(number, os.strerror(number))
            finally:
                os.close(descriptor)

    def remove_leftovers(self, older_than: float) -> int:
        """Delete what killed writers left in data/txn more than `older_than` seconds ago; how many files. Raises Unavailable."""
        removed = 0
        with _Failures(f"{self._staging} cannot be cleaned"), os.scandir(self._staging) as files:
            for file in files:
                with suppress(FileNotFoundError):
                    if file.stat(follow_symlinks=False).st_mtime < time.time() - older_than:
                        Path(file.path).unlink()
                        removed += 1
        return removed

    def _store(self, content: ContentHash, kind: ObjectKind, size: int, write: Callable[[str], None]) -> bool:
        """Let an object of this size be written to its place, unless it is there; whether it was new."""
        target = self._path(content, kind)
        with _Failures(f"object {content} cannot be stored in {self._root}"):
            try:
                status = os.stat(target)  # noqa: PTH116 (Path costs as much as the call, for every object)
            except FileNotFoundError:
                write(target)
                return True
            if status.st_size == size and status.st_mtime > time.time() - REFRESH_SECONDS:
                return False
            with self._expiry(fcntl.LOCK_SH):
                if self._refresh(target, size):
                    return False
                write(target)
        return True

    @contextmanager
    def _expiry(self, operation: int) -> Iterator[None]:
        """Keep `expire` out while an object that is there is put again; a lock on the directory, which ends with the process."""
        descriptor = os.open(self._data, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, operation)
            yield
        finally:
            os.close(descriptor)

    @staticmethod
    def _refresh(target: str, size: int) -> bool:
        """Renew the modification time of an object of the right size; whether there is one."""
        try:
            if os.stat(target).st_size != size:  # noqa: PTH116 (as above)
                return False
            os.utime(target)
        except FileNotFoundError:
            return False
        return True

    def _path(self, content: ContentHash, kind: ObjectKind) -> str:
        return f"{self._root}/{content.object_path(kind)}"

    def _read(self, name: str) -> bytes:
        path = f"{self._root}/{name}"
        with _Failures(f"{path} cannot be read"):
            try:
                return Path(path).read_bytes()
            except FileNotFoundError as error:
                raise NotFound(f"{path} does not exist") from error

    def _replace(self, target: str, data: bytes | memoryview, *, durable: bool) -> None:
        def write(descriptor: int) -> None:
            remaining = memoryview(data)
            while remaining:
                remaining = remaining[os.write(descriptor, remaining) :]
            if durable:
                os.fsync(descriptor)

        self._stage(target, write)

    def _take(self, target: str, stored: Path) -> None:
        """Make a file the one at `target`: by its name if both are on one file system, else by a copy."""
        stored.chmod(_SERVABLE_FILE)
        os.utime(stored)  # it is put now, whenever it was written
        try:
            stored.rename(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
        else:
            return
        with stored.open("rb", buffering=0) as file:

            def copy(descriptor: int) -> None:
                offset = 0
                while sent := os.sendfile(descriptor, file.fileno(), offset, _COPIED_AT_ONCE):
                    offset += sent

            self._stage(target, copy)

    def _stage(self, target: str, write: Callable[[int], None]) -> None:
        """Let a new file be written, which takes its place if that succeeds and is gone otherwise."""
        temporary = f"{self._staging}/{os.getpid()}.{next(self._serial)}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _SERVABLE_FILE)
        try:
            try:
                os.fchmod(descriptor, _SERVABLE_FILE)  # whatever the umask: a web server must read it
                write(descriptor)
            finally:
                os.close(descriptor)
            os.rename(temporary, target)  # noqa: PTH104 (as above)
        except BaseException:
            with suppress(OSError):
                Path(temporary).unlink()
            raise


class _Failures:
    """Turns what the operating system refuses into the errors of the protocol. Not a generator: each object passes here."""

    __slots__ = ("_what",)

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not isinstance(error, OSError):
            return
        if error.errno in _FULL:
            raise StorageFull(f"{self._what}: no space left on its file system; free some, or move the storage") from error
        raise Unavailable(f"{self._what}: {error.strerror or error}") from error
