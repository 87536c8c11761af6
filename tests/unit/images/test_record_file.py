"""A JSON list in a repository that is changed record by record: readable as a whole, stored only where it changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from publisher.cvmfs.entry import Entry
from publisher.cvmfs.hash import ObjectKind
from publisher.errors import RepositoryDamaged
from publisher.images.record_file import RecordFile
from publisher.objects.compress import compressor
from publisher.objects.pipeline import Pipeline, PipelineLimits
from publisher.repository import Repository
from publisher.transaction import Transaction
from tests.support.memory_store import MemoryStore
from tests.support.repositories import new_repository, problems

PATH = b"lists/all.json"


class Lists:
    """A repository with one file of records."""

    def __init__(self, repository: Repository, store: MemoryStore, pipeline: Pipeline) -> None:
        self.repository, self.store, self.pipeline = repository, store, pipeline

    def change(self, *added: str, gone: tuple[str, ...] = (), size: int = 10) -> int:
        """How many chunks were stored."""
        before = sum(kind is ObjectKind.CHUNK for _, kind in self.store.puts)
        with Transaction(self.repository) as transaction:
            file = RecordFile(transaction, self.pipeline, PATH)
            for identity in added:
                file.put({"id": identity, "text": "é" + identity.ljust(size, "x")})
            for identity in gone:
                file.remove(identity)
            file.save(1.5)
            transaction.commit()
        return sum(kind is ObjectKind.CHUNK for _, kind in self.store.puts) - before

    def put_text(self, text: bytes) -> None:
        with Transaction(self.repository) as transaction, self.pipeline.intake() as intake:
            ticket = intake.add_bytes(text)
            intake.finish()
            transaction.put_file(PATH, Entry(mode=0o100644, size=ticket.size, content=ticket.content))
            transaction.commit()

    @property
    def entry(self) -> Entry:
        entry = self.repository.reader().lookup(PATH)
        assert entry is not None
        return entry

    def ids(self) -> list[str]:
        """As any reader of JSON finds them."""
        return sorted(record["id"] for record in json.loads(self.repository.reader().read(PATH)))


@pytest.fixture
def lists(tmp_path: Path) -> Iterator[Lists]:
    repository, store = new_repository(tmp_path)
    with Pipeline(store, compressor("zlib-1"), PipelineLimits()) as pipeline:
        yield Lists(repository, store, pipeline)


def test_records_come_and_go_one_at_a_time(lists: Lists) -> None:
    names = [f"r{number}" for number in range(12)]
    for count, name in enumerate(names, 1):
        lists.change(name)
        assert lists.ids() == sorted(names[:count])
    for count, name in enumerate(names, 1):
        lists.change(gone=(name,))
        assert lists.ids() == sorted(names[count:])
    assert json.loads(lists.repository.reader().read(PATH)) == []
    assert problems(lists.repository) == []


def test_one_more_record_stores_one_chunk_however_long_the_list_is(lists: Lists) -> None:
    names = [f"record {number}" for number in range(1000)]
    lists.change(*names, size=600)
    chunks = lists.entry.chunks
    assert len(chunks) == 16
    assert max(chunk.size for chunk in chunks) < 100_000
    lists.store.gets.clear()
    assert lists.change("one more", size=600) == 1
    assert sum(kind is ObjectKind.CHUNK for _, kind in lists.store.gets) <= 2
    assert lists.ids() == sorted([*names, "one more"])
    lists.change(gone=tuple(names))
    assert lists.ids() == ["one more"]
    assert len(lists.entry.chunks) == 2
    assert problems(lists.repository) == []


def test_nothing_new_changes_nothing(lists: Lists) -> None:
    lists.change("a", "b")
    before = lists.repository.manifest().revision
    assert lists.change("a", gone=("absent",)) == 0
    assert lists.repository.manifest().revision == before
    assert (lists.entry.mtime, lists.entry.mtime_ns) == (1, 500_000_000)


@pytest.mark.parametrize("text", [b"", b" \n", b"[]", b'[{"id": "a", "x": [1]},\n {"id": "b"}, {"id": "a"}]'])
def test_a_list_that_another_tool_wrote_is_taken_over(lists: Lists, text: bytes) -> None:
    lists.put_text(text)
    expected = {record["id"] for record in json.loads(text)} if text.strip() else set()
    lists.change("c")
    assert lists.ids() == sorted(expected | {"c"})


@pytest.mark.parametrize("text", [b"{}", b"[", b"[1]", b'[{"id": 1}]', b"[" * 100_000])
def test_what_is_no_list_is_left_alone_and_told(lists: Lists, text: bytes) -> None:
    lists.put_text(text)
    with pytest.raises(RepositoryDamaged, match="lists/all"):
        lists.change("c")
    assert lists.repository.reader().read(PATH) == text
