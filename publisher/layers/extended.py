"""What extended headers say about the member that follows them: PAX records and GNU long names."""

from __future__ import annotations

from publisher.errors import BrokenLayer
from publisher.layers.header import Header, Kind, parse_pax, parse_pax_number, parse_pax_time
from publisher.layers.sparse import Pieces, paired

_XATTR = b"SCHILY.xattr."
_SPARSE_OFFSET = b"GNU.sparse.offset"
_SPARSE_LENGTH = b"GNU.sparse.numbytes"


class Extended:
    """The headers before a member's own. Raises BrokenLayer where a value is not what it should be."""

    def __init__(self) -> None:
        self._name: bytes | None = None
        self._link: bytes | None = None
        self._records: dict[bytes, bytes] = {}
        self._sparse: list[bytes] = []
        self.xattrs: dict[bytes, bytes] = {}

    def add(self, kind: Kind, payload: bytes) -> None:
        """Take the payload of one extended header; of several of one kind the last holds."""
        if kind is Kind.GNU_LONG_NAME:
            self._name = payload.partition(b"\0")[0]
        elif kind is Kind.GNU_LONG_LINK:
            self._link = payload.partition(b"\0")[0]
        else:
            self._add_records(payload)

    def name(self, header: Header) -> bytes:
        """The member's name as it is in the archive."""
        return self._name or self._records.get(b"GNU.sparse.name") or self._records.get(b"path") or header.name

    def link(self, header: Header) -> bytes:
        """The target of a link as it is in the archive."""
        return self._link or self._records.get(b"linkpath") or header.link

    def number(self, keyword: bytes, otherwise: int) -> int:
        """A decimal record, such as `uid`, or what the member's own header says."""
        value = self._records.get(keyword)
        return otherwise if value is None else parse_pax_number(value)

    def time(self, header: Header) -> tuple[int, int]:
        """Modification time: Unix seconds, rounded down, and nanoseconds."""
        value = self._records.get(b"mtime")
        return (header.mtime, 0) if value is None else parse_pax_time(value)

    @property
    def has_sparse_map_in_data(self) -> bool:
        """Whether the file's data begins with its map (PAX sparse format 1.0)."""
        return self._records.get(b"GNU.sparse.major") == b"1" and self._records.get(b"GNU.sparse.minor") == b"0"

    @property
    def sparse_pieces(self) -> Pieces | None:
        """The map of PAX's sparse formats 0.0 and 0.1; None for a file that is not sparse in these ways."""
        text = self._records.get(b"GNU.sparse.map")
        if text is not None:
            return paired(text.split(b","))
        return paired(self._sparse) if self._sparse else None

    def sparse_size(self, otherwise: int) -> int:
        """Bytes of a sparse file with its holes."""
        return self.number(b"GNU.sparse.realsize", self.number(b"GNU.sparse.size", otherwise))

    def _add_records(self, payload: bytes) -> None:
        for keyword, value in parse_pax(payload):
            if keyword.startswith(_XATTR):
                self.xattrs[keyword.removeprefix(_XATTR)] = value
            elif keyword in (_SPARSE_OFFSET, _SPARSE_LENGTH):
                if (keyword == _SPARSE_OFFSET) == bool(len(self._sparse) % 2):
                    raise BrokenLayer("a sparse file's map has an offset without a length")
                self._sparse.append(value)
            elif value:
                self._records[keyword] = value
            else:
                self._records.pop(keyword, None)  # an empty value takes back what an earlier record said
