"""zstd: a series of frames, as RFC 8878 has it. zstd:chunked is that: a frame a file, and its index in skippable frames."""

from __future__ import annotations

import sys

from publisher.errors import BrokenLayer, UnsafeLayer
from publisher.layers.packed import Packed

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAGIC = b"\x28\xb5\x2f\xfd"

_SKIPPABLE = frozenset(bytes((low,)) + b"\x2a\x4d\x18" for low in range(0x50, 0x60))
_LONGEST_HEADER = 18
_SINGLE_SEGMENT = 0x20
_ID_BYTES = (0, 1, 2, 4)
_SMALLEST_WINDOW = 10
"""As a power of two; RFC 8878, section 3.1.1.1.2."""


class ZstdFrames:
    """The content of all frames, one after the other; skippable frames have none."""

    def __init__(self, packed: Packed, window_bytes: int) -> None:
        """packed: at the first frame. window_bytes: of memory that a frame may ask for, to look back at its own content."""
        self._packed = packed
        self._window_bytes = window_bytes
        largest = max(_SMALLEST_WINDOW, (window_bytes - 1).bit_length())
        self._options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: largest}
        self._frame: zstd.ZstdDecompressor | None = self._begin()

    def read(self, size: int, /) -> bytes:
        """The next bytes; where a frame has a checksum it is verified at its end."""
        while self._frame is not None:
            if self._frame.eof:
                self._packed.put_back(self._frame.unused_data)
                self._frame = self._begin()
                continue
            given = b""
            if self._frame.needs_input:
                given = self._packed.take()
                if not given:
                    raise BrokenLayer(f"the layer's zstd stream is cut after {self._packed.position} bytes")
            try:
                block: bytes = self._frame.decompress(given, size)
            except zstd.ZstdError as error:
                raise BrokenLayer(f"the layer's zstd stream is damaged near byte {self._packed.position}: {error}") from error
            if block:
                return block
        return b""

    def _begin(self) -> zstd.ZstdDecompressor | None:
        """The next frame; None at the end."""
        head = self._packed.peek(_LONGEST_HEADER)
        if not head:
            return None
        if not begins_frame(head):
            raise BrokenLayer(f"the layer's zstd stream is followed by something else, near byte {self._packed.position}")
        window = _window(head)
        if window > self._window_bytes:
            raise UnsafeLayer(
                f"the layer's zstd stream asks for {window} bytes of memory to be unpacked; {self._window_bytes} are allowed"
            )
        return zstd.ZstdDecompressor(options=self._options)


def begins_frame(head: bytes) -> bool:
    """Whether these bytes are the beginning of a frame with content, or of a skippable one."""
    return head.startswith(MAGIC) or head[:4] in _SKIPPABLE


def _window(head: bytes) -> int:
    """Bytes that a frame needs to be unpacked (RFC 8878, section 3.1.1.1); 0 if its header is cut or it has no content."""
    if not head.startswith(MAGIC) or len(head) < 6:
        return 0
    descriptor = head[4]
    if not descriptor & _SINGLE_SEGMENT:
        base = 1 << (_SMALLEST_WINDOW + (head[5] >> 3))
        return base + base // 8 * (head[5] & 7)
    size_bytes = 1 << (descriptor >> 6)
    at = 5 + _ID_BYTES[descriptor & 3]
    size = int.from_bytes(head[at : at + size_bytes], "little")
    return size + 256 if size_bytes == 2 else size
