"""Metrics as Prometheus reads them."""

from prometheus_client.parser import text_string_to_metric_families

from mirror.jobs.model import State
from mirror.metrics import Metrics
from mirror.upstream.model import UpstreamRequest


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text, content_type = metrics.render()
    assert content_type.startswith("text/plain")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_requests_are_counted_by_kind_status_and_cache_result() -> None:
    metrics = Metrics(process=False)
    for _ in range(2):
        metrics.request(kind="blob", status=200, cache="hit", size=1000, seconds=0.003)
    metrics.request(kind="manifest", status=404, cache="miss", size=80, seconds=3)
    found = samples(metrics)
    assert found["debark_requests_total", (("cache", "hit"), ("kind", "blob"), ("status", "200"))] == 2
    assert found["debark_response_bytes_total", (("cache", "hit"), ("kind", "blob"))] == 2000
    assert found["debark_request_seconds_bucket", (("kind", "manifest"), ("le", "2.0"))] == 0
    assert found["debark_request_seconds_count", (("kind", "manifest"),)] == 1
    assert not [name for name, _ in found if name.endswith("_created")]


def test_work_on_upstreams_and_losses_are_counted() -> None:
    metrics = Metrics(process=False)
    metrics.fill("stored")
    metrics.upstream_request(UpstreamRequest("docker.io", "GET", "blob", 0))
    metrics.pull_event_dropped()
    metrics.log_line_dropped("access")
    found = samples(metrics)
    assert found["debark_fills_total", (("result", "stored"),)] == 1
    labels = (("kind", "blob"), ("method", "GET"), ("status", "0"), ("upstream", "docker.io"))
    assert found["debark_upstream_requests_total", labels] == 1
    assert found["debark_pull_events_dropped_total", ()] == 1
    assert found["debark_log_lines_dropped_total", (("log", "access"),)] == 1


def test_states_that_empty_go_back_to_zero_and_the_disk_is_asked_when_read() -> None:
    metrics = Metrics(process=False)
    free = [5.0]
    metrics.watch_disk(lambda: free[0])
    metrics.publish_jobs({State.QUEUED: 3})
    metrics.publish_jobs({State.PUBLISHED: 4})
    free[0] = 7.0
    found = samples(metrics)
    assert found["debark_publish_jobs", (("state", "queued"),)] == 0
    assert found["debark_publish_jobs", (("state", "published"),)] == 4
    assert found["debark_disk_free_bytes", ()] == 7


def test_two_objects_do_not_share_counts() -> None:
    first, second = Metrics(process=True), Metrics(process=True)
    first.pull_event_dropped()
    assert samples(second)["debark_pull_events_dropped_total", ()] == 0
    assert ("process_resident_memory_bytes", ()) in samples(second)
