"""Where a tree is cut into nested catalogs, so that none holds more entries than it should. Repository format, section 4.3."""

from __future__ import annotations

from dataclasses import dataclass

from publisher.cvmfs.entry import Directory

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


@dataclass(slots=True, eq=False)
class _Place:
    directory: Directory
    path: bytes
    parent: _Place | None
    entries: int = 1
    """Entries that the catalog holding this directory has because of it, itself included."""
    is_root: bool = False


def cut(tree: Directory, path: bytes, limits: CutLimits) -> list[tuple[bytes, Directory]]:
    """Directories that become roots of nested catalogs with their paths, deepest first; the tree itself is the last.

    path: where the tree will stand in the repository.
    """
    places = _directories(tree, path)
    below: dict[_Place, list[_Place]] = {}
    for place in reversed(places):
        inner = below.pop(place, [])
        place.entries = 1 + len(place.directory.children) - len(inner) + sum(child.entries for child in inner)
        if place.entries > limits.most:
            _shrink(place, inner, limits)
        if place.parent is not None:
            below.setdefault(place.parent, []).append(place)
    places[0].is_root = True
    return [(place.path, place.directory) for place in reversed(places) if place.is_root]


def _directories(tree: Directory, path: bytes) -> list[_Place]:
    """Every directory, each after the one that holds it."""
    places = [_Place(tree, path, None)]
    for place in places:
        prefix = place.path + b"/"
        places += [
            _Place(child, prefix + name, place)
            for name, child in place.directory.children.items()
            if isinstance(child, Directory)
        ]
    return places


def _shrink(place: _Place, inner: list[_Place], limits: CutLimits) -> None:
    """Cut off sub-directories, the largest first, until the rest fits: large enough ones, then, if need be, small ones."""
    inner.sort(key=lambda child: child.entries, reverse=True)
    for floor in (limits.fewest, _WORTHLESS + 1):
        for child in inner:
            if place.entries <= limits.most:
                return
            if child.entries >= floor and not child.is_root:
                child.is_root = True
                place.entries -= child.entries - 1
                child.entries = 1
