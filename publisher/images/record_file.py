"""A file of records (`publisher.images.records`) inside a transaction: read and written bucket by bucket."""

from __future__ import annotations

import math
import stat
from collections.abc import Mapping
from dataclasses import dataclass

from mirror.errors import InvalidInput
from publisher.cvmfs.entry import Chunk, Entry
from publisher.cvmfs.path import show
from publisher.errors import RepositoryDamaged
from publisher.images import records
from publisher.images.records import Record
from publisher.objects.pipeline import Pipeline
from publisher.transaction import Transaction


@dataclass(slots=True)
class _Bucket:
    chunk: Chunk | None = None
    """What is stored of it; None once it is to be stored anew."""
    records: dict[str, Record] | None = None
    """None as long as nobody needed them."""


class RecordFile:
    """Changes are gathered; `save` puts the file. Only buckets that are asked for are read, only those that changed are stored.

    Methods raise RepositoryDamaged if the file is not what it should be, Unavailable.
    """

    def __init__(self, transaction: Transaction, pipeline: Pipeline, path: bytes) -> None:
        """path: of the file, whether or not it is there. One that somebody else wrote is taken over as a whole."""
        self._transaction = transaction
        self._pipeline = pipeline
        self._path = path
        entry = transaction.lookup(path)
        self._buckets = [_Bucket(chunk) for chunk in entry.chunks] if entry else []
        self._first = self._first_filled()
        if not records.is_bucket_count(len(self._buckets)) or not self._has_own_form():
            self._regroup({} if entry is None else self._foreign(entry), records.FEWEST)

    def get(self, identity: str) -> Record | None:
        """The record of this id; to be changed only by `put` of another one."""
        return self._records(records.bucket_of(identity, len(self._buckets))).get(identity)

    def put(self, record: Record) -> None:
        """Add a record, or replace the one of the same id."""
        number = records.bucket_of(record["id"], len(self._buckets))
        if self._records(number).get(record["id"]) != record:
            self._records(number)[record["id"]] = record
            self._buckets[number].chunk = None

    def remove(self, identity: str) -> None:
        """Forget a record, if there is one."""
        number = records.bucket_of(identity, len(self._buckets))
        if self._records(number).pop(identity, None) is not None:
            self._buckets[number].chunk = None

    def save(self, now: float) -> None:
        """Put the file, if it changed. now: Unix seconds. Raises StorageFull as well."""
        if all(bucket.chunk is not None for bucket in self._buckets):
            return
        texts = self._rendered()
        size = sum(
            len(texts[number]) if bucket.chunk is None else bucket.chunk.size for number, bucket in enumerate(self._buckets)
        )
        wanted = records.wanted_buckets(len(self._buckets), size)
        if wanted != len(self._buckets):
            numbers = range(len(self._buckets))
            self._regroup({key: record for number in numbers for key, record in self._records(number).items()}, wanted)
            texts = self._rendered()
        with self._pipeline.intake() as intake:
            ticket = intake.add_pieces(list(texts.values()))
        for number, chunk in zip(texts, ticket.chunks, strict=True):
            self._buckets[number].chunk = chunk
        self._put(now)

    def _put(self, now: float) -> None:
        chunks = []
        offset = 0
        for bucket in self._buckets:
            if bucket.chunk is not None:
                chunks.append(Chunk(offset, bucket.chunk.size, bucket.chunk.content))
                offset += bucket.chunk.size
        fraction, seconds = math.modf(now)
        mode, nanoseconds = stat.S_IFREG | 0o644, int(fraction * 1_000_000_000)
        entry = Entry(mode=mode, mtime=int(seconds), mtime_ns=nanoseconds, size=offset, chunks=tuple(chunks))
        self._transaction.put_file(self._path, entry)

    def _rendered(self) -> dict[int, bytes]:
        """The texts of the buckets that are to be stored, by number. It may take one more: that with the first of all records."""
        first = self._first_filled()
        if first != self._first:
            for number in (first, self._first):
                if number is not None:
                    self._records(number)
                    self._buckets[number].chunk = None
        self._first = first
        return {
            number: records.render(self._records(number), number, len(self._buckets), first=number == first)
            for number, bucket in enumerate(self._buckets)
            if bucket.chunk is None
        }

    def _first_filled(self) -> int | None:
        """The first bucket that has a record."""
        for number, bucket in enumerate(self._buckets):
            if bucket.records or (bucket.chunk and bucket.chunk.size > records.empty_size(number, len(self._buckets))):
                return number
        return None

    def _records(self, number: int) -> dict[str, Record]:
        bucket = self._buckets[number]
        if bucket.records is None:
            try:
                bucket.records = self._read(number)
            except InvalidInput as error:
                raise RepositoryDamaged(f"{show(self._path)} is damaged: {error}") from error
        return bucket.records

    def _read(self, number: int) -> dict[str, Record]:
        chunk = self._buckets[number].chunk
        if chunk is None:
            return {}
        alone = Entry(mode=stat.S_IFREG, size=chunk.size, chunks=(Chunk(0, chunk.size, chunk.content),))
        return records.parse(self._transaction.content(alone), number, len(self._buckets))

    def _has_own_form(self) -> bool:
        try:
            self._buckets[0].records = self._read(0)
        except InvalidInput:
            return False
        return True

    def _foreign(self, entry: Entry) -> Mapping[str, Record]:
        try:
            return records.parse_array(self._transaction.content(entry))
        except InvalidInput as error:
            raise RepositoryDamaged(f"{show(self._path)} is damaged: {error}") from error

    def _regroup(self, every: Mapping[str, Record], buckets: int) -> None:
        groups: list[dict[str, Record]] = [{} for _ in range(buckets)]
        for identity, record in every.items():
            groups[records.bucket_of(identity, buckets)][identity] = record
        self._buckets = [_Bucket(None, group) for group in groups]
        self._first = self._first_filled()
