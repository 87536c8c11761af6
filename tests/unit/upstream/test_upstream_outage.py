"""A client whose upstream is away: it stops asking, says why, and finds out when it is back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from aiohttp import ClientSession

from mirror.errors import Denied, NotFound, Unavailable
from mirror.oci.digest import Digest
from mirror.oci.reference import Reference
from mirror.upstream.client import UpstreamClient
from mirror.upstream.gate import Gate
from mirror.upstream.model import BreakerPolicy, Credential, Failure, UpstreamUnavailable
from mirror.upstream.policy import RetryPolicy
from tests.support.faulty_registry import FaultyRegistry, until
from tests.support.state import Clock
from tests.support.upstreams import session_for, upstream

ONCE = RetryPolicy(attempts=1, first_delay=0.001, longest_delay=0.01)
POLICY = BreakerPolicy(failures=2, pause=10, longest_pause=100)
TAG, OTHER = Reference(tag="1"), Reference(tag="2")
BLOB = bytes(range(256)) * 1000
DIGEST = Digest.of(BLOB)


@dataclass
class Way:
    hub: FaultyRegistry
    client: UpstreamClient
    gate: Gate
    clock: Clock
    session: ClientSession

    async def refusal(self, reference: Reference = TAG) -> UpstreamUnavailable:
        with pytest.raises(UpstreamUnavailable) as raised:
            await self.client.get_manifest("team/app", reference)
        return raised.value

    async def fail(self) -> None:
        """As often as it takes."""
        for _ in range(POLICY.failures):
            await self.refusal()
        assert self.client.is_suspended


@asynccontextmanager
async def way(**settings: object) -> AsyncIterator[Way]:
    async with FaultyRegistry() as hub:
        hub.add_manifest("team/app", "1", b'{"layers": [], "config": {}}')
        hub.add_blob(BLOB)
        wanted = upstream(hub.url, breaker=POLICY, **settings)
        clock = Clock()
        gate = Gate(wanted, clock=clock)
        async with session_for(wanted) as session:
            yield Way(hub, UpstreamClient(session, wanted, retry=ONCE, gate=gate), gate, clock, session)


@pytest.fixture
async def at() -> AsyncIterator[Way]:
    async with way() as made:
        yield made


async def test_an_upstream_that_fails_is_not_asked_and_the_error_says_why_and_until_when(at: Way) -> None:
    at.hub.faults.status = 502
    await at.fail()
    asked = len(at.hub.seen)
    at.clock.advance(2.5)
    error = await at.refusal(OTHER)
    assert len(at.hub.seen) == asked
    assert (error.failure, error.retry_after) == (Failure.SUSPENDED, 8)
    assert "hub.test" in str(error)
    assert "again in 8 s" in str(error)
    assert "server error" in str(error)
    assert "2 now" in str(error)
    assert "team/app:1" not in str(error)  # what others asked for is their business
    assert at.gate.problem is not None
    assert "hub.test" in at.gate.problem


async def test_the_reason_of_no_connection_is_told(at: Way) -> None:
    await at.hub.kill()
    await at.fail()
    assert ": Connection refused)" in str(await at.refusal())


async def test_those_who_ask_while_it_is_probed_share_the_outcome(at: Way) -> None:
    at.hub.faults.status = 502
    await at.fail()
    at.clock.advance(10)
    at.hub.faults.status, at.hub.faults.before_headers = None, 0.1
    asked = len(at.hub.seen)
    first = asyncio.create_task(at.client.get_manifest("team/app", TAG))
    await until(lambda: len(at.hub.seen) == asked + 1)
    second = asyncio.create_task(at.client.get_manifest("team/app", TAG))
    await asyncio.sleep(0.02)
    assert len(at.hub.seen) == asked + 1
    assert (await first) == (await second)
    assert not at.client.is_suspended
    assert at.gate.problem is None


async def test_a_probe_that_is_refused_shows_that_it_is_back(at: Way) -> None:
    at.hub.faults.status = 502
    await at.fail()
    at.clock.advance(10)
    # It gives no manifest, but a reason: its token service is elsewhere.
    at.hub.faults.status, at.hub.faults.auth, at.hub.faults.challenge = None, "bearer", 'Bearer realm="http://stranger.test/t"'
    with pytest.raises(Denied):
        await at.client.get_manifest("team/app", TAG)
    assert not at.client.is_suspended
    at.hub.faults.auth = None
    assert (await at.client.get_manifest("team/app", TAG)).raw


async def test_a_probe_that_fails_refuses_all_who_waited_for_it(at: Way) -> None:
    at.hub.faults.status = 502
    await at.fail()
    at.clock.advance(10)
    at.hub.faults.before_headers = 0.05
    asked = len(at.hub.seen)
    errors = await asyncio.gather(*(at.refusal() for _ in range(5)))
    assert len(at.hub.seen) == asked + 1
    assert sorted(error.failure.value for error in errors) == ["error"] + ["suspended"] * 4
    assert at.gate.breaker.seconds_left == 20
    at.clock.advance(20)
    await asyncio.gather(*(at.refusal() for _ in range(5)))
    assert len(at.hub.seen) == asked + 2


async def test_nobody_waits_long_for_a_probe_that_hangs() -> None:
    async with way(connect_timeout=0.1) as at:
        at.hub.faults.status = 502
        await at.fail()
        at.clock.advance(10)
        at.hub.faults.before_headers = 1.0
        probe = asyncio.create_task(at.refusal())
        await asyncio.sleep(0.02)
        assert (await at.refusal()).failure is Failure.SUSPENDED
        assert not probe.done()
        assert (await probe).failure is Failure.ERROR


async def test_a_probe_whose_asker_leaves_is_taken_over(at: Way) -> None:
    at.hub.faults.status = 502
    await at.fail()
    at.clock.advance(10)
    at.hub.faults.status, at.hub.faults.before_headers = None, 0.2
    asked = len(at.hub.seen)
    first = asyncio.create_task(at.client.get_manifest("team/app", TAG))
    await until(lambda: len(at.hub.seen) == asked + 1)
    second = asyncio.create_task(at.client.get_manifest("team/app", TAG))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).raw
    assert not at.client.is_suspended


async def test_a_refusal_shows_that_the_upstream_is_there(at: Way) -> None:
    at.hub.faults.statuses = [502, 404, 502, 403, 502]
    await at.refusal()
    with pytest.raises(NotFound):
        await at.client.get_manifest("team/app", TAG)
    for _ in range(3):
        with pytest.raises(Exception, match=r"hub\.test"):
            await at.client.get_manifest("team/app", TAG)
    assert not at.client.is_suspended


async def test_a_429_that_says_when_to_come_back_stops_manifests_at_once_but_not_blobs(at: Way) -> None:
    at.hub.faults.status, at.hub.faults.headers = 429, {"Retry-After": "30"}
    await at.refusal()
    at.hub.faults.status = None
    asked = len(at.hub.seen)
    error = await at.refusal(OTHER)
    assert (error.failure, error.retry_after, len(at.hub.seen)) == (Failure.THROTTLED, 30, asked)
    async with at.client.open_blob("team/app", DIGEST) as stream:
        assert b"".join([chunk async for chunk in stream.chunks]) == BLOB
    assert at.client.is_suspended


async def test_a_transfer_that_somebody_is_reading_is_tried_and_shows_that_the_upstream_is_back(at: Way) -> None:
    at.hub.faults.status = 502
    await at.fail()
    at.hub.faults.status = None
    with pytest.raises(Unavailable, match="again in"):
        async with at.client.open_blob("team/app", DIGEST):
            pass
    async with at.client.open_blob("team/app", DIGEST, 100, insist=True) as stream:
        assert b"".join([chunk async for chunk in stream.chunks]) == BLOB[100:]
    assert not at.client.is_suspended


@pytest.mark.parametrize("question", [UpstreamClient.head_blob, UpstreamClient.blob_location])
async def test_repositories_take_turns_at_an_upstream_that_is_slow(
    question: Callable[[UpstreamClient, str, Digest], Awaitable[object]],
) -> None:
    async with way(max_requests=1, max_transfers=1) as at:
        at.hub.faults.before_headers = 0.02
        names = ["a", "a", "a", "a", "b"]

        async def ask(name: str) -> None:
            with pytest.raises(NotFound):
                await question(at.client, name, Digest.of(b"none"))

        await asyncio.gather(*(ask(name) for name in names))
        assert [request.path.split("/")[2] for request in at.hub.seen] == ["a", "a", "b", "a", "a"]


async def test_work_in_the_background_stops_before_the_budget_is_used_up() -> None:
    async with way() as at:
        client = UpstreamClient(at.session, at.client.upstream, retry=ONCE, background=True)
        at.hub.faults.manifest_headers = {"RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": "19;w=21600"}
        assert (await client.get_manifest("team/app", TAG)).raw
        with pytest.raises(UpstreamUnavailable, match="19 of 100 pulls") as raised:
            await client.get_manifest("team/app", TAG)
        assert (raised.value.failure, raised.value.retry_after) == (Failure.THROTTLED, 60)
        assert at.hub.count("GET", "/manifests/") == 1
        assert (await at.client.get_manifest("team/app", TAG)).raw
        assert (await at.client.get_manifest("team/app", TAG)).raw


async def test_one_repository_that_is_broken_keeps_nobody_from_the_others(at: Way) -> None:
    at.hub.add_manifest("team/other", "1", b'{"layers": [], "config": {}}')
    at.hub.faults.status = 500
    await at.fail()
    at.hub.faults.status = None
    assert (await at.refusal()).failure is Failure.SUSPENDED
    assert (await at.client.get_manifest("team/other", TAG)).raw
    assert not at.client.is_suspended


@pytest.mark.parametrize("status", [429, 500])
async def test_what_the_upstream_answers_to_one_clients_account_says_nothing_of_others(at: Way, status: int) -> None:
    ada = at.client.acting_as(Credential("ada", "secret"))
    at.hub.faults.status, at.hub.faults.headers = status, {"Retry-After": "30"}
    for _ in range(POLICY.failures):
        with pytest.raises(UpstreamUnavailable):
            await ada.get_manifest("team/app", TAG)
    at.hub.faults.status = None
    assert not at.client.is_suspended
    assert (await at.client.get_manifest("team/app", TAG)).raw


async def test_a_probe_with_one_clients_account_that_is_throttled_leaves_its_place_to_the_next_request(at: Way) -> None:
    at.hub.faults.status = 429
    await at.fail()
    at.clock.now += POLICY.pause
    with pytest.raises(UpstreamUnavailable, match="throttles"):
        await at.client.acting_as(Credential("ada", "secret")).get_manifest("team/app", TAG)
    at.hub.faults.status = None
    assert (await at.client.get_manifest("team/app", TAG)).raw
