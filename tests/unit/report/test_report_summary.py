"""What the totals of a report mean."""

from dataclasses import replace

from mirror.fetch.result import CacheResult
from mirror.report.summary import Summary
from tests.support.access_records import CHILD, INDEX, LAYER, MANIFEST, NOON, PING


def summarised(*records: object, limit: int = 100) -> Summary:
    summary = Summary(limit=limit)
    for record in records:
        summary.add(record)  # type: ignore[arg-type]
    return summary


def images(summary: Summary) -> dict[str, tuple[int, int]]:
    return {name: (total.pulls, total.size) for name, total in summary.by_image.items()}


def test_index_and_image_are_one_pull_of_the_tag_and_blobs_belong_to_it() -> None:
    summary = summarised(PING, INDEX, CHILD, LAYER, LAYER)
    assert summary.all.pulls == 1
    assert images(summary) == {"docker.io/library/debian:12": (1, 102_000)}


def test_head_then_get_by_digest_is_one_pull_of_the_tag() -> None:
    assert images(summarised(replace(MANIFEST, method="HEAD", size=0), CHILD)) == {"docker.io/library/debian:12": (1, 1000)}


def test_head_not_found_and_not_modified_are_no_pulls() -> None:
    summary = summarised(replace(MANIFEST, method="HEAD"), replace(MANIFEST, status=404), replace(MANIFEST, status=304))
    assert summary.all.pulls == 0
    assert summary.by_status == {2: 1, 3: 1, 4: 1}


def test_failed_requests_make_no_image() -> None:
    assert images(summarised(replace(MANIFEST, status=404, reference="never-was"))) == {}


def test_another_image_by_digest_is_not_counted_for_the_last_tag() -> None:
    other = "sha256:" + "dd" * 32
    summary = summarised(MANIFEST, replace(CHILD, reference=other, digest=other), LAYER)
    assert images(summary) == {"docker.io/library/debian:12": (1, 1000), f"docker.io/library/debian@{other}": (1, 51_000)}


def test_clients_are_told_apart_and_tags_forgotten_after_an_hour() -> None:
    summary = summarised(INDEX, replace(LAYER, client="192.0.2.8"), replace(LAYER, time=NOON + 3601))
    assert images(summary) == {"docker.io/library/debian:12": (0, 1000), "docker.io/library/debian": (0, 100_000)}


def test_users_go_by_name_and_anonymous_ones_by_address() -> None:
    summary = summarised(MANIFEST, replace(MANIFEST, user="alice"), replace(MANIFEST, user="alice", client="192.0.2.9"))
    assert {name: total.pulls for name, total in summary.by_user.items()} == {"192.0.2.7": 1, "alice": 2}


def test_days_are_utc() -> None:
    summary = summarised(MANIFEST, replace(MANIFEST, time=NOON + 43199), replace(MANIFEST, time=NOON + 43200))
    assert {name: total.pulls for name, total in summary.by_day.items()} == {"2026-11-23": 2, "2026-11-24": 1}


def test_share_served_from_cache_counts_hits_and_stale_answers() -> None:
    summary = summarised(
        replace(LAYER, cache=CacheResult.HIT, size=600),
        replace(LAYER, cache=CacheResult.STALE, size=150),
        replace(LAYER, cache=CacheResult.MISS, size=200),
        replace(LAYER, cache=CacheResult.JOINED, size=50),
        replace(LAYER, cache=CacheResult.MISS, size=9999, status=503),
        PING,
    )
    assert summary.cached_requests == 0.5
    assert summary.cached_bytes == 0.75
    assert summarised(PING).cached_bytes is None


def test_pulls_of_published_images_are_counted() -> None:
    assert summarised(MANIFEST, replace(MANIFEST, state="published"), replace(INDEX, state="published")).published_pulls == 1


def test_memory_is_bounded_and_the_rest_is_added_up() -> None:
    summary = summarised(*(replace(MANIFEST, reference=f"t{n}", client=f"c{n}") for n in range(50)), limit=10)
    assert len(summary.by_image) == 10
    assert summary.by_image.others.pulls == 40
    assert summary.by_user.others.pulls == 40


def test_top_is_by_pulls_then_bytes() -> None:
    summary = summarised(
        replace(MANIFEST, reference="few"),
        *[replace(MANIFEST, reference="many")] * 2,
        replace(MANIFEST, reference="big", size=10**9),
    )
    assert [name.rpartition(":")[2] for name, _ in summary.by_image.top(3)] == ["many", "big", "few"]
