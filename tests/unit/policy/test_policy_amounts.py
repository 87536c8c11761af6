"""Sizes of images, amounts a day, room on the disk."""

from __future__ import annotations

import pytest

from mirror.oci.manifest import OCI_MANIFEST, Descriptor, ImageManifest
from publisher.errors import AgainstPolicy
from publisher.policy.daily import DAY, DailyLimits, Published
from publisher.policy.sizes import ImageLimits, Measure
from publisher.policy.watermark import Watermark
from tests.support.state import digest_of

NOW = 1_700_000_000.0


def manifest(*sizes: int) -> ImageManifest:
    config, *layers = (Descriptor("x/y", digest_of(str(size)), size) for size in sizes)
    return ImageManifest(OCI_MANIFEST, config, tuple(layers))


def test_an_image_at_its_limits_passes_and_beyond_them_is_refused_by_name() -> None:
    limits = ImageLimits(layers=2, compressed_bytes=100)
    limits.check_manifest(manifest(10, 40, 50))
    with pytest.raises(AgainstPolicy, match=r"101 bytes.*'compressed_bytes' is 100.*operator"):
        limits.check_manifest(manifest(10, 40, 51))
    with pytest.raises(AgainstPolicy, match=r"3 layers.*'layers' is 2"):
        limits.check_manifest(manifest(1, 1, 1, 1))


def test_layers_add_up() -> None:
    measure = Measure(ImageLimits(expanded_bytes=100, entries=10))
    measure.add(60, 4)
    measure.add(40, 6)
    with pytest.raises(AgainstPolicy, match="'expanded_bytes' is 100"):
        measure.add(1, 0)
    with pytest.raises(AgainstPolicy, match="'entries' is 10"):
        Measure(ImageLimits(entries=10)).add(0, 11)


def test_there_is_room_as_long_as_the_day_has_some() -> None:
    limits = DailyLimits(images=2, compressed_bytes=100)
    assert limits.wait([], 50, NOW) == 0
    assert limits.wait([Published(NOW - 10, 50)], 50, NOW) == 0
    assert limits.wait([Published(NOW - 10, 50)], 51, NOW) == DAY - 10


def test_the_wait_ends_when_enough_of_the_oldest_no_longer_count() -> None:
    limits = DailyLimits(images=3, compressed_bytes=100)
    published = [Published(NOW - 10, 40), Published(NOW - 30, 10), Published(NOW - 20, 40)]
    assert limits.wait(published, 5, NOW) == DAY - 30
    assert limits.wait(published, 30, NOW) == DAY - 20
    for wait in (DAY - 30, DAY - 20):
        assert limits.wait(published, 5, NOW + wait) == 0


def test_yesterday_does_not_count_and_giants_pass_alone() -> None:
    limits = DailyLimits(images=1, compressed_bytes=100)
    assert limits.wait([Published(NOW - DAY, 100)], 100, NOW) == 0
    assert limits.wait([], 1000, NOW) == 0
    assert limits.wait([Published(NOW - 1, 0)], 1000, NOW) == DAY - 1


def test_a_disk_closes_below_the_low_mark_and_opens_at_the_high_one() -> None:
    marks = Watermark(low=10, high=20)
    closed, seen = False, []
    for free in (15, 10, 9, 15, 19, 20, 15, 10):
        closed = marks.is_closed(free, was_closed=closed)
        seen.append(closed)
    assert seen == [False, False, True, True, True, False, False, False]
