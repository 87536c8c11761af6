"""Who waits, and whose turn is next."""

from __future__ import annotations

import asyncio

import pytest

from mirror.upstream.fair_slots import FairSlots


class Work:
    """Tasks that take a place, say so, and hold it until they are told to leave."""

    def __init__(self, slots: int) -> None:
        self.slots = FairSlots(slots)
        self.begun: list[str] = []
        self.leave: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def begin(self, *names: str, urgent: bool = False) -> None:
        """name: the group and a number, such as `a1`."""
        for name in names:
            self.leave[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._hold(name, urgent=urgent))
            await asyncio.sleep(0)

    async def end(self, *names: str) -> None:
        for name in names:
            self.leave[name].set()
            await self.tasks[name]
            await asyncio.sleep(0)

    async def end_all(self) -> None:
        for event in self.leave.values():
            event.set()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)

    async def _hold(self, name: str, *, urgent: bool) -> None:
        async with self.slots.slot(name[0], urgent=urgent):
            self.begun.append(name)
            await self.leave[name].wait()


async def test_a_group_with_many_wishes_does_not_keep_others_from_one() -> None:
    work = Work(2)
    await work.begin("a1", "a2", "a3", "a4", "a5", "b1", "b2", "c1")
    assert work.begun == ["a1", "a2"]
    assert (work.slots.taken, work.slots.waiting) == (2, 6)
    await work.end_all()
    assert work.begun == ["a1", "a2", "a3", "b1", "c1", "a4", "b2", "a5"]
    assert (work.slots.taken, work.slots.waiting) == (0, 0)


async def test_who_was_in_the_middle_of_it_comes_first() -> None:
    work = Work(1)
    await work.begin("a1", "a2", "b1")
    await work.begin("a3", urgent=True)
    await work.end_all()
    assert work.begun == ["a1", "a3", "a2", "b1"]


async def test_who_leaves_while_waiting_costs_nobody_a_place() -> None:
    work = Work(1)
    await work.begin("a1", "b1", "a2")
    work.tasks["b1"].cancel()
    await asyncio.sleep(0)
    assert work.slots.waiting == 1
    await work.end("a1")
    assert work.begun == ["a1", "a2"]
    await work.end_all()
    assert (work.slots.taken, work.slots.waiting) == (0, 0)


async def test_who_leaves_in_the_moment_of_its_turn_passes_the_place_on() -> None:
    work = Work(1)
    async with work.slots.slot("a"):
        await work.begin("b1", "c1")
    work.tasks["b1"].cancel()  # its turn has come, and it has not run since
    with pytest.raises(asyncio.CancelledError):
        await work.tasks["b1"]
    await asyncio.sleep(0)
    assert work.begun == ["c1"]
    await work.end_all()
    assert work.slots.taken == 0


async def test_a_failure_inside_gives_the_place_back() -> None:
    slots = FairSlots(1)
    with pytest.raises(ValueError, match="x"):
        async with slots.slot("a"):
            raise ValueError("x")
    assert slots.taken == 0


async def test_who_leaves_in_the_moment_in_which_a_place_becomes_free_is_passed_over() -> None:
    work = Work(1)
    async with work.slots.slot("a"):
        await work.begin("b1", "c1")
        work.tasks["b1"].cancel()  # and it does not run before the place is free
    await asyncio.sleep(0)
    assert work.begun == ["c1"]
    await work.end_all()
    assert (work.slots.taken, work.slots.waiting) == (0, 0)


async def test_when_all_leave_at_once_all_places_are_free() -> None:
    work = Work(2)
    await work.begin("a1", "a2", "a3", "b1")
    await work.begin("c1", urgent=True)
    for task in work.tasks.values():
        task.cancel()
    ends = await asyncio.gather(*work.tasks.values(), return_exceptions=True)
    assert [type(end) for end in ends] == [asyncio.CancelledError] * 5
    assert (work.slots.taken, work.slots.waiting) == (0, 0)
