from __future__ import annotations

import asyncio

from mirror.observe.events import Pull, PullQueue
from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_MANIFEST
from mirror.oci.reference import ImageReference


def _pull(number: int, raw: bytes | None = b"{}") -> Pull:
    return Pull(float(number), ImageReference.parse(f"debian:{number}"), Digest.of(b""), OCI_MANIFEST, raw)


async def test_pulls_come_out_in_order_and_stay_until_they_are_dealt_with() -> None:
    queue = PullQueue()
    for number in range(5):
        assert queue.put(_pull(number))
    assert await queue.peek(3) == [_pull(0), _pull(1), _pull(2)]
    assert len(queue) == 5
    queue.discard(3)
    assert await queue.peek(3) == [_pull(3), _pull(4)]


async def test_the_same_pull_again_takes_no_room_but_counts() -> None:
    queue = PullQueue(pulls=1)
    pull = _pull(0)
    for _ in range(3):
        assert queue.put(pull)
    assert [found.times for found in await queue.peek(9)] == [3]
    assert not queue.put(pull)  # the three are being recorded; this one would be lost with them
    queue.discard(1)
    assert queue.put(pull)
    assert [found.times for found in await queue.peek(9)] == [1]


async def test_a_full_queue_drops_and_counts_what_comes_and_keeps_what_it_has() -> None:
    queue = PullQueue(pulls=2)
    assert [queue.put(_pull(number)) for number in range(5)] == [True, True, False, False, False]
    assert queue.dropped == 3
    assert [pull.at for pull in await queue.peek(9)] == [0, 1]
    queue.discard(1)
    assert queue.put(_pull(9))


async def test_the_bytes_of_manifests_are_bounded_too() -> None:
    queue = PullQueue(manifest_bytes=100)
    assert queue.put(_pull(0, b"x" * 60))
    assert not queue.put(_pull(1, b"x" * 60))
    assert queue.put(_pull(2, None))
    queue.discard(1)
    assert queue.put(_pull(3, b"x" * 60))


async def test_the_consumer_sleeps_until_a_pull_comes() -> None:
    queue = PullQueue()
    waiting = asyncio.create_task(queue.peek(10))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    queue.put(_pull(1))
    assert await waiting == [_pull(1)]
    queue.discard(1)
    again = asyncio.create_task(queue.peek(10))
    await asyncio.sleep(0.01)
    assert not again.done()
    queue.put(_pull(2))
    assert await again == [_pull(2)]


async def test_each_pull_without_room_is_reported() -> None:
    lost: list[None] = []
    queue = PullQueue(pulls=1, on_drop=lambda: lost.append(None))
    for _ in range(3):
        queue.put(_pull(0))
    assert (len(lost), queue.dropped) == (2, 2)
