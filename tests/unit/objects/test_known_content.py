"""Content that a repository has is not compressed again, and nothing that is remembered wrongly does any harm."""

from __future__ import annotations

import sqlite3
import zlib
from contextlib import closing
from pathlib import Path

import pytest

from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.objects.compress import Compressor
from publisher.objects.known import KnownContent, KnownObject
from publisher.objects.pipeline import Pipeline, PipelineLimits, Ticket
from tests.support.memory_store import MemoryStore
from tests.support.state import Clock

CONTENT = b"".join(number.to_bytes(4, "big") for number in range(5120))
"""Without two chunks alike, which two threads might compress at the same time."""
KEY = b"any key"
KNOWN = KnownObject(ContentHash.of(b"stored"), 6)
DAY = 86400.0


def numbered(number: int) -> bytes:
    return b"key %d" % number


def test_what_was_noted_is_found_by_the_next_process(tmp_path: Path) -> None:
    with KnownContent(tmp_path / "known", 10) as known:
        known.note(KEY, KNOWN)
        assert known.find([KEY, numbered(1)]) == {KEY: KNOWN}
    with KnownContent(tmp_path / "known", 10) as known:
        assert known.find([KEY, numbered(1)]) == {KEY: KNOWN}


def test_two_processes_may_use_it(tmp_path: Path) -> None:
    with KnownContent(tmp_path / "known", 10) as one, KnownContent(tmp_path / "known", 10) as other:
        one.note(KEY, KNOWN)
        other.note(numbered(1), KNOWN)
    with KnownContent(tmp_path / "known", 10) as known:
        assert known.find([KEY, numbered(1)]) == {KEY: KNOWN, numbered(1): KNOWN}


def test_old_rows_go_unless_they_are_found_again(tmp_path: Path) -> None:
    path = tmp_path / "known"
    for number in range(40):
        with KnownContent(path, 10) as known:
            known.note(numbered(number), KNOWN)
            known.find([numbered(0)])
    with KnownContent(path, 10) as known:
        found = known.find([numbered(number) for number in range(40)])
    assert numbered(0) in found
    assert numbered(39) in found
    assert numbered(1) not in found
    assert 10 <= len(found) <= 20


def test_a_damaged_row_is_not_known(tmp_path: Path) -> None:
    path = tmp_path / "known"
    with KnownContent(path, 10) as known:
        known.note(KEY, KNOWN)
        known.note(numbered(1), KNOWN)
    with closing(sqlite3.connect(path)) as database, database:
        (row,) = database.execute("SELECT object FROM younger WHERE key = ?", (KEY,)).fetchone()
        database.execute("UPDATE younger SET object = ? WHERE key = ?", (bytes([row[0] ^ 1]) + row[1:], KEY))
        database.execute("UPDATE younger SET object = 'text' WHERE key = ?", (numbered(1),))
    with KnownContent(path, 10) as known:
        assert known.find([KEY, numbered(1)]) == {}


@pytest.mark.parametrize("content", [b"no database at all" * 1000, b""])
def test_a_damaged_file_is_made_anew(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "known"
    path.write_bytes(content)
    with KnownContent(path, 10) as known:
        known.note(KEY, KNOWN)
        assert known.find([KEY]) in ({}, {KEY: KNOWN})
    with KnownContent(path, 10) as known:
        known.note(KEY, KNOWN)
        assert known.find([KEY]) == {KEY: KNOWN}


def test_keys_tell_contents_and_kinds_apart_and_hold_for_the_file(tmp_path: Path) -> None:
    asked = [(CONTENT, ObjectKind.DATA), (CONTENT, ObjectKind.CHUNK), (CONTENT[1:], ObjectKind.DATA), (b"", ObjectKind.DATA)]
    with KnownContent(tmp_path / "known", 10) as one, KnownContent(tmp_path / "known", 10) as other:
        keys = [one.key(*what) for what in asked]
        assert [other.key(*what) for what in asked] == keys
    assert len(set(keys)) == len(keys)
    with KnownContent(tmp_path / "known", 10) as again, KnownContent(tmp_path / "elsewhere", 10) as stranger:
        assert [again.key(*what) for what in asked] == keys
        assert not {stranger.key(*what) for what in asked} & set(keys)


def test_without_its_secret_a_file_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "known"
    with KnownContent(path, 10) as known:
        known.note(KEY, KNOWN)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE secret SET value = x'00'")
    with KnownContent(path, 10) as known:
        assert known.find([KEY]) == {}
    with KnownContent(path, 10) as known:
        known.note(KEY, KNOWN)
        assert known.find([KEY]) == {KEY: KNOWN}


def test_where_no_file_can_be_nothing_is_known(tmp_path: Path) -> None:
    with KnownContent(tmp_path / "missing" / "known", 10) as known:
        known.note(KEY, KNOWN)
        assert known.find([KEY]) == {}


class Counted:
    """A compressor that counts."""

    def __init__(self) -> None:
        self.calls = 0

    def compress(self, content: bytes) -> bytes:
        self.calls += 1
        return zlib.compress(content)


class Bench:
    def __init__(self, directory: Path) -> None:
        self.clock = Clock()
        self.store = MemoryStore(lambda: self.clock.now)
        self.compressor = Counted()
        self._path = directory / "known"

    def take(self, *contents: bytes, chunk: int = 1 << 20) -> list[Ticket]:
        """Each content through a pipeline of its own process."""
        limits = PipelineLimits(chunk_above=chunk, chunk_size=chunk, threads=2)
        counted = Compressor("counted", self.compressor.compress)
        with Pipeline(self.store, counted, limits, KnownContent(self._path, 1000)) as pipeline, pipeline.intake() as intake:
            return [intake.add_bytes(content) for content in contents]


def test_content_is_compressed_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    (first,) = bench.take(CONTENT)
    (second,) = bench.take(CONTENT)
    assert bench.compressor.calls == 1
    assert first.content == second.content is not None
    (chunked,) = bench.take(CONTENT, chunk=10240)
    assert bench.compressor.calls == 3
    assert [chunk.content for chunk in bench.take(CONTENT, chunk=10240)[0].chunks] == [chunk.content for chunk in chunked.chunks]
    assert bench.compressor.calls == 3


def test_what_was_collected_meanwhile_is_stored_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    (ticket,) = bench.take(CONTENT)
    assert ticket.content is not None
    bench.store.delete(ticket.content, ObjectKind.DATA)
    bench.take(CONTENT)
    assert bench.store.contains(ticket.content, ObjectKind.DATA)


def test_what_a_power_failure_cut_is_stored_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    (ticket,) = bench.take(CONTENT)
    assert ticket.content is not None
    bench.store.contents[ticket.content, ObjectKind.DATA] = b""
    bench.take(CONTENT)
    assert bench.compressor.calls == 2


def test_what_is_found_is_young_for_the_garbage_collector(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    (ticket,) = bench.take(CONTENT)
    assert ticket.content is not None
    bench.clock.now += 100 * DAY
    bench.take(CONTENT)
    assert not bench.store.expire(ticket.content, ObjectKind.DATA, bench.clock.now - DAY)
