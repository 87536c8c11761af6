"""Places are seen to serve a blob before anybody is sent there, and go on being looked at."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from mirror.jobs.packed_layers import PackedCopy
from mirror.oci.digest import Digest
from mirror.redirect.asking import PlaceClient, open_place_session
from mirror.redirect.places import Place
from mirror.redirect.redirector import Redirector
from mirror.redirect.witness import Witness, WitnessLimits
from tests.support.faulty_registry import until
from tests.support.place_server import FQRN, PlaceServer, place_server

BLOB = b"packed" * 1000
COPY = PackedCopy(Digest.of(BLOB), FQRN, f"data/ab/{'c' * 38}", len(BLOB), 5)
LIMITS = WitnessLimits(fresh=5, again=60, believed=600)
NAMED = f"{FQRN}/.cvmfspublished"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Copies:
    def __init__(self, *copies: PackedCopy) -> None:
        self.copies = copies

    async def find(self, digest: Digest) -> tuple[PackedCopy, ...]:
        return tuple(copy for copy in self.copies if copy.digest == digest)


@pytest.fixture
async def place() -> AsyncIterator[PlaceServer]:
    async with place_server() as server:
        server.publish(5)
        server.files[f"{FQRN}/{COPY.object}"] = BLOB
        yield server


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def witness(clock: Clock) -> AsyncIterator[Witness]:
    async with open_place_session("test", 10) as session:
        made = Witness(PlaceClient(session, 5.0), LIMITS, timer=clock)
        yield made
        await made.close()


def at(server: PlaceServer, name: str = "one") -> Place:
    return Place(name, server.url)


async def test_what_was_seen_once_is_not_asked_again_while_it_is_fresh(place: PlaceServer, witness: Witness) -> None:
    assert witness.knows(at(place), COPY) is None
    assert await asyncio.gather(*[witness.see(at(place), COPY) for _ in range(10)]) == [True] * 10
    assert place.asked == [("GET", NAMED), ("HEAD", f"{FQRN}/{COPY.object}")]
    assert witness.knows(at(place), COPY) is True
    assert len(place.asked) == 2


async def test_a_place_in_use_is_looked_at_again_beside_the_requests(place: PlaceServer, witness: Witness, clock: Clock) -> None:
    await witness.see(at(place), COPY)
    clock.now += 6
    assert witness.knows(at(place), COPY) is True
    await until(lambda: place.count("GET", NAMED) == 2)
    assert place.count("HEAD") == 1
    place.status = 503
    clock.now += 6
    assert witness.knows(at(place), COPY) is True, "nobody waits for the look that tells"
    await until(lambda: witness.knows(at(place), COPY) is False)
    place.status = None
    clock.now += 30
    assert witness.knows(at(place), COPY) is False
    clock.now += 31
    assert witness.knows(at(place), COPY) is None
    assert await witness.see(at(place), COPY)


async def test_what_was_seen_long_ago_is_asked_before_anybody_is_sent(place: PlaceServer, witness: Witness, clock: Clock) -> None:
    await witness.see(at(place), COPY)
    clock.now += 16
    assert witness.knows(at(place), COPY) is None
    place.status = 500
    assert not await witness.see(at(place), COPY)


async def test_a_place_that_lags_behind_is_left_out_until_it_has_the_revision(
    place: PlaceServer, witness: Witness, clock: Clock
) -> None:
    place.publish(4)
    assert not await witness.see(at(place), COPY)
    assert place.count("HEAD") == 0
    assert witness.knows(at(place), COPY) is False
    place.publish(6)
    clock.now += 5
    assert witness.knows(at(place), COPY) is None
    assert await witness.see(at(place), COPY)
    assert witness.knows(at(place), replace(COPY, revision=7)) is False


@pytest.mark.parametrize("fault", ["missing", "short", "long", "redirect", "forbidden", "other", "nonsense", "no repository"])
async def test_a_place_that_does_not_serve_the_blob_itself_is_left_out(
    place: PlaceServer, witness: Witness, clock: Clock, fault: str
) -> None:
    path = f"{FQRN}/{COPY.object}"
    match fault:
        case "missing":
            del place.files[path]
        case "short":
            place.files[path] = BLOB[:-1]
        case "long":
            place.files[path] = BLOB + b"."
        case "redirect":
            place.status = 302
        case "forbidden":
            place.status = 403
        case "other":
            place.publish(9, name="other.example.org")
        case "nonsense":
            place.files[NAMED] = b"<html>welcome</html>"
        case _:
            del place.files[NAMED]
    assert not await witness.see(at(place), COPY)
    assert witness.knows(at(place), COPY) is False
    place.status = None
    place.publish(5)
    place.files[path] = BLOB
    clock.now += 61
    assert await witness.see(at(place), COPY)


async def test_a_place_that_is_down_or_hangs_costs_the_patience_of_one_request(place: PlaceServer, witness: Witness) -> None:
    place.hangs = True
    redirector = Redirector([at(place)], Copies(COPY), witness, patience=0.1)
    assert await redirector.find(COPY.digest, "192.0.2.1") is None
    down = Place("down", "http://127.0.0.1:1/cvmfs")
    assert await Redirector([down], Copies(COPY), witness).find(COPY.digest, "192.0.2.1") is None
    assert witness.knows(down, COPY) is False


async def test_another_place_is_taken_at_once_where_the_first_is_away(place: PlaceServer, witness: Witness) -> None:
    async with place_server() as hanging:
        hanging.hangs = True
        places = [Place("site", hanging.url, {"192.0.2.1"}), at(place)]
        redirector = Redirector(places, Copies(COPY), witness, patience=30.0)
        for _ in range(2):
            assert await redirector.find(COPY.digest, "192.0.2.1") == f"{place.url}/{FQRN}/{COPY.object}"
        assert len(hanging.asked) == 1


async def test_any_repository_that_has_the_blob_will_do_and_small_ones_are_not_worth_it(
    place: PlaceServer, witness: Witness
) -> None:
    other = replace(COPY, fqrn="other.example.org")
    find = Redirector([at(place)], Copies(other, COPY), witness, smallest=len(BLOB)).find
    assert await find(COPY.digest, "192.0.2.1") == f"{place.url}/{FQRN}/{COPY.object}"
    assert await find(Digest.of(b"unknown"), "192.0.2.1") is None
    assert await Redirector([at(place)], Copies(COPY), witness, smallest=len(BLOB) + 1).find(COPY.digest, "") is None
