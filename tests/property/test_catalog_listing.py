"""Listings of catalogs: complete for sound ones, and never anything but RepositoryDamaged for others."""

from __future__ import annotations

import zlib
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from publisher.cvmfs import codec, schema
from publisher.cvmfs.catalog import NestedReference
from publisher.cvmfs.hash import ContentHash, HashAlgorithm, ObjectKind
from publisher.errors import RepositoryDamaged
from publisher.replicate.listing import open_listing
from tests.support.memory_store import load_directory

GOLDEN = load_directory(Path(__file__).parents[1] / "data" / "cvmfs-golden" / "repo")
CATALOGS = [codec.decompress(data, 1 << 30) for (_, kind), data in GOLDEN.contents.items() if kind is ObjectKind.CATALOG]


def listed(data: bytes, path: bytes = b"", limit: int = 1 << 20) -> tuple[set[tuple[ContentHash, ObjectKind]], set[bytes]]:
    with TemporaryDirectory() as directory:
        scratch = Path(directory) / "scratch"
        listing = open_listing(BytesIO(data), NestedReference(path, ContentHash.of(data), 0), scratch, limit)
        try:
            assert not scratch.exists()
            _ = listing.revision, listing.previous
            return {(item.content, item.kind) for item in listing.objects()}, {item.path for item in listing.nested()}
        finally:
            listing.close()


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_damaged_catalogs_are_read_or_refused(data: st.DataObject) -> None:
    damaged = bytearray(data.draw(st.sampled_from(CATALOGS)))
    places = st.one_of(st.integers(0, 1100), st.integers(0, len(damaged) - 1))
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=20)):
        damaged[place] = value
    with suppress(RepositoryDamaged):
        listed(zlib.compress(bytes(damaged), 1))


@settings(deadline=None, max_examples=50)
@given(st.binary(max_size=200))
def test_what_is_no_catalog_is_refused(data: bytes) -> None:
    for stored in (data, zlib.compress(data)):
        try:
            listed(stored)
        except RepositoryDamaged:
            continue
        raise AssertionError("it was taken for a catalog")


FLAGS = st.sampled_from([4, 68, 4 | 0x80, 4 | 0x100, 68 | 0x200, 68 | 0x80, 0x804])
ROWS = st.lists(
    st.tuples(
        FLAGS,
        st.one_of(st.none(), st.binary(min_size=20, max_size=20)),
        st.lists(st.binary(min_size=20, max_size=20), max_size=3),
    )
)


@settings(deadline=None, max_examples=50)
@given(ROWS)
def test_every_object_is_listed_and_no_external_one(rows: list[tuple[int, bytes | None, list[bytes]]]) -> None:
    connection = schema.create(schema.CATALOG)
    expected = set()
    for number, (flags, digest, chunks) in enumerate(rows):
        values = (number, 0, 0, 0, 1, digest, 7, 0o100644, 0, None, flags, f"f{number}", "", 0, 0, None)
        connection.execute("INSERT INTO catalog VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
        pieces = [(digest, ObjectKind.DATA)] if digest is not None else []
        for offset, chunk in enumerate(chunks):
            connection.execute("INSERT INTO chunks VALUES (?, 0, ?, 1, ?)", (number, offset, chunk))
            pieces.append((chunk, ObjectKind.CHUNK))
        if not flags & 0x80:
            algorithm = HashAlgorithm(flags >> 8 & 7)
            expected |= {(ContentHash(value, algorithm), kind) for value, kind in pieces}
    objects, nested = listed(zlib.compress(connection.serialize()))
    assert (objects, nested) == (expected, set())
