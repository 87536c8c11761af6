"""Content on its way into the store: in pieces, bounded, and stopped by the first failure."""

from __future__ import annotations

import io
import threading
import zlib

import pytest

from mirror.errors import InvalidInput, StorageFull
from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.objects.compress import compressor
from publisher.objects.pipeline import Pipeline, PipelineLimits, Ticket
from tests.support.memory_store import MemoryStore

SMALL = PipelineLimits(chunk_above=100, chunk_size=64, bytes_in_flight=256, batch=80, batch_files=4, threads=3, small=64)
ZLIB = compressor("zlib-6")


def inflated(store: MemoryStore, content: ContentHash, kind: ObjectKind) -> bytes:
    return zlib.decompress(store.contents[content, kind])


def content_of(store: MemoryStore, ticket: Ticket) -> bytes:
    if ticket.content is not None:
        assert ticket.chunks == ()
        return inflated(store, ticket.content, ObjectKind.DATA)
    return b"".join(inflated(store, chunk.content, ObjectKind.CHUNK) for chunk in ticket.chunks)


def test_files_of_every_size_arrive() -> None:
    store = MemoryStore()
    samples = [bytes([size % 251]) * size for size in (0, 1, 63, 64, 65, 99, 100, 101, 127, 128, 129, 1000)] * 5
    with Pipeline(store, ZLIB, SMALL) as pipeline:
        with pipeline.intake() as intake:
            tickets = [intake.add_bytes(sample) for sample in samples]
        assert [content_of(store, ticket) for ticket in tickets] == samples
    assert [bool(ticket.chunks) for ticket in tickets[:12]] == [False] * 7 + [True] * 5
    for chunked in (ticket for ticket in tickets if ticket.chunks):
        assert [chunk.offset for chunk in chunked.chunks] == list(range(0, chunked.size, 64))
        assert sum(chunk.size for chunk in chunked.chunks) == chunked.size


def test_objects_are_named_by_their_stored_bytes() -> None:
    store = MemoryStore()
    with Pipeline(store, ZLIB, SMALL) as pipeline, pipeline.intake() as intake:
        intake.add_bytes(b"content")
    assert set(store.contents) == {(ContentHash.of(zlib.compress(b"content", 6)), ObjectKind.DATA)}


def test_a_large_file_is_never_in_memory_whole() -> None:
    """At most bytes_in_flight are read ahead of a store that does not answer."""

    class Stuck(MemoryStore):
        gate = threading.Event()

        def put(self, content: ContentHash, kind: ObjectKind, stored: bytes | memoryview) -> bool:
            self.gate.wait(20)
            return super().put(content, kind, stored)

    store = Stuck()
    handed_out = 0
    ahead = []
    full = threading.Event()

    def read(size: int) -> bytes:
        nonlocal handed_out
        handed_out += size
        if handed_out >= SMALL.bytes_in_flight:
            full.set()
        return bytes(size)

    def watch() -> None:
        full.wait(20)
        threading.Event().wait(0.1)
        ahead.append(handed_out)
        store.gate.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    with Pipeline(store, ZLIB, SMALL) as pipeline, pipeline.intake() as intake:
        ticket = intake.add(64 * 50, read)
    watcher.join()
    assert ahead == [SMALL.bytes_in_flight]
    assert len(ticket.chunks) == 50


class Failing(MemoryStore):
    """Full after a number of objects."""

    def __init__(self, objects: int) -> None:
        super().__init__()
        self._left = objects
        self._lock = threading.Lock()

    def put(self, content: ContentHash, kind: ObjectKind, stored: bytes | memoryview) -> bool:
        with self._lock:
            self._left -= 1
            if self._left < 0:
                raise StorageFull("no space left")
        return super().put(content, kind, stored)


def test_the_first_failure_stops_the_layer_and_is_what_the_caller_sees() -> None:
    store = Failing(10)
    taken = 0

    def feed(pipeline: Pipeline) -> None:
        nonlocal taken
        with pipeline.intake() as intake:
            for number in range(100_000):
                intake.add_bytes(b"%d" % number * 10)
                taken += 1

    with Pipeline(store, ZLIB, SMALL) as pipeline:
        with pytest.raises(StorageFull):
            feed(pipeline)
        assert taken < 1000, "it must not go on reading when nothing can be stored"
        assert len(store.contents) == 10


def test_a_failure_of_the_last_files_is_not_lost() -> None:
    with Pipeline(Failing(0), ZLIB, SMALL) as pipeline, pytest.raises(StorageFull), pipeline.intake() as intake:
        intake.add_bytes(b"only one")


def test_failed_layers_give_back_what_they_held() -> None:
    def feed(pipeline: Pipeline) -> None:
        with pipeline.intake() as intake:
            for number in range(100):
                intake.add(300, io.BytesIO(bytes([number]) * 300).read)

    store = Failing(5)
    with Pipeline(store, ZLIB, SMALL) as pipeline:
        for _ in range(20):
            with pytest.raises(StorageFull):
                feed(pipeline)
        store._left = 1 << 30
        with pipeline.intake() as intake:
            ticket = intake.add(300, lambda size: b"x" * size)
        assert content_of(store, ticket) == b"x" * 300


def test_a_reader_that_fails_gives_back_what_it_held() -> None:
    def broken(size: int) -> bytes:
        raise EOFError(size)

    store = MemoryStore()
    with Pipeline(store, ZLIB, SMALL) as pipeline:
        for _ in range(20):
            with pytest.raises(EOFError), pipeline.intake() as intake:
                intake.add(1000, broken)
        with pipeline.intake() as intake:
            ticket = intake.add_bytes(b"y" * 500)
        assert content_of(store, ticket) == b"y" * 500


def test_one_layers_failure_does_not_touch_another() -> None:
    def fail(pipeline: Pipeline) -> None:
        with pipeline.intake() as bad:
            bad.add_bytes(b"dropped or not")
            raise ZeroDivisionError

    store = MemoryStore()
    with Pipeline(store, ZLIB, SMALL) as pipeline, pipeline.intake() as good:
        tickets = [good.add_bytes(b"kept")]
        with pytest.raises(ZeroDivisionError):
            fail(pipeline)
        tickets.append(good.add(150, io.BytesIO(b"z" * 150).read))
        good.finish()
        assert [content_of(store, ticket) for ticket in tickets] == [b"kept", b"z" * 150]


@pytest.mark.parametrize("wrong", [{"threads": 0}, {"small_threads": 0}, {"chunk_size": 0}, {"bytes_in_flight": 100}])
def test_limits_that_cannot_work_are_refused(wrong: dict[str, int]) -> None:
    values = {"chunk_above": 100, "chunk_size": 64, "bytes_in_flight": 256, "batch": 80, "batch_files": 4, "threads": 3}
    with pytest.raises(InvalidInput):
        PipelineLimits(**{**values, **wrong})
