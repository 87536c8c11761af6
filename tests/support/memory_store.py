"""An object store in memory, and a way to load a repository directory into it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from mirror.errors import NotFound, Unavailable
from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.objects.names import named_file
from publisher.objects.store import StoredObject

_Key = tuple[ContentHash, ObjectKind]


class MemoryStore:
    """Counts what it is asked for, so that tests can speak about cost. clock: gives objects their times, in Unix seconds."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self.contents: dict[_Key, bytes] = {}
        self.modified: dict[_Key, float] = {}
        self.files: dict[str, bytes] = {}
        self.gets: list[_Key] = []
        self.puts: list[_Key] = []
        self.flushed: set[_Key] = set()

    def get(self, content: ContentHash, kind: ObjectKind) -> bytes:
        self.gets.append((content, kind))
        try:
            return self.contents[content, kind]
        except KeyError:
            raise NotFound(f"no object {content.object_path(kind)}") from None

    def pieces(self, content: ContentHash, kind: ObjectKind) -> Iterator[bytes]:
        data = self.get(content, kind)
        for start in range(0, len(data), 1 << 20):
            yield data[start : start + (1 << 20)]

    def read_file(self, name: str) -> bytes:
        try:
            return self.files[named_file(name)]
        except KeyError:
            raise NotFound(f"no file {name}") from None

    def put(self, content: ContentHash, kind: ObjectKind, stored: bytes | memoryview) -> bool:
        self.modified[content, kind] = self.clock()
        if (content, kind) in self.contents:
            return False
        self.contents[content, kind] = bytes(stored)
        self.puts.append((content, kind))
        return True

    def put_file(self, content: ContentHash, kind: ObjectKind, stored: Path) -> bool:
        try:
            data = stored.read_bytes()
        except OSError as error:
            raise Unavailable(f"{stored} cannot be read") from error
        is_new = self.put(content, kind, data)
        stored.unlink()
        return is_new

    def renew(self, content: ContentHash, kind: ObjectKind, size: int) -> bool:
        if len(self.contents.get((content, kind), b"")) != size or (content, kind) not in self.contents:
            return False
        self.modified[content, kind] = self.clock()
        return True

    def contains(self, content: ContentHash, kind: ObjectKind) -> bool:
        return (content, kind) in self.contents

    def delete(self, content: ContentHash, kind: ObjectKind) -> None:
        self.contents.pop((content, kind), None)

    def expire(self, content: ContentHash, kind: ObjectKind, before: float) -> bool:
        key = (content, kind)
        if key not in self.contents or self.modified.get(key, 0.0) >= before:
            return False
        del self.contents[key]
        return True

    def objects(self) -> Iterator[StoredObject]:
        for (content, kind), stored in list(self.contents.items()):
            yield StoredObject(content, kind, len(stored), self.modified.get((content, kind), 0.0))

    def write_file(self, name: str, data: bytes) -> None:
        self.files[named_file(name)] = data

    def delete_file(self, name: str) -> None:
        self.files.pop(named_file(name), None)

    def flush(self) -> None:
        self.flushed = set(self.contents)


def load_directory(root: Path) -> MemoryStore:
    """A copy of a repository's storage directory."""
    store = MemoryStore()
    for path in root.rglob("*"):
        if not path.is_file():
            continue
        relative = path.relative_to(root)
        if relative.parts[0] != "data":
            store.files[str(relative)] = path.read_bytes()
            continue
        name = relative.parts[1] + relative.parts[2]
        digits, suffix = (name[:-1], name[-1]) if name[-1].isupper() else (name, "")
        store.contents[ContentHash.parse(digits), ObjectKind(suffix)] = path.read_bytes()
    return store
