"""Metrics of several processes put together, so that whichever of them is asked answers for the server. Pure.

Counters and histograms are added up. What each process has for itself (memory, connections) gets its worker's number as a label.
Gauges of what goes on in each process are added up. What an upstream still grants is the least that any of them was told. Of any
other gauge the largest value counts: only one process looks after it, or all of them see the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypedDict

from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

_OF_EACH_WORKER = ("process_", "debark_open_connections", "debark_fills_under_way")
_ADDED = frozenset({"counter", "histogram"})
_ADDED_GAUGES = frozenset({"debark_upstream_transfers"})
_LEAST = frozenset({"debark_upstream_pulls_remaining"})


class Sample(TypedDict):
    """One value of a metric."""

    name: str
    labels: dict[str, str]
    value: float


class Family(TypedDict):
    """All values of a metric; type and help text as Prometheus has them."""

    name: str
    help: str
    type: str
    samples: list[Sample]


Snapshot = list[Family]
"""As JSON carries it."""


def snapshot_of(metrics: Iterable[Metric]) -> Snapshot:
    """What a registry collected."""
    return [
        {
            "name": metric.name,
            "help": metric.documentation,
            "type": metric.type,
            "samples": [{"name": sample.name, "labels": dict(sample.labels), "value": sample.value} for sample in metric.samples],
        }
        for metric in metrics
    ]


def of_worker(snapshot: Snapshot, worker: str) -> Snapshot:
    """What belongs to the process alone with its worker's label."""
    return [_labelled(family, worker) if _is_own(family) else family for family in snapshot]


def added(snapshots: Iterable[Snapshot]) -> Snapshot:
    """One snapshot of all of them, in the order of the first one's metrics."""
    families: dict[str, Family] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for family in (family for snapshot in snapshots for family in snapshot):
        name = family["name"]
        families.setdefault(name, family)
        put = _rule(family)
        found = values.setdefault(name, {})
        for sample in family["samples"]:
            key = sample["name"], tuple(sample["labels"].items())
            found[key] = put(found[key], float(sample["value"])) if key in found else float(sample["value"])
    return [{**family, "samples": list(_samples(values[name]))} for name, family in families.items()]


def lasting(snapshot: Snapshot) -> Snapshot:
    """What still counts when the process has ended: a counter never goes back."""
    return [family for family in snapshot if family["type"] in _ADDED and not _is_own(family)]


def exposition(snapshot: Snapshot) -> tuple[bytes, str]:
    """The text that Prometheus reads, and its Content-Type."""
    return generate_latest(_Collected(snapshot)), CONTENT_TYPE_LATEST


class _Collected(Collector):
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        for family in self._snapshot:
            metric = Metric(family["name"], family["help"], family["type"])
            for sample in family["samples"]:
                metric.add_sample(sample["name"], sample["labels"], sample["value"])
            yield metric


def _rule(family: Family) -> Callable[[float, float], float]:
    """What becomes of two values under the same labels."""
    if family["name"] in _LEAST:
        return min
    is_added = family["type"] in _ADDED or family["name"] in _ADDED_GAUGES
    return float.__add__ if is_added and not _is_own(family) else max


def _is_own(family: Family) -> bool:
    return family["name"].startswith(_OF_EACH_WORKER)


def _labelled(family: Family, worker: str) -> Family:
    samples: list[Sample] = [{**sample, "labels": {"worker": worker, **sample["labels"]}} for sample in family["samples"]]
    return {**family, "samples": samples}


def _samples(values: dict[tuple[str, tuple[tuple[str, str], ...]], float]) -> Iterable[Sample]:
    return [{"name": name, "labels": dict(labels), "value": value} for (name, labels), value in values.items()]
