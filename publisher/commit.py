"""Group commit: images that are ready when a commit begins go into one revision; those that come meanwhile wait for the next.

Nobody waits for an image that is still being unpacked, and a busy repository pays the fixed cost of a revision once for many.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog

Item = TypeVar("Item")
Result = TypeVar("Result")

log = structlog.get_logger()


@dataclass(slots=True)
class _Waiting(Generic[Item, Result]):
    item: Item
    outcome: asyncio.Future[Result]


class GroupCommitter(Generic[Item, Result]):
    """Hands waiting items to `commit` in groups, one group at a time, in the order of their arrival.

    commit: takes up to `largest` items and returns the result that holds for all of them.
    A group that fails is tried again item by item, so that one bad item spoils no other (design, rule 6).
    """

    def __init__(self, commit: Callable[[Sequence[Item]], Awaitable[Result]], largest: int) -> None:
        self._commit = commit
        self._largest = largest
        self._waiting: asyncio.Queue[_Waiting[Item, Result]] = asyncio.Queue()

    async def submit(self, item: Item) -> Result:
        """Return when a commit that holds the item is done; raises what its commit raised."""
        waiting = _Waiting[Item, Result](item, asyncio.get_running_loop().create_future())
        self._waiting.put_nowait(waiting)
        return await waiting.outcome

    async def run(self) -> None:
        """Commit for ever; returns only by cancellation."""
        while True:
            group = [await self._waiting.get()]
            while len(group) < self._largest and not self._waiting.empty():
                group.append(self._waiting.get_nowait())
            wanted = [waiting for waiting in group if not waiting.outcome.done()]
            if not wanted:
                continue
            try:
                await self._settle(wanted)
            except Exception as error:  # noqa: BLE001 (whatever it was, it belongs to one of the items)
                await self._settle_one_by_one(wanted, error)

    async def _settle(self, group: Sequence[_Waiting[Item, Result]]) -> None:
        result = await self._commit([waiting.item for waiting in group])
        for waiting in group:
            if not waiting.outcome.done():
                waiting.outcome.set_result(result)

    async def _settle_one_by_one(self, group: Sequence[_Waiting[Item, Result]], error: Exception) -> None:
        if len(group) == 1:
            if not group[0].outcome.done():
                group[0].outcome.set_exception(error)
            return
        log.warning("group_commit_split", images=len(group), error=str(error))
        for waiting in group:
            try:
                await self._settle([waiting])
            except Exception as own:  # noqa: BLE001 (handed to the one who waits for it)
                await self._settle_one_by_one([waiting], own)
