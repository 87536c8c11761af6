"""One line of the access log: a JSON object for each answered request. Pure.

Format version 1. All keys are always there; an unknown text is "". A reader takes lines with further keys, and refuses other
versions. The line is ASCII without control characters whatever a client sent: JSON escapes the rest, so no value can end a line
or begin another one. Texts that clients choose are cut to `LONGEST_TEXT` characters.

    v           1
    time        when the request came, UTC, milliseconds: 2026-11-23T06:15:29.182Z
    client      address of the client
    user        name under which it is known to the mirror; "" for anonymous
    method      GET, HEAD, ...
    path        of the URL, without the query
    kind        manifest, blob, ping (GET /v2/), cvmfs, status, other
    upstream    canonical name of the registry
    repository  canonical name
    reference   tag or digest as it was asked for
    digest      what was served for it
    type        media type that was served
    status      HTTP status
    bytes       of the body, as sent
    seconds     from request to last byte
    cache       hit (from the store), stale (last known answer, the upstream had none), miss (fetched for this request),
                joined (from a fetch under way for somebody else), redirected (the client was sent to another server, and
                "bytes" is 0); "" where no cache is concerned
    age         seconds since the upstream gave a stale manifest; null for other answers
    state       publish state of the image at that time
    agent       User-Agent
    id          request id, as in the other logs
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any, TypeVar

import orjson

from mirror.errors import InvalidInput
from mirror.fetch.result import CacheResult

VERSION = 1
LONGEST_TEXT = 1024
LONGEST_LINE = 16 * LONGEST_TEXT * 12
"""Bytes; no line that `format_line` makes is longer (a character outside the BMP takes 12)."""


class RequestKind(StrEnum):
    """What a request was for."""

    MANIFEST = "manifest"
    BLOB = "blob"
    TAGS = "tags"
    REFERRERS = "referrers"
    PING = "ping"
    CVMFS = "cvmfs"
    STATUS = "status"
    OTHER = "other"


@dataclass(slots=True)
class AccessRecord:
    """One answered request; the module says what the fields mean. Not to be changed; frozen, it would take 2 us more to make."""

    time: float
    """Unix seconds."""
    client: str
    method: str
    path: str
    kind: RequestKind
    status: int
    size: int
    """Bytes of the body as sent."""
    seconds: float
    user: str = ""
    upstream: str = ""
    repository: str = ""
    reference: str = ""
    digest: str = ""
    media_type: str = ""
    cache: CacheResult | None = None
    """None where no cache is concerned."""
    age: float | None = None
    """Seconds; None where the answer is not stale."""
    state: str = ""
    agent: str = ""
    request_id: str = ""


def format_line(record: AccessRecord) -> str:
    """The line for a record, without line end."""
    seconds, milliseconds = divmod(round(record.time * 1000), 1000)
    document = {
        "v": VERSION,
        "time": f"{_second(seconds)}.{milliseconds:03d}Z",
        "client": record.client[:LONGEST_TEXT],
        "user": record.user[:LONGEST_TEXT],
        "method": record.method[:LONGEST_TEXT],
        "path": record.path[:LONGEST_TEXT],
        "kind": record.kind.value,
        "upstream": record.upstream[:LONGEST_TEXT],
        "repository": record.repository[:LONGEST_TEXT],
        "reference": record.reference[:LONGEST_TEXT],
        "digest": record.digest[:LONGEST_TEXT],
        "type": record.media_type[:LONGEST_TEXT],
        "status": record.status,
        "bytes": record.size,
        "seconds": round(record.seconds, 6),
        "cache": record.cache or "",
        "age": None if record.age is None else round(record.age, 3),
        "state": record.state[:LONGEST_TEXT],
        "agent": record.agent[:LONGEST_TEXT],
        "id": record.request_id[:LONGEST_TEXT],
    }
    try:
        line = orjson.dumps(document).decode()
    except orjson.JSONEncodeError:
        line = ""  # Bytes that are no text came in as lone surrogates.
    # The fast encoder writes UTF-8; what is not ASCII is rare.
    return line if line and line.isascii() else json.dumps(document, separators=(",", ":"))


@lru_cache(maxsize=16)
def _second(seconds: int) -> str:
    """Unix seconds as date and time; thousands of lines may be of one second."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def parse_line(line: str | bytes) -> AccessRecord:
    """The record of a line. Raises InvalidInput, saying what is wrong with it."""
    try:
        document = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidInput("not a JSON object")
    version = document.get("v")
    if version != VERSION or isinstance(version, bool):
        raise InvalidInput(f"access log version {version!r}; this debark reads version {VERSION}")
    return AccessRecord(
        time=_time(document),
        client=_text(document, "client"),
        method=_text(document, "method"),
        path=_text(document, "path"),
        kind=_choice(RequestKind, document, "kind"),
        status=_count(document, "status"),
        size=_count(document, "bytes"),
        seconds=_seconds(document, "seconds"),
        user=_text(document, "user"),
        upstream=_text(document, "upstream"),
        repository=_text(document, "repository"),
        reference=_text(document, "reference"),
        digest=_text(document, "digest"),
        media_type=_text(document, "type"),
        cache=_choice(CacheResult, document, "cache") if document.get("cache") != "" else None,
        age=_seconds(document, "age") if document.get("age") is not None else None,
        state=_text(document, "state"),
        agent=_text(document, "agent"),
        request_id=_text(document, "id"),
    )


Choice = TypeVar("Choice", RequestKind, CacheResult)


def _choice(kind: type[Choice], document: dict[str, Any], key: str) -> Choice:
    try:
        return kind(_text(document, key))
    except ValueError as error:
        raise InvalidInput(f"'{key}' is {document[key]!r:.80}") from error


def _text(document: dict[str, Any], key: str) -> str:
    value = document.get(key)
    if not isinstance(value, str):
        raise InvalidInput(f"'{key}' is not a text")
    return value


def _count(document: dict[str, Any], key: str) -> int:
    value = document.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 62:
        raise InvalidInput(f"'{key}' is not a count")
    return value


def _seconds(document: dict[str, Any], key: str) -> float:
    value = document.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < math.inf:
        raise InvalidInput(f"'{key}' is not a number of seconds")
    return float(value)


def _time(document: dict[str, Any]) -> float:
    text = _text(document, "time")
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise InvalidInput("'time' has no time zone")
        return moment.timestamp()
    except (ValueError, OverflowError) as error:
        raise InvalidInput("'time' is not a time") from error
