"""Metrics of several processes as one."""

import json

from prometheus_client.parser import text_string_to_metric_families

from mirror.jobs.model import State
from mirror.metrics import PUBLIC_STORE, Metrics
from mirror.snapshot import Family, Snapshot, added, exposition, lasting, of_worker


def values(snapshot: Snapshot) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text, _ = exposition(snapshot)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def of(metrics: Metrics, worker: int) -> Snapshot:
    """As it comes over the channel."""
    told: Snapshot = json.loads(json.dumps(of_worker(metrics.snapshot(), str(worker))))
    return told


def two() -> tuple[Metrics, Metrics]:
    first, second = Metrics(), Metrics()
    for metrics, times in ((first, 2), (second, 3)):
        for _ in range(times):
            metrics.request(kind="blob", status=200, cache="hit", size=10, seconds=0.01)
    first.publish_jobs({State.QUEUED: 4})
    first.stored(PUBLIC_STORE, 9, 900)
    first.watch_connections(lambda: 5)
    second.watch_connections(lambda: 6)
    return first, second


def test_counters_and_histograms_are_added_up() -> None:
    first, second = two()
    found = values(added([of(first, 0), of(second, 1)]))

    assert found["debark_requests_total", (("cache", "hit"), ("kind", "blob"), ("status", "200"))] == 5
    assert found["debark_response_bytes_total", (("cache", "hit"), ("kind", "blob"))] == 50
    assert found["debark_request_seconds_count", (("kind", "blob"),)] == 5
    assert found["debark_request_seconds_bucket", (("kind", "blob"), ("le", "0.02"))] == 5


def test_what_one_worker_knows_for_all_is_not_added_up() -> None:
    first, second = two()
    found = values(added([of(second, 1), of(first, 0)]))

    assert found["debark_publish_jobs", (("state", "queued"),)] == 4
    assert found["debark_stored_bytes", (("store", "public"),)] == 900


def test_what_each_process_has_for_itself_tells_of_which_worker() -> None:
    first, second = two()
    found = values(added([of(first, 0), of(second, 1)]))

    assert found["debark_open_connections", (("worker", "0"),)] == 5
    assert found["debark_open_connections", (("worker", "1"),)] == 6
    for worker in "01":
        assert found["process_resident_memory_bytes", (("worker", worker),)] > 0
        assert ("process_cpu_seconds_total", (("worker", worker),)) in found
    assert ("debark_open_connections", ()) not in found


def test_a_process_that_has_ended_leaves_its_counters_and_nothing_else() -> None:
    first, second = two()
    found = values(added([of(first, 0), lasting(of(second, 1))]))

    assert found["debark_requests_total", (("cache", "hit"), ("kind", "blob"), ("status", "200"))] == 5
    assert ("debark_open_connections", (("worker", "1"),)) not in found
    assert ("process_cpu_seconds_total", (("worker", "1"),)) not in found


def test_each_gauge_has_its_own_rule() -> None:
    def gauge(name: str, value: float) -> Family:
        return {"name": name, "help": "", "type": "gauge", "samples": [{"name": name, "labels": {}, "value": value}]}

    names = ("debark_upstream_transfers", "debark_upstream_pulls_remaining", "debark_disk_free_bytes")
    found = values(added([[gauge(name, value) for name in names] for value in (3, 5)]))

    assert [found[name, ()] for name in names] == [8, 3, 5]
