"""Links that are to be removed, while names come back to them."""

from __future__ import annotations

from collections.abc import Collection

from mirror.jobs.model import Leftover
from mirror.jobs.queue import Queue
from publisher.leftovers import Leftovers, inside

FQRN = "one.example.org"
HERE, THERE = f"/cvmfs/{FQRN}/docker.io/library/debian:12", f"/cvmfs/{FQRN}/.multiarch/arm64/docker.io/library/debian:12"


class StillListed(Queue):
    """A state that has not been told yet that a link is right again."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def leftovers(self, fqrns: Collection[str], limit: int) -> list[Leftover]:
        self.asked += fqrns
        return [Leftover(fqrn, path) for fqrn in fqrns for path in (HERE, THERE)][:limit]


async def test_a_link_that_is_being_placed_is_spared_until_the_last_who_places_it_is_done() -> None:
    leftovers = Leftovers(StillListed())
    with leftovers.spared(FQRN, [HERE]):
        with leftovers.spared(FQRN, [HERE, THERE]):
            assert await leftovers.of(FQRN) == []
        assert [leftover.path for leftover in await leftovers.of(FQRN)] == [THERE]
    assert [leftover.path for leftover in await leftovers.of(FQRN)] == [HERE, THERE]


async def test_what_is_placed_in_one_repository_is_not_spared_in_another() -> None:
    leftovers = Leftovers(StillListed())
    with leftovers.spared("two.example.org", [HERE]):
        assert len(await leftovers.of(FQRN)) == 2


def test_the_path_inside_its_repository() -> None:
    assert inside(Leftover(FQRN, THERE)) == b".multiarch/arm64/docker.io/library/debian:12"
