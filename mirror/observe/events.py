"""Pulls as records, and the queue in which they wait to be looked at. Putting one in never waits and never fails."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from mirror.oci.digest import Digest
from mirror.oci.reference import ImageReference


@dataclass(frozen=True, slots=True)
class Pull:
    """A manifest or index was served.

    at: Unix seconds. image: the name as it was asked for, by tag or digest. digest: of what was served. raw: its bytes; None for
    a HEAD, which says that the image is in use but not that somebody wants it. times: how often, where several came at once.
    """

    at: float
    image: ImageReference
    digest: Digest
    media_type: str
    raw: bytes | None
    times: int = 1


@dataclass(slots=True)
class _Waiting:
    pull: Pull
    times: int


class PullQueue:
    """A first-in first-out queue of bounded length and weight. What it accepted it keeps; what it cannot take it counts.

    Not safe between threads: producers and the consumer share one event loop.
    """

    def __init__(
        self, *, pulls: int = 10_000, manifest_bytes: int = 64 * 2**20, on_drop: Callable[[], None] = lambda: None
    ) -> None:
        """pulls: how many wait at the most. manifest_bytes: how many bytes of manifests they hold at the most.

        on_drop: called for each pull that finds no room.
        """
        self._on_drop = on_drop
        self._limit = pulls
        self._byte_limit = manifest_bytes
        self._waiting: deque[_Waiting] = deque()
        # By identity, those that nobody has looked at yet: the same object that is put again takes no more room.
        self._unseen: dict[int, _Waiting] = {}
        self._bytes = 0
        self._arrived = asyncio.Event()
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, pull: Pull) -> bool:
        """Accept the pull, or drop and count it if the queue is full; whether it was accepted."""
        same = self._unseen.get(id(pull))
        if same is not None:
            same.times += pull.times
            return True
        weight = _weight(pull)
        if len(self._waiting) >= self._limit or self._bytes + weight > self._byte_limit:
            self.dropped += 1
            self._on_drop()
            return False
        waiting = self._unseen[id(pull)] = _Waiting(pull, pull.times)
        self._waiting.append(waiting)
        self._bytes += weight
        self._arrived.set()
        return True

    async def peek(self, limit: int) -> list[Pull]:
        """The oldest pulls, waiting until there is one. They stay in the queue until `discard`."""
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
        self._unseen.clear()
        return [_counted(self._waiting[position]) for position in range(min(limit, len(self._waiting)))]

    def discard(self, number: int) -> None:
        """Remove so many of the oldest pulls: they are dealt with."""
        for _ in range(number):
            self._bytes -= _weight(self._waiting.popleft().pull)


def _counted(waiting: _Waiting) -> Pull:
    return waiting.pull if waiting.times == waiting.pull.times else replace(waiting.pull, times=waiting.times)


def _weight(pull: Pull) -> int:
    return len(pull.raw) if pull.raw is not None else 0
