"""The stored form of large catalogs: a valid zlib stream of which only changed parts are made anew."""

from __future__ import annotations

import random
import zlib

from hypothesis import given
from hypothesis import strategies as st

from publisher.cvmfs import codec
from publisher.cvmfs.segments import SegmentedForm

LARGE = random.Random(1).randbytes(100_000) + bytes(200_000) + b"text " * 40_000


def test_a_form_is_what_any_zlib_reads() -> None:
    stored = SegmentedForm().compress(LARGE)
    assert zlib.decompress(stored) == LARGE
    assert codec.decompress(stored, len(LARGE)) == LARGE
    assert len(stored) < len(zlib.compress(LARGE, 6)) * 1.1


def test_a_small_change_leaves_the_rest_of_the_form_as_it_was() -> None:
    form = SegmentedForm()
    first = form.compress(LARGE)
    changed = bytearray(LARGE)
    changed[150_000] = 1
    second = form.compress(bytes(changed))
    assert zlib.decompress(second) == changed
    assert SegmentedForm().compress(bytes(changed)) == second
    common = next(at for at, (one, other) in enumerate(zip(first, second, strict=False)) if one != other)
    assert common > 100_000


@given(st.lists(st.tuples(st.integers(0, 400_000), st.binary(max_size=50)), max_size=5), st.sampled_from([0, 1, 16_384, 140_000]))
def test_any_series_of_changes_gives_what_a_new_form_would(changes: list[tuple[int, bytes]], cut: int) -> None:
    form = SegmentedForm()
    data = LARGE
    form.compress(data)
    for at, piece in changes:
        data = data[:at] + piece + data[at + len(piece) :]
        stored = form.compress(data)
        assert zlib.decompress(stored) == data
        assert stored == SegmentedForm().compress(data)
    shorter = data[: len(data) - cut]
    assert zlib.decompress(form.compress(shorter)) == shorter
