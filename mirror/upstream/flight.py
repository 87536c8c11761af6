"""One piece of work for all who want its result at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class SingleFlight(Generic[K, V]):
    """Runs work at most once at a time for each key.

    The work is a task of its own: whoever asked first may leave without harming those who joined.
    """

    def __init__(self) -> None:
        self._flights: dict[K, asyncio.Task[V]] = {}

    async def run(self, key: K, work: Callable[[], Coroutine[Any, Any, V]]) -> tuple[V, bool]:
        """The result of the work, and whether it was joined and not begun by this call. Raises what the work raises."""
        flight = self._flights.get(key)
        joined = flight is not None
        if flight is None:
            flight = asyncio.create_task(work())
            self._flights[key] = flight
            flight.add_done_callback(lambda done: self._landed(key, done))
        return await _shielded(flight), joined

    def __len__(self) -> int:
        return len(self._flights)

    def is_under_way(self, key: K) -> bool:
        """Whether the work for this key is running now."""
        return key in self._flights

    async def close(self) -> None:
        """Cancel what is under way."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    def _landed(self, key: K, done: asyncio.Task[V]) -> None:
        self._flights.pop(key, None)
        if not done.cancelled():
            # With nobody left to hear it, a failure would be reported as forgotten.
            done.exception()


async def _shielded(flight: Awaitable[V]) -> V:
    return await asyncio.shield(flight)
