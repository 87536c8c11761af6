"""Members of a layer's archive, from a stream that anybody may have written.

v7, ustar, GNU (long names, sparse files) and PAX (names, owners, exact times, extended attributes, sparse files) are understood.
Global PAX headers are passed over, as docker and umoci do. Memory is bounded by the limit on extended headers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from publisher.errors import BrokenLayer, UnsafeLayer
from publisher.layers import names, sparse
from publisher.layers.extended import Extended
from publisher.layers.header import BLOCK, Header, Kind, is_end, parse_header, parse_sparse_block
from publisher.layers.limits import LayerLimits
from publisher.layers.stream import LayerStream

_EXTENSIONS = (Kind.PAX, Kind.PAX_GLOBAL, Kind.GNU_LONG_NAME, Kind.GNU_LONG_LINK)
_LARGEST_ID = (1 << 32) - 2
"""The largest that a catalog was proven with; the next one means "none" to system calls."""
_TIME_LIMIT = 1 << 62
_PERMISSIONS = 0o7777


@dataclass(slots=True)
class Member:
    """One member. Its names are safe; what becomes of it is for others to say."""

    kind: Kind
    """GNU_SPARSE files are FILE here."""
    path: names.Path
    mode: int
    """Permission bits with setuid, setgid, sticky; no type."""
    uid: int
    gid: int
    mtime: int
    """Unix seconds, rounded down."""
    mtime_ns: int
    """Nanoseconds within the second."""
    size: int
    """Bytes of a file's content, holes included; 0 for all else."""
    target: bytes
    """Of a symbolic link, as it is."""
    link: names.Path
    """Of a hard link: the other name, from the layer's root."""
    xattrs: dict[bytes, bytes]


class TarReader:
    """Iterates over the members of an archive. A file's content can be read until the next member is asked for.

    Raises BrokenLayer where the stream is no tar archive, UnsafeLayer where a member breaks a rule; both say where.
    """

    def __init__(self, stream: LayerStream, limits: LayerLimits) -> None:
        self._stream = stream
        self._limits = limits
        self._members = 0
        self._last: names.Path | None = None
        self._holes: sparse.SparseContent | None = None

    def __iter__(self) -> Iterator[Member]:
        while (step := self._next_member()) is not None:
            member, end = step
            yield member
            missing = end - self._stream.position
            # umoci writes layers without the padding behind their last member; readers in the field do not mind, and the digest
            # of the whole is compared anyway.
            if missing - self._stream.skip(missing) >= BLOCK:
                raise BrokenLayer(f"the archive is cut within '{names.shown(member.path)}'")
            self._last = member.path

    def read(self, size: int) -> bytes:
        """Exactly the next `size` bytes of the current file, which must have as many. Raises BrokenLayer where it is cut."""
        return self._read_stored(size) if self._holes is None else self._holes.read(size)

    def _read_stored(self, size: int) -> bytes:
        data = self._stream.read(size)
        if len(data) < size:
            raise BrokenLayer(f"the archive is cut within a member ({self._place()})")
        return data

    def _next_member(self) -> tuple[Member, int] | None:
        """The next member, and where its data and their padding end in the stream; None at the archive's end."""
        try:
            header = self._next_header()
            if header is None:
                return None
            self._members += 1
            if self._members > self._limits.entries:
                raise UnsafeLayer(f"the layer has more than the {self._limits.entries} members that are allowed")
            extended = Extended()
            header_bytes = 0
            while header.kind in _EXTENSIONS:
                header_bytes += self._extend(extended, header, header_bytes)
                header = self._next_header()
                if header is None:
                    raise BrokenLayer("the archive ends behind an extended header")
            return self._member(header, extended, header_bytes)
        except BrokenLayer as error:
            raise BrokenLayer(f"{error} ({self._place()})") from error

    def _next_header(self) -> Header | None:
        block = self._stream.read(BLOCK)
        if not block:
            return None  # without the two blocks of zeros that should be there; readers in the field do not mind
        if len(block) < BLOCK:
            raise BrokenLayer("the archive is cut within a header")
        if not is_end(block):
            return parse_header(block)
        if self._stream.read(BLOCK).strip(b"\0"):
            raise BrokenLayer("the archive has a block of zeros between its members")
        return None

    def _extend(self, extended: Extended, header: Header, header_bytes: int) -> int:
        """Take one extended header; how many bytes it counts for."""
        padded = _padded(header.size)
        if header.kind is Kind.PAX_GLOBAL:
            if self._stream.skip(padded) < padded:
                raise BrokenLayer("the archive is cut within a global header")
            return BLOCK
        self._check_header_bytes(header_bytes + padded)
        extended.add(header.kind, self._read_stored(padded)[: header.size])
        return BLOCK + padded

    def _member(self, header: Header, extended: Extended, header_bytes: int) -> tuple[Member, int]:
        name = extended.name(header)
        path = names.split(name, self._limits)
        kind = header.kind
        if kind is Kind.FILE and header.old_style and name.endswith(b"/"):
            kind = Kind.DIRECTORY
        size, end = 0, self._stream.position
        if kind in (Kind.FILE, Kind.GNU_SPARSE):
            size, end = self._begin_content(header, extended, header_bytes, path)
            kind = Kind.FILE
        link = extended.link(header)
        mtime, mtime_ns = extended.time(header)
        member = Member(
            kind=kind,
            path=path,
            mode=header.mode & _PERMISSIONS,
            uid=extended.number(b"uid", header.uid),
            gid=extended.number(b"gid", header.gid),
            mtime=mtime,
            mtime_ns=mtime_ns,
            size=size,
            target=self._symlink_target(link, path) if kind is Kind.SYMLINK else b"",
            link=names.split(link, self._limits, "hard link target") if kind is Kind.HARD_LINK else (),
            xattrs=extended.xattrs,
        )
        if not (0 <= member.uid <= _LARGEST_ID and 0 <= member.gid <= _LARGEST_ID):
            raise BrokenLayer(f"'{names.shown(path)}' belongs to {member.uid}:{member.gid}, which no file can")
        if abs(mtime) > _TIME_LIMIT:
            raise BrokenLayer(f"'{names.shown(path)}' has an impossible modification time")
        return member, end

    def _begin_content(self, header: Header, extended: Extended, header_bytes: int, path: names.Path) -> tuple[int, int]:
        """Make a file's content readable: its size, and where its data and their padding end in the stream."""
        stored = size = extended.number(b"size", header.size)
        pieces: sparse.Pieces | None
        if header.kind is Kind.GNU_SPARSE:
            size = header.sparse_size
            pieces = self._gnu_pieces(header, header_bytes)
        elif extended.has_sparse_map_in_data:
            size = extended.sparse_size(size)
            pieces, taken = sparse.read_map(self._read_stored, min(stored, self._limits.header_bytes))
            stored -= taken
        else:
            pieces = extended.sparse_pieces
            size = extended.sparse_size(size) if pieces is not None else size
        if stored < 0 or size < 0:
            raise BrokenLayer(f"'{names.shown(path)}' has a negative size")
        if size > self._limits.file_bytes:
            raise UnsafeLayer(f"'{names.shown(path)}' has {size} bytes; {self._limits.file_bytes} are allowed")
        self._holes = None
        if pieces is not None:
            sparse.check(pieces, size, stored)
            self._stream.count_hole(size - stored)
            self._holes = sparse.SparseContent(pieces, self._read_stored)
        return size, self._stream.position + _padded(stored)

    def _gnu_pieces(self, header: Header, header_bytes: int) -> sparse.Pieces:
        pieces = list(header.sparse)
        continues = header.sparse_continues
        while continues:
            header_bytes += BLOCK
            self._check_header_bytes(header_bytes)
            more, continues = parse_sparse_block(self._read_stored(BLOCK))
            pieces += more
        return tuple(pieces)

    def _check_header_bytes(self, header_bytes: int) -> None:
        if header_bytes > self._limits.header_bytes:
            raise UnsafeLayer(
                f"a member has extended headers of more than the {self._limits.header_bytes} bytes that are allowed "
                f"({self._place()})"
            )

    def _symlink_target(self, target: bytes, path: names.Path) -> bytes:
        if not target or b"\0" in target:
            raise BrokenLayer(f"the symbolic link '{names.shown(path)}' has no target, or one with a zero byte")
        if len(target) > self._limits.path_bytes:
            raise UnsafeLayer(
                f"the symbolic link '{names.shown(path)}' has a target of more than {self._limits.path_bytes} bytes"
            )
        return target

    def _place(self) -> str:
        return "at the first member" if self._last is None else f"behind '{names.shown(self._last)}'"


def _padded(size: int) -> int:
    return size + -size % BLOCK
