"""Layers to measure with: real ones, made once and kept, and an endless one that is made while it is read."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import sys
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from isal import igzip

from mirror.oci.digest import Digest
from tests.support.tool import run
from tests.support.zoo import cache_directory, debian_layout

_STACK = ("numpy", "scipy", "pillow")
"""About 240 MB in 4,600 files."""


def debian_layer() -> Path:
    """The layer of a Debian base system as an image has it: about 170 MB of tar in 8,700 entries, compressed by gzip."""
    layout = debian_layout()
    index = json.loads((layout / "index.json").read_bytes())
    (base,) = (image for image in index["manifests"] if image["annotations"]["org.opencontainers.image.ref.name"] == "base")
    manifest = json.loads(_blob(layout, base["digest"]).read_bytes())
    return _blob(layout, manifest["layers"][0]["digest"])


def python_layer() -> Path:
    """What `RUN pip install` leaves of a scientific Python stack, packed as a builder would."""
    kept = cache_directory() / f"python-{hashlib.sha256(' '.join(_STACK).encode()).hexdigest()[:16]}.tar.gz"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        unfinished = kept.with_suffix(".new")
        shutil.rmtree(unfinished, ignore_errors=True)
        run([sys.executable, "-m", "pip", "install", "--quiet", "--target", unfinished / "site-packages", *_STACK], seconds=900)
        with tarfile.open(unfinished / "layer", "w:gz", compresslevel=6) as archive:
            archive.add(unfinished / "site-packages", "usr/lib/python3/dist-packages")
        (unfinished / "layer").rename(kept)
        shutil.rmtree(unfinished)
    return kept


def single_file_layer() -> bytes:
    """A plain tar of one small file."""
    content = b"the only file\n"
    return b"".join(_members([(len(content), [content])]))


def diff_id(blob: Path) -> Digest:
    """Digest of a gzip-compressed layer's archive."""
    hasher = hashlib.sha256()
    with blob.open("rb") as packed, igzip.IGzipFile(fileobj=packed, mode="rb") as archive:  # type: ignore[no-untyped-call]
        while block := archive.read(1 << 20):
            hasher.update(block)
    return Digest("sha256", hasher.hexdigest())


class EndlessLayer:
    """A plain tar that exists only while it is read: `files` files of about `size` bytes in all, a tenth of it in large ones."""

    def __init__(self, size: int, files: int, large: int = 100 << 20) -> None:
        self._parts = filter(None, _members(_contents(size, files, large)))
        self._rest = b""

    def read(self, size: int, /) -> bytes:
        if not self._rest:
            self._rest = next(self._parts, b"")
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece

    def digest(self) -> Digest:
        """Of what is left; nothing is left then."""
        hasher = hashlib.sha256()
        while piece := self.read(1 << 20):
            hasher.update(piece)
        return Digest("sha256", hasher.hexdigest())


def _contents(size: int, files: int, large: int) -> Iterator[tuple[int, Iterator[bytes]]]:
    """Length and pieces of each file; text that compresses to about a third, no two files alike."""
    source = random.Random(1)
    words = [source.randbytes(source.randint(1, 6)).hex().encode() for _ in range(3000)]
    page = b" ".join(source.choices(words, k=1 << 17))
    few = size // 10 // large
    every = files // few
    each = (size - few * large) // (files - few)
    for number in range(files):
        length = large if number % every == 0 and number < few * every else each
        begin = source.randrange(len(page) // 2)
        yield length, _pieces(b"%d " % number, page[begin : begin + length], length)


def _pieces(stamp: bytes, page: bytes, length: int) -> Iterator[bytes]:
    left = length
    while left > 0:
        piece = (stamp + page)[:left]
        left -= len(piece)
        yield piece


def _members(contents: Iterable[tuple[int, Iterable[bytes]]]) -> Iterator[bytes]:
    for number, (length, pieces) in enumerate(contents):
        info = tarfile.TarInfo(f"opt/data/{number // 500:05}/{number:07}.dat")
        info.size, info.mtime = length, 1_700_000_000
        yield info.tobuf(tarfile.PAX_FORMAT)
        yield from pieces
        yield bytes(-length % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _blob(layout: Path, digest: str) -> Path:
    return layout / "blobs" / "sha256" / digest.removeprefix("sha256:")
