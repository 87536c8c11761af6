"""Bytes that tasks of one event loop may hold together."""

from __future__ import annotations

import asyncio
from collections import deque


class ByteBudget:
    """Given out in the order of asking; who wants more than there is at all gets all."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._free = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, wanted: int) -> int:
        """Wait for that many bytes; how many were taken, to be given back."""
        wanted = min(wanted, self._size)
        if not self._waiting and wanted <= self._free:
            self._free -= wanted
            return wanted
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((wanted, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back(wanted)
            else:
                self._waiting.remove((wanted, turn))
                self.give_back(0)
            raise
        return wanted

    def give_back(self, taken: int) -> None:
        """Let others have them."""
        self._free += taken
        while self._waiting and self._waiting[0][0] <= self._free:
            wanted, turn = self._waiting.popleft()
            self._free -= wanted
            if not turn.cancelled():
                turn.set_result(None)
            else:
                self._free += wanted
