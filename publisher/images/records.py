"""A JSON array of records that is written in buckets, each a chunk of its own in CVMFS. Pure.

A file of ten thousand images has megabytes, and every publication changes one record of it. CVMFS keeps a large file as a list of
chunks, of any sizes: so each bucket is a chunk, and a publication stores, and clients fetch again, only buckets that changed.
Whoever reads the file sees one JSON array:

    [                       the first bucket begins the array
     {"id":"..", ..}        the first record of all, and no other, has no comma in front
    ,{"id":"..", ..}
                            every other bucket begins with an empty line, and so is never empty
    ,{"id":"..", ..}
    ]                       the last bucket ends the array
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

from mirror.errors import InvalidInput

Record = dict[str, Any]
"""A JSON object whose member `id` is a text that no other record of the file has."""

FEWEST = 2
"""Buckets that a file has at least; their number is a power of two."""

_LARGEST = 48 << 10
"""Bytes of a bucket, on the average, above which there are to be more of them."""
_SMALLEST = 6 << 10
"""The same below which there are to be fewer: far enough from the other, so that nothing swings."""


def is_bucket_count(number: int) -> bool:
    """Whether a file can have so many buckets."""
    return number >= FEWEST and number & (number - 1) == 0


def wanted_buckets(number: int, size: int) -> int:
    """How many buckets a file of `size` bytes should have that has `number` now."""
    while size > number * _LARGEST:
        number *= 2
    while number > FEWEST and size < number * _SMALLEST:
        number //= 2
    return number


def bucket_of(identity: str, buckets: int) -> int:
    """The bucket of a record with this id."""
    return zlib.crc32(identity.encode("utf-8", "surrogatepass")) & (buckets - 1)


def empty_size(number: int, buckets: int) -> int:
    """Bytes of a bucket that has no record."""
    return len(_head(number)) + len(_tail(number, buckets))


def render(records: Mapping[str, Record], number: int, buckets: int, *, first: bool) -> bytes:
    """A bucket's text. first: whether its first record is the first of the whole file."""
    lines = [json.dumps(records[identity], separators=(",", ":")).encode("ascii") + b"\n" for identity in sorted(records)]
    text = b"," + b",".join(lines) if lines else b""
    if first and lines:
        text = b" " + text[1:]
    return _head(number) + text + _tail(number, buckets)


def parse(text: bytes, number: int, buckets: int) -> dict[str, Record]:
    """The records of a bucket by id. Raises InvalidInput if it has another form than `render` gives it."""
    head, tail = _head(number), _tail(number, buckets)
    if len(text) < len(head) + len(tail) or not text.startswith(head) or not text.endswith(tail):
        raise InvalidInput("a bucket of records lacks its beginning or its end")
    lines = text[len(head) : len(text) - len(tail)].splitlines()
    if not all(line[:1] in (b",", b" ") for line in lines):
        raise InvalidInput("a bucket of records has a line that is none")
    records = by_identity([_json(line[1:]) for line in lines])
    if any(bucket_of(identity, buckets) != number for identity in records):
        raise InvalidInput("a bucket has a record that belongs into another one")
    return records


def parse_array(text: bytes) -> dict[str, Record]:
    """The records of a whole file, whoever wrote it, by id. Raises InvalidInput."""
    content = _json(text) if text.strip() else []
    if not isinstance(content, list):
        raise InvalidInput("a file of records is no JSON array")
    return by_identity(content)


def by_identity(records: list[Any]) -> dict[str, Record]:
    """Records by id; of several with one id the first counts, as for who reads the file. Raises InvalidInput."""
    found: dict[str, Record] = {}
    for record in records:
        identity = record.get("id") if isinstance(record, dict) else None
        if not isinstance(identity, str):
            raise InvalidInput("a record has no text as its id")
        found.setdefault(identity, record)
    return found


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"a record is not JSON: {error}") from error


def _head(number: int) -> bytes:
    return b"\n" if number else b"[\n"


def _tail(number: int, buckets: int) -> bytes:
    return b"]\n" if number == buckets - 1 else b""
