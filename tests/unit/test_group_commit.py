import asyncio
from collections.abc import Sequence

import pytest

from publisher.commit import GroupCommitter


class Revisions:
    """Commits groups of words; a word that begins with `bad` spoils its group."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.gate = asyncio.Event()

    async def commit(self, items: Sequence[str]) -> int:
        await self.gate.wait()
        self.groups.append(list(items))
        if any(item.startswith("bad") for item in items):
            raise ValueError(f"cannot commit {items}")
        return len(self.groups)


async def settle(revisions: Revisions, words: Sequence[str], largest: int = 10) -> list[int | BaseException]:
    committer = GroupCommitter(revisions.commit, largest)
    runner = asyncio.create_task(committer.run())
    submissions = [asyncio.create_task(committer.submit(word)) for word in words]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    revisions.gate.set()
    outcomes = await asyncio.gather(*submissions, return_exceptions=True)
    runner.cancel()
    await asyncio.gather(runner, return_exceptions=True)
    return outcomes


async def test_what_arrives_during_a_commit_shares_the_next_one() -> None:
    revisions = Revisions()
    committer = GroupCommitter(revisions.commit, 10)
    runner = asyncio.create_task(committer.run())
    first = asyncio.create_task(committer.submit("a"))
    await asyncio.sleep(0.01)
    others = [asyncio.create_task(committer.submit(word)) for word in "bcd"]
    await asyncio.sleep(0.01)
    revisions.gate.set()
    assert await first == 1
    assert await asyncio.gather(*others) == [2, 2, 2]
    assert revisions.groups == [["a"], ["b", "c", "d"]]
    runner.cancel()
    await asyncio.gather(runner, return_exceptions=True)


async def test_a_group_is_never_larger_than_allowed() -> None:
    revisions = Revisions()
    await settle(revisions, list("abcde"), largest=2)
    assert max(len(group) for group in revisions.groups) == 2


async def test_one_bad_image_spoils_no_other() -> None:
    revisions = Revisions()
    outcomes = await settle(revisions, ["a", "bad", "c"])
    assert isinstance(outcomes[1], ValueError)
    assert all(isinstance(outcome, int) for outcome in (outcomes[0], outcomes[2]))


async def test_an_image_that_nobody_waits_for_any_more_is_left_out() -> None:
    revisions = Revisions()
    committer = GroupCommitter(revisions.commit, 10)
    runner = asyncio.create_task(committer.run())
    first = asyncio.create_task(committer.submit("a"))
    await asyncio.sleep(0.01)
    given_up = asyncio.create_task(committer.submit("b"))
    await asyncio.sleep(0.01)
    given_up.cancel()
    last = asyncio.create_task(committer.submit("c"))
    await asyncio.sleep(0.01)
    revisions.gate.set()
    await asyncio.gather(first, last)
    assert revisions.groups == [["a"], ["c"]]
    with pytest.raises(asyncio.CancelledError):
        await given_up
    runner.cancel()
    await asyncio.gather(runner, return_exceptions=True)
