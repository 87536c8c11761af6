"""The history: named snapshots of a repository. Repository format, section 5."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mirror.errors import InvalidInput
from publisher.cvmfs import schema
from publisher.cvmfs.hash import ContentHash
from publisher.errors import RepositoryDamaged

TRUNK = "trunk"
TRUNK_PREVIOUS = "trunk-previous"

_NAME = re.compile(r"[A-Za-z0-9_./:-]{1,255}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Tag:
    """A named snapshot: root catalog with its revision, time of publication (Unix seconds) and uncompressed size in bytes."""

    name: str
    root: ContentHash
    revision: int
    timestamp: int
    size: int
    description: str = ""
    branch: str = ""
    """Empty for the trunk."""


def check_tag_name(name: str) -> None:
    """Refuse what cannot name a snapshot. Raises InvalidInput."""
    if _NAME.fullmatch(name) is None:
        raise InvalidInput(f"'{name[:80]}' cannot name a snapshot: letters, digits and - _ . / : only")


class History:
    """A history database in memory."""

    def __init__(self, data: bytes, fqrn: str) -> None:
        """data: the uncompressed database. Raises RepositoryDamaged if it is another repository's or cannot be read."""
        self._connection = schema.load_of(fqrn, data, "the history")

    @classmethod
    def empty(cls, fqrn: str) -> History:
        """A history without named snapshots; it must not be published before it has one."""
        connection = schema.create(schema.HISTORY)
        values = [("schema", "1.0"), ("schema_revision", "3"), ("fqrn", fqrn)]
        connection.executemany("INSERT INTO properties VALUES (?, ?)", values)
        return cls(schema.dump(connection), fqrn)

    def tags(self) -> dict[str, Tag]:
        """All named snapshots by name. Raises RepositoryDamaged."""
        query = "SELECT name, hash, revision, timestamp, size, description, branch FROM tags ORDER BY revision, name"
        result = {}
        with schema.reading("the history"):
            for name, text, revision, timestamp, size, description, branch in self._connection.execute(query):
                try:
                    root = ContentHash.parse(text.decode("ascii", "replace"))
                except InvalidInput as error:
                    raise RepositoryDamaged(f"the history has a broken hash: {error}") from error
                tag = Tag(name.decode(), root, revision, timestamp, size, (description or b"").decode(), (branch or b"").decode())
                result[tag.name] = tag
        return result

    def branches(self) -> dict[str, tuple[str | None, int]]:
        """Parent and first revision of each branch by name; the trunk's name is empty. Raises RepositoryDamaged."""
        with schema.reading("the history"):
            rows = self._connection.execute("SELECT branch, parent, initial_revision FROM branches").fetchall()
            return {branch.decode(): (None if parent is None else parent.decode(), revision) for branch, parent, revision in rows}

    def put(self, tag: Tag) -> None:
        """Add a named snapshot, or point its name to another revision. Raises InvalidInput for an impossible name."""
        check_tag_name(tag.name)
        values = (tag.name, str(tag.root), tag.revision, tag.timestamp, tag.description, tag.size, tag.branch)
        self._connection.execute("INSERT OR REPLACE INTO tags VALUES (?, ?, ?, ?, 0, ?, ?, ?)", values)

    def remove(self, name: str) -> bool:
        """Forget a named snapshot; whether it was there."""
        return self._connection.execute("DELETE FROM tags WHERE name = ?", (name,)).rowcount > 0

    def serialise(self, previous: ContentHash | None) -> bytes:
        """The database, to be compressed and stored; previous: the history object that it replaces."""
        if previous is not None:
            self._connection.execute("INSERT OR REPLACE INTO properties VALUES ('previous_revision', ?)", (str(previous),))
        return schema.dump(self._connection)
