from __future__ import annotations

import zlib

import pytest

from mirror.errors import InvalidInput
from publisher.cvmfs.hash import ContentHash
from publisher.objects.compress import DEFAULT_COMPRESSOR, compressor

SAMPLES = (b"", b"x", b"hello " * 10_000, bytes(range(256)) * 300)


@pytest.mark.parametrize(
    "name", ["zlib-1", "zlib-6", "zlib-9", "libdeflate-1", "libdeflate-6", "libdeflate-12", DEFAULT_COMPRESSOR]
)
def test_every_compressor_writes_zlib_streams(name: str) -> None:
    chosen = compressor(name)
    assert chosen.name == name
    for sample in SAMPLES:
        inflater = zlib.decompressobj()
        assert inflater.decompress(bytes(chosen.compress(sample))) == sample
        assert inflater.eof
        assert inflater.unused_data == b""


def test_the_reference_compressor_gives_the_reference_object() -> None:
    """Repository format, section 2.1: what cvmfs_server makes of an empty file."""
    assert str(ContentHash.of(bytes(compressor("zlib-6").compress(b"")))) == "e8ec3d88b62ebf526e4e5a4ff6162a3aa48a6b78"


@pytest.mark.parametrize(
    "name", ["", "zlib", "zlib-0", "zlib-10", "libdeflate-13", "libdeflate-06", "gzip-6", "zlib-6 ", "zstd-3"]
)
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="is not a compressor"):
        compressor(name)
