"""Names of archive members: bytes from anybody, to be path components below the layer's root, or refused."""

from __future__ import annotations

from publisher.errors import UnsafeLayer
from publisher.layers.limits import LayerLimits

Path = tuple[bytes, ...]
"""Components below the layer's root; empty for the root itself."""

_MARKERS = frozenset({b".cvmfscatalog", b".cvmfsautocatalog", b".cvmfsdirtab"})
_BUNDLE = b".cvmfsbundle"
_NOTHING = frozenset({b"", b"."})
WHITEOUT_PREFIX = b".wh."
_MARKS = (b".cvmfs", WHITEOUT_PREFIX)
"""How all of them begin."""
_SHOWN = 120


def split(name: bytes, limits: LayerLimits, what: str = "member") -> Path:
    """The components of a member's name or of a hard link's target.

    A leading `/` is stripped, as docker and umoci do. Raises UnsafeLayer for `..`, NUL, and what is too long or too deep.
    """
    if b"\0" in name:
        raise UnsafeLayer(f"{what} '{shown(name)}' has a zero byte in its name")
    path = tuple([part for part in name.split(b"/") if part not in _NOTHING])
    if b".." in path:
        raise UnsafeLayer(f"{what} '{shown(name)}' has '..' in its path and may lead out of the layer")
    if len(path) > limits.depth:
        raise UnsafeLayer(f"{what} '{shown(name)}' is {len(path)} levels deep; {limits.depth} are allowed")
    if len(name) > min(limits.name_bytes, limits.path_bytes):
        if any(len(part) > limits.name_bytes for part in path):
            raise UnsafeLayer(f"{what} '{shown(name)}' has a component of more than {limits.name_bytes} bytes")
        if sum(map(len, path)) + len(path) - 1 > limits.path_bytes:
            raise UnsafeLayer(f"{what} '{shown(name)}' has a path of more than {limits.path_bytes} bytes")
    return path


def may_mean_something(path: Path) -> bool:
    """Whether a component may be a mark of catalogs or of layers: a quick look before the exact ones."""
    return any([part.startswith(_MARKS) for part in path])  # noqa: C419 (a generator takes twice as long, for every member)


def is_marker(component: bytes) -> bool:
    """Whether a catalog would take this name for a mark of its own (repository format, section 4.3)."""
    return component in _MARKERS or component.startswith(_BUNDLE)


def is_reserved(component: bytes) -> bool:
    """Whether no directory may have this name: it is a mark of catalogs, or of layers."""
    return is_marker(component) or component.startswith(WHITEOUT_PREFIX)


def shown(name: bytes | Path) -> str:
    """A name as it may stand in a message: printable, and not too long."""
    text = (b"/".join(name) if isinstance(name, tuple) else name).decode("utf-8", "backslashreplace")
    printable = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text[: 2 * _SHOWN])
    return printable if len(printable) <= _SHOWN else f"{printable[:_SHOWN]}..."
