"""Tokens belong to a credential, not to a name; are renewed ahead; and a password that is refused is left alone for long."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.errors import Denied, Unavailable
from mirror.oci.reference import Reference
from mirror.upstream.client import UpstreamClient
from mirror.upstream.credentials import PasswordOf
from mirror.upstream.fingerprint import NOBODY, fingerprint
from mirror.upstream.model import Credential
from mirror.upstream.token_cache import LONGEST_REFUSAL, TokenCache
from tests.support.faulty_registry import FaultyRegistry, until
from tests.support.state import Clock
from tests.support.upstreams import QUICK, session_for, upstream

TAG = Reference(tag="1")
NAMES = ("team/app", "team/other")


@pytest.fixture
async def hub() -> AsyncIterator[FaultyRegistry]:
    async with FaultyRegistry() as registry:
        registry.faults.auth = "bearer"
        for name in NAMES:
            registry.add_manifest(name, "1", b'{"schemaVersion": 2, "config": {}, "layers": []}\n')
        yield registry


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def client(hub: FaultyRegistry, clock: Clock) -> AsyncIterator[UpstreamClient]:
    """Nobody's; to be used for others by `acting_as`."""
    wanted = upstream(hub.url)
    async with session_for(wanted) as session:
        made = UpstreamClient(session, wanted, retry=QUICK, tokens=TokenCache(clock=clock))
        yield made
        await made.close()


def asked(hub: FaultyRegistry) -> int:
    return hub.count("GET", "/token")


def tried(hub: FaultyRegistry) -> int:
    """How often a password came to the hub."""
    return sum(1 for seen in hub.seen if (seen.authorization or "").startswith("Basic"))


async def test_who_has_another_password_is_somebody_else(hub: FaultyRegistry, client: UpstreamClient) -> None:
    hub.faults.user = ("me", "right")
    right, wrong = client.acting_as(Credential("me", "right")), client.acting_as(Credential("me", "wrong"))
    await right.get_manifest("team/app", TAG)
    with pytest.raises(Denied):
        await wrong.get_manifest("team/app", TAG)
    await right.get_manifest("team/app", TAG)
    with pytest.raises(Denied):
        await client.get_manifest("team/app", TAG)
    assert len({fingerprint(Credential(*pair)) for pair in (("a", "bc"), ("ab", "c"), ("abc", ""))} | {NOBODY}) == 4
    assert fingerprint(Credential("", "x", is_identity_token=True)) != fingerprint(Credential("", "x"))
    assert "right" not in repr(Credential("me", "right"))


async def test_a_password_that_was_changed_in_its_file_is_used_at_once(hub: FaultyRegistry, clock: Clock, tmp_path: Path) -> None:
    hub.faults.user = ("me", "new")
    file = tmp_path / "password"
    file.write_text("old")
    wanted = upstream(hub.url, credential=PasswordOf("me", file.read_text))
    async with session_for(wanted) as session:
        client = UpstreamClient(session, wanted, retry=QUICK, tokens=TokenCache(clock=clock))
        with pytest.raises(Denied):
            await client.get_manifest("team/app", TAG)
        file.write_text("new")
        await client.get_manifest("team/app", TAG)
        await client.close()


@pytest.mark.parametrize("auth", ["bearer", "basic"])
async def test_a_wrong_password_is_tried_again_ever_more_seldom(
    hub: FaultyRegistry, client: UpstreamClient, clock: Clock, auth: str
) -> None:
    hub.faults.auth, hub.faults.user = auth, ("me", "right")
    wrong = client.acting_as(Credential("me", "wrong"))
    tries, began = [], clock.now
    while clock.now - began < 2 * 3600:
        before = tried(hub)
        for name in NAMES:  # A password is wrong for every repository.
            with pytest.raises(Denied):
                await wrong.get_manifest(name, TAG)
        if tried(hub) > before:
            tries.append(clock.now)
        clock.now += 5
    pauses = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert pauses[:4] == [10, 20, 40, 80]
    assert max(pauses) == LONGEST_REFUSAL
    assert tried(hub) == len(tries) < 200


async def test_a_right_password_at_a_hub_without_tokens(hub: FaultyRegistry, client: UpstreamClient) -> None:
    hub.faults.auth, hub.faults.user = "basic", ("me", "right")
    me = client.acting_as(Credential("me", "right"))
    for name in (*NAMES, *NAMES):
        await me.get_manifest(name, TAG)
    hub.faults.user = ("me", "changed")
    for _ in range(3):
        with pytest.raises(Denied, match="user name and password"):
            await me.get_manifest(NAMES[0], TAG)


async def test_a_right_that_is_missing_for_one_repository_does_not_shut_the_others(
    hub: FaultyRegistry, client: UpstreamClient
) -> None:
    hub.faults.user = ("me", "right")
    me = client.acting_as(Credential("me", "right"))
    await me.get_manifest("team/app", TAG)
    hub.faults.token_status = 401
    for _ in range(3):
        with pytest.raises(Denied):
            await me.get_manifest("team/other", TAG)
    assert asked(hub) == 2
    await me.get_manifest("team/app", TAG)


async def test_a_token_in_use_is_renewed_before_its_time_is_up(hub: FaultyRegistry, client: UpstreamClient, clock: Clock) -> None:
    hub.faults.token_lifetime = 300
    await client.get_manifest("team/app", TAG)
    clock.now += 200
    await client.get_manifest("team/app", TAG)
    assert asked(hub) == 1
    clock.now += 30
    hub.faults.token_status = 503
    for _ in range(3):  # It still is good; one try in some seconds.
        await client.get_manifest("team/app", TAG)
    await until(lambda: asked(hub) == 2)
    hub.faults.token_status = 200
    clock.now += 6
    await client.get_manifest("team/app", TAG)
    await until(lambda: asked(hub) == 3)
    challenged = hub.count("GET", "/manifests/")
    for _ in range(7):
        clock.now += 30
        await client.get_manifest("team/app", TAG)
    assert hub.count("GET", "/manifests/") == challenged + 7  # Nobody was sent away for a token.
    assert asked(hub) == 3


async def test_an_identity_token_goes_by_post(hub: FaultyRegistry, client: UpstreamClient) -> None:
    hub.faults.identity_tokens = {"identity": "me"}
    hub.faults.readers = {"team/app": {"me": "unknown"}}
    me = client.acting_as(Credential("", "identity", is_identity_token=True))
    await me.get_manifest("team/app", TAG)
    (posted,) = (seen for seen in hub.seen if seen.method == "POST")
    assert posted.form == {
        "grant_type": "refresh_token",
        "client_id": "debark",
        "refresh_token": "identity",
        "service": "faulty",
        "scope": "repository:team/app:pull",
    }
    assert "identity" not in posted.query
    other = client.acting_as(Credential("", "stolen", is_identity_token=True))
    for name in NAMES:
        with pytest.raises(Denied, match="no token"):
            await other.get_manifest(name, TAG)
    assert hub.count("POST", "/token") == 2


async def test_an_identity_token_is_no_password(hub: FaultyRegistry, client: UpstreamClient) -> None:
    hub.faults.auth = "basic"
    with pytest.raises(Denied, match="user name and password"):
        await client.acting_as(Credential("", "identity", is_identity_token=True)).get_manifest("team/app", TAG)
    assert not any(seen.authorization for seen in hub.seen)


async def test_an_outage_of_the_token_service_is_short(hub: FaultyRegistry, client: UpstreamClient, clock: Clock) -> None:
    hub.faults.token_status = 503
    with pytest.raises(Unavailable):
        await client.get_manifest("team/app", TAG)
    hub.faults.token_status = 200
    clock.now += 2
    await client.get_manifest("team/app", TAG)
