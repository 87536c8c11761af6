"""Deletes garbage in small batches under the writer's lock, and then what the reference log says of it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from publisher.gc.garbage import GarbageList, Turn, Victim
from publisher.gc.marks import Marks
from publisher.gc.needed import KINDS, Needed
from publisher.gc.policy import CollectionLimits, CollectionStep, OnProgress, Progress, Tally
from publisher.repository import Repository, Step

_SLICE = 32
"""Objects that one thread deletes between two looks at the clock."""


class Sweeper:
    """For one thread at a time. Raises Conflict if a publication holds the lock for too long, and what the store raises."""

    def __init__(
        self,
        repository: Repository,
        needed: Needed,
        marks: Marks,
        garbage: GarbageList,
        *,
        limits: CollectionLimits,
        cutoff: float,
        progress: OnProgress,
    ) -> None:
        """cutoff: Unix seconds; what was put later is spared."""
        self._repository = repository
        self._needed = needed
        self._marks = marks
        self._garbage = garbage
        self._limits = limits
        self._cutoff = cutoff
        self._progress = progress
        self._done = 0
        self.deleted = Tally()

    def sweep(self, unsafe_before: float) -> None:
        """Delete what is on the list, unless it is needed by now. unsafe_before: for publishers (`Spool.swept_before`)."""
        with self._lock():
            self._progress(Progress(CollectionStep.WARN))
            self._repository.spool.note_sweep(unsafe_before)
        with ThreadPoolExecutor(self._limits.workers, thread_name_prefix="garbage") as pool:
            for turn in Turn:
                self._sweep_turn(turn, pool)

    def clear_reflog(self) -> int:
        """Take out of the reference log what is gone from the storage; number of entries."""
        with self._lock():
            reflog = self._needed.look()
            gone = [
                reference.content
                for reference in self._needed.references.values()
                if not self._needed.holds(reference)
                and not self._repository.store.contains(reference.content, KINDS[reference.type])
            ]
            if gone:
                for content in gone:
                    reflog.remove(content)
                self._repository.rewrite_reflog(reflog, self._on_step)
            return len(gone)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        with self._repository.spool.lock(self._limits.lock_wait):
            self._needed.follow()
            yield

    def _sweep_turn(self, turn: Turn, pool: ThreadPoolExecutor) -> None:
        number = 0
        while victims := self._garbage.after(turn, number, self._limits.batch):
            number = self._delete(victims, pool)
            time.sleep(self._limits.lock_pause)
        if number:
            self._repository.store.flush()

    def _delete(self, victims: Sequence[Victim], pool: ThreadPoolExecutor) -> int:
        """Delete as many as one hold of the lock allows, in their order; the number of the last one."""
        workers = self._limits.workers
        with self._lock():
            self._progress(Progress(CollectionStep.DELETE, self._done, self._garbage.total.objects))
            deadline = time.monotonic() + self._limits.lock_hold
            for start in range(0, len(victims), _SLICE * workers):
                part = victims[start : start + _SLICE * workers]
                doomed = [victim for victim in part if not self._marks.holds(victim.content, victim.kind)]
                slices = [doomed[number::workers] for number in range(workers)]
                self.deleted = sum(pool.map(self._expire, slices), self.deleted)
                self._done += len(part)
                if time.monotonic() >= deadline:
                    return part[-1].number
        return victims[-1].number

    def _expire(self, victims: Sequence[Victim]) -> Tally:
        gone = Tally()
        for victim in victims:
            if self._repository.store.expire(victim.content, victim.kind, self._cutoff):
                gone += Tally(1, victim.size)
        return gone

    def _on_step(self, step: Step) -> None:
        self._progress(Progress(CollectionStep(step.value)))
