"""Public links that lead to what their names stand for no more, because that is in another repository, or nowhere.

They are removed between the commits of images, never those that are being placed: a name may have come back meanwhile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from mirror.jobs.model import Leftover
from mirror.jobs.queue import Queue

_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Tidy:
    """Something to be committed that is no image: the removal of what is left over then."""


TIDY = Tidy()


def inside(leftover: Leftover) -> bytes:
    """The link's path below the root of its repository."""
    return leftover.path.removeprefix(f"/cvmfs/{leftover.fqrn}/").encode("utf-8")


class Leftovers:
    """What is to be removed from the repositories of one publisher. Not safe between threads."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._spared: Counter[Leftover] = Counter()

    @contextmanager
    def spared(self, fqrn: str, paths: Iterable[str]) -> Iterator[None]:
        """Keep links from being removed that are being placed, from before their commit until the state knows of it."""
        links = [Leftover(fqrn, path) for path in paths]
        self._spared.update(links)
        try:
            yield
        finally:
            self._spared -= Counter(links)

    async def of(self, fqrn: str) -> list[Leftover]:
        """What may be removed from this repository now, if no other commit begins before. Raises Unavailable."""
        # What is not spared here is placed only after this, or is known to the state already, which is asked after this.
        spared = set(self._spared)
        return [leftover for leftover in await self._queue.leftovers([fqrn], _AT_ONCE) if leftover not in spared]

    async def removed(self, gone: Sequence[Leftover]) -> None:
        """They are. Raises Unavailable: then they are removed once more."""
        if gone:
            await self._queue.removed(gone)
