"""A bounded number of places, given to groups of waiters in turn: who wants fifty at once does not keep others from one."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class FairSlots:
    """Places; within a group in order of coming, among groups one each."""

    def __init__(self, slots: int) -> None:
        self._free = slots
        self._slots = slots
        self._groups: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._urgent: deque[asyncio.Future[None]] = deque()

    @property
    def taken(self) -> int:
        """Places in use."""
        return self._slots - self._free

    @property
    def waiting(self) -> int:
        """How many wait for one."""
        return len(self._urgent) + sum(len(queue) for queue in self._groups.values())

    @asynccontextmanager
    async def slot(self, group: str, *, urgent: bool = False) -> AsyncIterator[None]:
        """A place for the length of the block. urgent: before all that are not."""
        await self._take(group, urgent=urgent)
        try:
            yield
        finally:
            self._give()

    async def _take(self, group: str, *, urgent: bool) -> None:
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue = self._urgent if urgent else self._groups.setdefault(group, deque())
        queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give()  # The turn came in the same moment.
            elif turn in queue:
                queue.remove(turn)
                if not queue and not urgent:
                    self._groups.pop(group, None)
            raise

    def _give(self) -> None:
        turn = self._next()
        while turn is not None and turn.done():
            turn = self._next()  # This one has left, and not run since.
        if turn is None:
            self._free += 1
        else:
            turn.set_result(None)

    def _next(self) -> asyncio.Future[None] | None:
        """The waiter whose turn it is."""
        if self._urgent:
            return self._urgent.popleft()
        if not self._groups:
            return None
        group, queue = self._groups.popitem(last=False)
        turn = queue.popleft()
        if queue:
            self._groups[group] = queue
        return turn
