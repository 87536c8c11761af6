"""From access records to totals. Pure, and bounded in memory whatever a log holds.

What counts as a pull: a manifest GET that was answered 200 with something other than an index. Clients of a multi-platform image
get the index first and one image manifest then: that is one pull. A HEAD is no pull, nor is a repeated start of an image that the
client still has, for which nothing is fetched. A client that fetches the manifests of several platforms makes several pulls.

Bytes are those of manifests and blobs as sent to clients, broken transfers included.

Which image: a manifest names its image by tag, or by digest. Blobs, and the manifests that an index leads to, belong to the image
that the same client (address and user) asked for last in that repository, within an hour; failing that, to the repository as a
whole. Clients behind one address that pull two tags of one repository at the same time may be mixed up, never two repositories.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Generic, TypeVar

from mirror.fetch.result import CacheResult
from mirror.oci.manifest import INDEX_TYPES
from mirror.report.accesslog import AccessRecord, RequestKind

OTHERS = "(others)"
"""The name under which everything is added up that came after a table was full."""

_CONTENT = frozenset({RequestKind.MANIFEST, RequestKind.BLOB})
_ATTRIBUTION_SECONDS = 3600.0

Measure = Callable[["Total"], int]

Key = TypeVar("Key", bound=Hashable)


@dataclass(slots=True)
class Total:
    """Pulls, requests for content, and body bytes sent for them."""

    pulls: int = 0
    requests: int = 0
    size: int = 0

    def add(self, record: AccessRecord) -> None:
        """Count one request."""
        self.pulls += is_pull(record)
        self.requests += 1
        self.size += record.size


class Totals(Generic[Key]):
    """Totals by some key, of which there are at most `limit`; further keys are added up under one name."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._totals: dict[Key, Total] = {}
        self.others = Total()

    def of(self, key: Key) -> Total:
        """The total to add to."""
        total = self._totals.get(key)
        if total is None:
            if len(self._totals) >= self._limit:
                return self.others
            total = self._totals[key] = Total()
        return total

    def top(self, number: int) -> list[tuple[Key, Total]]:
        """The largest, by pulls and then by bytes."""
        return sorted(self._totals.items(), key=lambda item: (-item[1].pulls, -item[1].size, str(item[0])))[:number]

    def __len__(self) -> int:
        return len(self._totals)

    def items(self) -> Iterable[tuple[Key, Total]]:
        """All, in the order of their first appearance."""
        return self._totals.items()


@dataclass(slots=True)
class Summary:
    """Everything that a report tells of a log."""

    limit: int = 100_000
    """Most different images, users and days that are told apart."""
    all: Total = field(default_factory=Total)
    first: float | None = None
    """Time of the earliest request, Unix seconds."""
    last: float | None = None
    by_image: Totals[str] = field(init=False)
    by_user: Totals[str] = field(init=False)
    by_day: Totals[str] = field(init=False)
    by_cache: dict[CacheResult, Total] = field(init=False)
    by_status: dict[int, int] = field(default_factory=dict)
    """Requests for content by class of HTTP status: 2, 3, 4, 5."""
    published_pulls: int = 0
    """Pulls of images that were in /cvmfs already."""
    _asked: _LastAsked = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.by_image, self.by_user, self.by_day = Totals(self.limit), Totals(self.limit), Totals(self.limit)
        self.by_cache = {result: Total() for result in CacheResult}
        self._asked = _LastAsked(self.limit)

    def add(self, record: AccessRecord) -> None:
        """Count one request; those for anything but manifests and blobs are left out."""
        if record.kind not in _CONTENT:
            return
        self.first = record.time if self.first is None else min(self.first, record.time)
        self.last = record.time if self.last is None else max(self.last, record.time)
        self.by_status[record.status // 100] = self.by_status.get(record.status // 100, 0) + 1
        self.all.add(record)
        self.by_day.of(day(record.time)).add(record)
        self.by_user.of(record.user or record.client).add(record)
        if record.status < HTTPStatus.BAD_REQUEST:
            self.by_image.of(self._asked.image(record)).add(record)
            if record.cache is not None:
                self.by_cache[record.cache].add(record)
        self.published_pulls += is_pull(record) and record.state == "published"

    @property
    def cached_requests(self) -> float | None:
        """Share of requests served from the store, 0 to 1, of those that the mirror served itself; None without any."""
        return self._share(lambda total: total.requests)

    @property
    def cached_bytes(self) -> float | None:
        """The same of bytes."""
        return self._share(lambda total: total.size)

    def _share(self, measure: Measure) -> float | None:
        served = self.by_cache.keys() - {CacheResult.REDIRECTED}
        counted = {result: measure(self.by_cache[result]) for result in served}
        everything = sum(counted.values())
        return (counted[CacheResult.HIT] + counted[CacheResult.STALE]) / everything if everything else None


def is_pull(record: AccessRecord) -> bool:
    """Whether this request is the one that counts its pull."""
    return (
        record.kind is RequestKind.MANIFEST
        and record.method == "GET"
        and record.status == HTTPStatus.OK
        and record.media_type not in INDEX_TYPES
    )


def day(time: float) -> str:
    """The UTC day of a time in Unix seconds, such as `2026-11-23`."""
    return datetime.fromtimestamp(time, UTC).date().isoformat()


@dataclass(frozen=True, slots=True)
class _Asked:
    """The name by which a client asked for an image, when, and what it got."""

    image: str
    time: float
    digest: str
    is_index: bool

    def leads_to(self, record: AccessRecord) -> bool:
        """Whether this later request for content by digest belongs to it."""
        if abs(record.time - self.time) > _ATTRIBUTION_SECONDS:
            return False
        return record.kind is RequestKind.BLOB or self.is_index or record.digest == self.digest


class _LastAsked:
    """What each client last asked for in each repository; the least recent ones are forgotten beyond `limit`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._asked: OrderedDict[tuple[str, str, str, str], _Asked] = OrderedDict()

    def image(self, record: AccessRecord) -> str:
        """Name of the image that a request belongs to, as far as it can be known."""
        repository = f"{record.upstream}/{record.repository}"
        key = (record.client, record.user, record.upstream, record.repository)
        by_tag = record.kind is RequestKind.MANIFEST and ":" not in record.reference
        asked = self._asked.get(key)
        if not by_tag and asked is not None and asked.leads_to(record):
            return asked.image
        if record.kind is RequestKind.BLOB:
            return repository
        image = f"{repository}{':' if by_tag else '@'}{record.reference}"
        self._asked[key] = _Asked(image, record.time, record.digest, record.media_type in INDEX_TYPES)
        self._asked.move_to_end(key)
        if len(self._asked) > self._limit:
            self._asked.popitem(last=False)
        return image
