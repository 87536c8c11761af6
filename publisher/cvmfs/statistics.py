"""The counters of a catalog. Repository format, section 4.5.

Twelve numbers about the catalog's own rows, and the same twelve summed over everything below its nested catalogs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from publisher.errors import RepositoryDamaged

_SELF, _SUBTREE = "self_", "subtree_"


@dataclass(slots=True)
class Counters:
    """One set of counters. Field names are the format's; sizes in bytes of content."""

    regular: int = 0
    symlink: int = 0
    special: int = 0
    dir: int = 0
    nested: int = 0
    chunked: int = 0
    chunks: int = 0
    file_size: int = 0
    chunked_size: int = 0
    xattr: int = 0
    external: int = 0
    external_file_size: int = 0

    def __add__(self, other: Counters) -> Counters:
        return Counters(*(mine + theirs for mine, theirs in zip(self.values(), other.values(), strict=True)))

    def __sub__(self, other: Counters) -> Counters:
        return Counters(*(mine - theirs for mine, theirs in zip(self.values(), other.values(), strict=True)))

    def values(self) -> tuple[int, ...]:
        """The numbers in the order of the fields."""
        return tuple(getattr(self, name) for name in COUNTER_NAMES)

    @property
    def entries(self) -> int:
        """Rows that the counters stand for."""
        return self.regular + self.symlink + self.special + self.dir


COUNTER_NAMES = tuple(field.name for field in dataclasses.fields(Counters))


@dataclass(slots=True)
class Statistics:
    """Both sets of a catalog."""

    own: Counters
    subtree: Counters

    @property
    def total(self) -> Counters:
        """What the catalog adds to its parent's subtree counters."""
        return self.own + self.subtree

    @classmethod
    def parse(cls, rows: Mapping[str, int]) -> Statistics:
        """Read the rows of the statistics table. Raises RepositoryDamaged if a counter is missing."""
        try:
            return cls(
                Counters(*(rows[_SELF + name] for name in COUNTER_NAMES)),
                Counters(*(rows[_SUBTREE + name] for name in COUNTER_NAMES)),
            )
        except KeyError as error:
            raise RepositoryDamaged(f"the catalog lacks the counter {error}; clients cannot load it") from error

    def rows(self) -> Iterable[tuple[str, int]]:
        """The rows of the statistics table."""
        for prefix, counters in ((_SELF, self.own), (_SUBTREE, self.subtree)):
            for name, value in zip(COUNTER_NAMES, counters.values(), strict=True):
                yield prefix + name, value
