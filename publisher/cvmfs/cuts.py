"""Where a tree is cut into nested catalogs, so that none holds more entries than it should. Repository format, section 4.3."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from publisher.cvmfs.catalog import Catalog
from publisher.cvmfs.entry import Directory
from publisher.cvmfs.path import PathKey, is_below, path_key
from publisher.cvmfs.row import Flags, Row

_WORTHLESS = 2
"""A directory with so few entries is no gain as a catalog: its mountpoint stays, and a marker file comes."""


@dataclass(frozen=True, slots=True)
class CutLimits:
    """Entries of a catalog.

    most: none passes this, unless a single directory lists more names. fewest: none is made smaller by choice; only where `most`
    cannot be kept otherwise.
    """

    most: int = 200_000
    fewest: int = 1_000


@dataclass(frozen=True, slots=True)
class GrowthLimits:
    """Of catalogs that change with many publications, each of which writes them anew: so they should be small.

    entries: a catalog with more is split, to half of it where its directories allow that. worth: directories with fewer entries
    stay. nested: catalogs that one may name; clients look through the names one by one.
    """

    entries: int = 5_000
    worth: int = 50
    nested: int = 500


_AGAIN = 1.25
"""What could not be split is looked at again when it has grown by this factor: looking costs as much as it has entries."""


@dataclass(slots=True, eq=False)
class _Place:
    path: bytes
    parent: _Place | None
    names: int
    """Names that the directory lists."""
    entries: int = 1
    """Entries that the catalog holding this directory has because of it, itself included."""
    is_root: bool = False
    moved: int = 0
    """Entries that became a catalog of their own."""


def cut(tree: Directory, path: bytes, limits: CutLimits) -> list[tuple[bytes, Directory]]:
    """Directories that become roots of nested catalogs with their paths, deepest first; the tree itself is the last.

    path: where the tree will stand in the repository.
    """
    directories = _directories(tree, path)
    places = list(directories)
    _cut(places, limits.most, limits.most, (limits.fewest, _WORTHLESS + 1))
    places[0].is_root = True
    return [(place.path, directories[place]) for place in reversed(places) if place.is_root]


def exceeds(tree: Directory, entries: int) -> bool:
    """Whether a tree has more entries than that, itself included; it is looked at no further than needed."""
    count = 1
    pending = [tree]
    while pending:
        directory = pending.pop()
        count += len(directory.children)
        if count > entries:
            return True
        pending += [child for child in directory.children.values() if isinstance(child, Directory)]
    return False


def has_outgrown(before: int, after: int, limits: GrowthLimits) -> bool:
    """Whether a catalog that had some entries is to be looked at now that it has others (`overgrown`)."""
    return _generation(after, limits) > _generation(before, limits)


def overgrown(catalog: Catalog, limits: GrowthLimits) -> list[bytes]:
    """Directories of a catalog that should become nested catalogs of their own, none inside another."""
    room = limits.nested - len(catalog.nested())
    if room <= 0:
        return []
    places = _listed(catalog)
    _cut(places, limits.entries, limits.entries // 2, (limits.worth,))
    chosen: list[_Place] = []
    for place in places:
        if place.is_root and not any(is_below(place.path, other.path) for other in chosen):
            chosen.append(place)
    chosen.sort(key=lambda place: place.moved, reverse=True)
    return [place.path for place in chosen[:room]]


def _generation(entries: int, limits: GrowthLimits) -> int:
    return 0 if entries <= limits.entries else 1 + int(math.log(entries / limits.entries, _AGAIN))


def _cut(places: list[_Place], most: int, wanted: int, floors: Iterable[int]) -> None:
    """Mark places as roots, so that what is left at each has at most `most` entries, or `wanted` where it had more.

    places: each after the one that holds it. floors: entries of places that are cut off, tried one after the other.
    """
    below: dict[_Place, list[_Place]] = {}
    for place in reversed(places):
        inner = below.pop(place, [])
        place.entries = 1 + place.names - len(inner) + sum(child.entries for child in inner)
        if place.entries > most:
            _shrink(place, inner, wanted, floors)
        if place.parent is not None:
            below.setdefault(place.parent, []).append(place)


def _directories(tree: Directory, path: bytes) -> dict[_Place, Directory]:
    """Every directory, each after the one that holds it."""
    top = _Place(path, None, len(tree.children))
    found = {top: tree}
    pending = [top]
    for place in pending:
        prefix = place.path + b"/"
        for name, child in found[place].children.items():
            if isinstance(child, Directory):
                inner = _Place(prefix + name, place, len(child.children))
                found[inner] = child
                pending.append(inner)
    return found


def _listed(catalog: Catalog) -> list[_Place]:
    """The directories of a catalog but for mountpoints, each after the one that holds it."""
    children: dict[PathKey, list[Row]] = {}
    names: dict[PathKey, int] = {}
    for row in catalog.rows():
        names[row.parent] = names.get(row.parent, 0) + 1
        if row.is_directory and not row.flags & (Flags.MOUNTPOINT | Flags.NESTED_ROOT | Flags.BIND_MOUNTPOINT):
            children.setdefault(row.parent, []).append(row)
    places = [_Place(catalog.path, None, names.get(path_key(catalog.path), 0))]
    for place in places:
        prefix = place.path + b"/"
        places += [_Place(prefix + row.name, place, names.get(row.key, 0)) for row in children.get(path_key(place.path), ())]
    return places


def _shrink(place: _Place, inner: list[_Place], wanted: int, floors: Iterable[int]) -> None:
    """Cut off sub-directories, the largest first, until the rest fits: large enough ones, then, if need be, small ones."""
    inner.sort(key=lambda child: child.entries, reverse=True)
    for floor in floors:
        for child in inner:
            if place.entries <= wanted:
                return
            if child.entries >= floor and not child.is_root:
                child.is_root = True
                child.moved = child.entries
                place.entries -= child.entries - 1
                child.entries = 1
