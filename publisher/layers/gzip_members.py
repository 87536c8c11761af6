"""gzip: a series of members, as RFC 1952 has it. eStargz is that: a member for each file or piece of one, and its index last."""

from __future__ import annotations

from isal import igzip_lib

from publisher.errors import BrokenLayer
from publisher.layers.packed import Packed

MAGIC = b"\x1f\x8b"

_ERROR: type[Exception] = igzip_lib.IsalError  # type: ignore[assignment]  # its stub declares an instance


class GzipMembers:
    """The content of all members, one after the other; padding with zeros behind one is passed over (RFC 1952, section 2.2)."""

    def __init__(self, packed: Packed) -> None:
        """packed: at the first member."""
        self._packed = packed
        self._member: igzip_lib.IgzipDecompressor | None = _member()

    def read(self, size: int, /) -> bytes:
        """The next bytes; checksum and length of each member are verified at its end."""
        while self._member is not None:
            if self._member.eof:
                self._begin_next(self._member.unused_data)
                continue
            given = b""
            if self._member.needs_input:
                given = self._packed.take()
                if not given:
                    raise BrokenLayer(f"the layer's gzip stream is cut after {self._packed.position} bytes")
            try:
                block: bytes = self._member.decompress(given, size)
            except _ERROR as error:
                raise BrokenLayer(f"the layer's gzip stream is damaged near byte {self._packed.position}: {error}") from error
            if block:
                return block
        return b""

    def _begin_next(self, rest: bytes) -> None:
        rest = rest.lstrip(b"\0")
        while len(rest) < len(MAGIC):
            more = self._packed.take()
            if not more:
                break
            rest = (rest + more).lstrip(b"\0")
        self._member = None
        if rest:
            if not rest.startswith(MAGIC):
                raise BrokenLayer(f"the layer's gzip stream is followed by something else, near byte {self._packed.position}")
            self._packed.put_back(rest)
            self._member = _member()


def _member() -> igzip_lib.IgzipDecompressor:
    return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
