"""What a layer may be. Design, section 8, rules 4 and 5."""

from __future__ import annotations

from dataclasses import dataclass

from mirror.errors import InvalidInput

_DEEPEST = 256
_SMALLEST_WINDOW = 1 << 10
_LARGEST_WINDOW = 1 << 31


@dataclass(frozen=True, slots=True)
class LayerLimits:
    """A layer that goes beyond one of these is refused."""

    entries: int = 1_000_000
    """Members of the archive, and directories that only their paths imply, each counted."""
    expanded_bytes: int = 64 << 30
    """Of the whole uncompressed archive, holes of sparse files included."""
    file_bytes: int = 32 << 30
    """Of one file."""
    name_bytes: int = 255
    """Of one path component. 255 is what file systems take."""
    path_bytes: int = 4095
    """Of a whole path from the layer's root."""
    depth: int = 128
    """Components of a path; 256 at most."""
    ratio: int = 250
    """Expanded bytes for one compressed byte, once `ratio_from` bytes are expanded."""
    ratio_from: int = 256 << 20
    header_bytes: int = 1 << 20
    """Extended headers (PAX, GNU long names, sparse maps) of one member."""
    window_bytes: int = 128 << 20
    """Memory that a frame of zstd may ask for, to look back at its own content. The default is what zstd itself allows."""
    table_bytes: int = 128 << 20
    """Memory for the tables of a squashfs (inodes, names, extended attributes), uncompressed."""

    def __post_init__(self) -> None:
        """Raises InvalidInput where a limit is out of its bounds."""
        sizes = (self.expanded_bytes, self.file_bytes, self.path_bytes, self.header_bytes, self.table_bytes)
        if min(self.entries, self.ratio, *sizes) < 1:
            raise InvalidInput("the limits of a layer must be at least 1")
        if not _SMALLEST_WINDOW <= self.window_bytes <= _LARGEST_WINDOW:
            raise InvalidInput(f"a layer's window_bytes must be {_SMALLEST_WINDOW} to {_LARGEST_WINDOW}")
        if not 1 <= self.name_bytes <= 255:
            raise InvalidInput("a layer's name_bytes must be 1 to 255")
        if not 1 <= self.depth <= _DEEPEST:
            raise InvalidInput(f"a layer's depth must be 1 to {_DEEPEST}")
