"""What is counted, for Prometheus. One object a process, handed to whoever counts; there is no global registry.

Labels come from short fixed lists or from the configuration, never from a request, so that no client can make the series grow.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import Metric
from prometheus_client.process_collector import ProcessCollector

from mirror.fetch.result import FillResult
from mirror.jobs.conditions import Condition
from mirror.jobs.model import State
from mirror.snapshot import Snapshot, exposition, snapshot_of
from mirror.upstream.model import UpstreamRequest

_SECONDS = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0, 300.0)
_AGES = (60.0, 600.0, 3600.0, 6 * 3600.0, 86_400.0, 7 * 86_400.0, 30 * 86_400.0)

PUBLIC_STORE = "public"
"""What a store is called in metrics: the one of all that is public."""


def private_store(upstream: str) -> str:
    """The same of what clients' own accounts read at an upstream."""
    return f"private/{upstream}"


class _Registry(CollectorRegistry):
    """Without the `_created` times that the library adds to every counter: they double the text, and nobody asks for them."""

    def collect(self) -> Iterator[Metric]:
        for metric in super().collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric


class Metrics:
    """All counters of the mirror. The methods take no time and never fail."""

    def __init__(self, *, process: bool = True) -> None:
        """process: whether to add this process's memory, CPU seconds and open files."""
        self.registry = registry = _Registry()
        self._requests = Counter(
            "debark_requests",
            "Answered requests by kind, status and cache result",
            ("kind", "status", "cache"),
            registry=registry,
        )
        self._bytes = Counter("debark_response_bytes", "Body bytes sent to clients", ("kind", "cache"), registry=registry)
        self._seconds = Histogram(
            "debark_request_seconds", "From request to the last byte", ("kind",), registry=registry, buckets=_SECONDS
        )
        self._series: dict[tuple[str, int, str], tuple[Counter, Counter, Histogram]] = {}
        self._fills = Counter(
            "debark_fills", "Blobs fetched from upstreams by how the fetch ended", ("result",), registry=registry
        )
        self._upstream = Counter(
            "debark_upstream_requests",
            "Requests for manifests and blobs to upstreams; status 0: no answer",
            ("upstream", "method", "kind", "status"),
            registry=registry,
        )
        self._circuits = Gauge(
            "debark_upstream_circuit_open",
            "1 while an upstream (or name@host: a mirror of it) is left alone after failures",
            ("upstream",),
            registry=registry,
        )
        self._openings = Counter("debark_upstream_circuit_openings", "How often that began", ("upstream",), registry=registry)
        self._transfers = Gauge(
            "debark_upstream_transfers", "Blobs being fetched, and waiting for it", ("upstream", "stage"), registry=registry
        )
        self._budget_limit = Gauge(
            "debark_upstream_pull_limit", "Pulls that an upstream grants in one window", ("upstream",), registry=registry
        )
        self._budget_remaining = Gauge(
            "debark_upstream_pulls_remaining",
            "Pulls that it still grants, when it last said so",
            ("upstream",),
            registry=registry,
        )
        self._stale = Histogram(
            "debark_stale_answer_age_seconds",
            "Stale manifests by the time since the upstream gave them",
            registry=registry,
            buckets=_AGES,
        )
        self._pull_events_dropped = Counter(
            "debark_pull_events_dropped", "Pulls that were not recorded because the queue was full", registry=registry
        )
        self._log_lines_dropped = Counter("debark_log_lines_dropped", "Lines lost by log", ("log",), registry=registry)
        self._jobs = Gauge("debark_publish_jobs", "Images by state of publishing", ("state",), registry=registry)
        self._conditions = Gauge(
            "debark_publisher_condition",
            "1 while a publisher has this trouble; /healthz says more",
            ("condition",),
            registry=registry,
        )
        self._connections = Gauge("debark_open_connections", "Connections of clients, by worker process", registry=registry)
        self._filling = Gauge("debark_fills_under_way", "Blobs on their way in, by worker process", registry=registry)
        self._free = Gauge("debark_disk_free_bytes", "Free space where the data directory is", registry=registry)
        self._evicted = Counter(
            "debark_blobs_evicted",
            "Blobs removed to have room; store: public, or private/<upstream>",
            ("store",),
            registry=registry,
        )
        self._evicted_bytes = Counter("debark_evicted_bytes", "Bytes in them", ("store",), registry=registry)
        self._stored = Gauge(
            "debark_stored_blobs", "Blobs in the store, when they were last counted", ("store",), registry=registry
        )
        self._stored_bytes = Gauge("debark_stored_bytes", "Bytes in them", ("store",), registry=registry)
        if process:
            ProcessCollector(registry=registry)
        for state in State:
            self._jobs.labels(state.value).set(0)

    def request(self, *, kind: str, status: int, cache: str, size: int, seconds: float) -> None:
        """One answered request: size in body bytes, kind and cache as in the access log."""
        key = (kind, status, cache)
        series = self._series.get(key)
        if series is None:
            # Looking them up by their labels takes longer than counting.
            series = self._series[key] = (
                self._requests.labels(kind, str(status), cache),
                self._bytes.labels(kind, cache),
                self._seconds.labels(kind),
            )
        requests, sent, durations = series
        requests.inc()
        sent.inc(size)
        durations.observe(seconds)

    def fill(self, result: FillResult) -> None:
        """A fetch of a blob ended."""
        self._fills.labels(result).inc()

    def evicted(self, store: str, files: int, size: int) -> None:
        """Blobs went to have room; size in bytes. store: see `PUBLIC_STORE`, `private_store`."""
        self._evicted.labels(store).inc(files)
        self._evicted_bytes.labels(store).inc(size)

    def stored(self, store: str, count: int, size: int) -> None:
        """The blobs in a store were counted; size in bytes."""
        self._stored.labels(store).set(count)
        self._stored_bytes.labels(store).set(size)

    def upstream_request(self, request: UpstreamRequest) -> None:
        """One request to an upstream came to its end."""
        self._upstream.labels(request.upstream, request.method, request.kind, str(request.status)).inc()

    def watch_upstream(self, upstream: str, running: Callable[[], float], waiting: Callable[[], float]) -> None:
        """Ask these functions for the numbers of transfers whenever the metrics are read."""
        self._circuits.labels(upstream).set(0)
        self._transfers.labels(upstream, "running").set_function(running)
        self._transfers.labels(upstream, "waiting").set_function(waiting)

    def circuit(self, upstream: str, *, is_open: bool) -> None:
        """An upstream is left alone from now on, or is not any more."""
        self._circuits.labels(upstream).set(is_open)
        if is_open:
            self._openings.labels(upstream).inc()

    def upstream_budget(self, upstream: str, limit: int, remaining: int) -> None:
        """An upstream said how many pulls it grants the mirror's own account or address."""
        self._budget_limit.labels(upstream).set(limit)
        self._budget_remaining.labels(upstream).set(remaining)

    def stale_answer(self, age: float) -> None:
        """A manifest was given out that the upstream gave `age` seconds ago and could not confirm now."""
        self._stale.observe(age)

    def pull_event_dropped(self) -> None:
        """A pull was served, but not recorded."""
        self._pull_events_dropped.inc()

    def log_line_dropped(self, log: Literal["debark", "access"]) -> None:
        """A line could not be written."""
        self._log_lines_dropped.labels(log).inc()

    def publish_jobs(self, counts: Mapping[State, int]) -> None:
        """How many images are in each state now; states that are missing count as none."""
        for state in State:
            self._jobs.labels(state.value).set(counts.get(state, 0))

    def publisher_conditions(self, found: Container[Condition]) -> None:
        """What is wrong with publishers now."""
        for condition in Condition:
            self._conditions.labels(condition.value).set(condition in found)

    def watch_disk(self, free_bytes: Callable[[], float]) -> None:
        """Ask this function for the free space whenever the metrics are read."""
        self._free.set_function(free_bytes)

    def watch_connections(self, number: Callable[[], float]) -> None:
        """Ask this function for the number of clients' connections whenever the metrics are read."""
        self._connections.set_function(number)

    def watch_fills(self, number: Callable[[], float]) -> None:
        """Ask this function for the number of blobs on their way in whenever the metrics are read."""
        self._filling.set_function(number)

    def snapshot(self) -> Snapshot:
        """Everything as it is now, to be added to that of other processes."""
        return snapshot_of(self.registry.collect())

    def render(self) -> tuple[bytes, str]:
        """The text exposition of this process alone, and its Content-Type."""
        return exposition(self.snapshot())
