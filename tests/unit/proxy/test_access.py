"""Who may read what: private content stays private, public content stays readable, whatever account the mirror uses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from mirror.errors import Denied, NotFound, Unavailable
from mirror.oci.digest import Digest
from mirror.oci.reference import Reference, RepositoryName
from mirror.proxy.access import Access
from mirror.proxy.public import PublicLimits, PublicRepositories
from mirror.proxy.ways import Way
from mirror.upstream.client import UpstreamClient
from mirror.upstream.model import Credential
from tests.support.faulty_registry import FaultyRegistry
from tests.support.memory_state import MemoryLinks, MemorySightings
from tests.support.mirror_server import HUB, MirrorServer, add_image, mirror_server
from tests.support.state import Clock
from tests.support.upstreams import QUICK, session_for, upstream

ACCOUNT = ("site", "pass-word")
LAYER = b"layer" * 1000
NAME = RepositoryName(HUB, "team/app")
TAG = Reference(tag="1")


@asynccontextmanager
async def with_account(tmp_path: Path, **settings: Any) -> AsyncIterator[MirrorServer]:
    """A mirror that has an account with its hub."""
    password = tmp_path / "password"
    password.write_text(ACCOUNT[1])
    account = {"username": ACCOUNT[0], "password_file": str(password), **settings}
    async with mirror_server(tmp_path, upstream=account) as mirror:
        yield mirror


async def test_what_only_the_mirrors_account_can_read_is_refused(tmp_path: Path) -> None:
    async with with_account(tmp_path) as mirror:
        mirror.hub.faults.auth, mirror.hub.faults.user = "bearer", ACCOUNT
        image = add_image(mirror.hub, "team/app", "1", LAYER)
        for path in ("manifests/1", f"manifests/{image.digest}", f"blobs/{image.layer}"):
            for method in ("GET", "HEAD"):
                answer = await mirror.ask(method, f"/v2/team/app/{path}")
                assert answer.status == 403
                assert image.raw not in answer.body
        assert (await mirror.get("/v2/team/app/manifests/1")).code == "DENIED"
        # Nobody's rights were asked for, and nobody's were used.
        assert all("Basic" not in (request.authorization or "") for request in mirror.hub.seen if request.path != "/token")


async def test_it_is_served_where_the_operator_shares_it(tmp_path: Path) -> None:
    async with with_account(tmp_path, private="serve") as mirror:
        mirror.hub.faults.auth, mirror.hub.faults.user = "bearer", ACCOUNT
        image = add_image(mirror.hub, "team/app", "1", LAYER)
        assert (await mirror.get("/v2/team/app/manifests/1")).body == image.raw
        assert (await mirror.get(f"/v2/team/app/blobs/{image.layer}")).body == LAYER


@pytest.mark.parametrize("auth", ["bearer", "basic"])
async def test_that_the_mirrors_account_is_refused_the_operator_reads_in_the_log(tmp_path: Path, auth: str) -> None:
    async with with_account(tmp_path, private="serve") as mirror:
        mirror.hub.faults.auth, mirror.hub.faults.user = auth, (ACCOUNT[0], "another word")
        add_image(mirror.hub, "team/app", "1", LAYER)
        with capture_logs() as logs:
            for _ in range(3):
                assert (await mirror.get("/v2/team/app/manifests/1")).status == 403
    refused = [line for line in logs if line["event"] == "account_refused"]
    assert [(line["log_level"], line["upstream"], line["scope"]) for line in refused] == [
        ("warning", HUB, "repository:team/app:pull")
    ]
    assert ACCOUNT[1] not in str(logs)


async def test_what_a_public_repository_does_not_have_is_not_found_rather_than_denied(tmp_path: Path) -> None:
    async with with_account(tmp_path) as mirror:
        mirror.hub.faults.auth = "bearer"
        add_image(mirror.hub, "team/app", "1", LAYER)
        for path, code in (("manifests/2", "MANIFEST_UNKNOWN"), (f"blobs/{Digest.of(b'no')}", "BLOB_UNKNOWN")):
            answer = await mirror.get(f"/v2/team/app/{path}")
            assert (answer.status, answer.code) == (404, code)
        assert (await mirror.get("/v2/team/app/manifests/1")).status == 200


async def test_what_was_public_is_served_after_a_restart_while_the_hub_is_away_and_nothing_else(tmp_path: Path) -> None:
    async with with_account(tmp_path) as mirror:
        mirror.hub.faults.auth, mirror.hub.faults.readers = "bearer", {"team/secret": dict([ACCOUNT])}
        images = {name: add_image(mirror.hub, name, "1", LAYER + name.encode()) for name in ("team/app", "team/secret")}
        assert (await mirror.get("/v2/team/secret/manifests/1")).status == 403
        assert (await mirror.get("/v2/team/app/manifests/1")).status == 200
        for blob in (images["team/app"].layer, images["team/app"].config):
            assert (await mirror.get(f"/v2/team/app/blobs/{blob}")).status == 200
    async with with_account(tmp_path) as mirror:
        await mirror.hub.kill()
        answer = await mirror.get("/v2/team/app/manifests/1")
        assert (answer.status, answer.body) == (200, images["team/app"].raw)
        assert (await mirror.get(f"/v2/team/app/blobs/{images['team/app'].layer}")).body == LAYER + b"team/app"
        assert (await mirror.get("/v2/team/secret/manifests/1")).status == 503


@pytest.fixture
async def hub() -> AsyncIterator[FaultyRegistry]:
    async with FaultyRegistry() as registry:
        add_image(registry, "team/app", "1", LAYER)
        yield registry


@asynccontextmanager
async def access_of(hub: FaultyRegistry, clock: Clock, links: MemoryLinks | None = None) -> AsyncIterator[Access]:
    """Without a state database that others use."""
    wanted = upstream(hub.url, credential=Credential(*ACCOUNT))
    async with session_for(wanted) as session:
        client = UpstreamClient(session, wanted, retry=QUICK)
        guard = UpstreamClient(session, wanted, anonymous=True, retry=QUICK)
        ways = {HUB: way_of(client)}
        public = PublicRepositories({HUB: guard}, MemorySightings(), PublicLimits(hold=0), clock=clock)
        yield Access(links or MemoryLinks(), ways, public, seconds=600, longest=86_400, timer=clock)


def way_of(client: UpstreamClient) -> Way:
    """Nothing is read in these tests."""
    nothing: Any = None
    return Way(client, nothing, nothing, nothing)


async def test_one_question_shows_for_a_while_that_a_repository_is_public(hub: FaultyRegistry) -> None:
    clock = Clock()
    async with access_of(hub, clock) as access:
        for _ in range(3):
            await access.check_manifest(NAME, TAG)
        assert hub.count("HEAD", "/manifests/") == 1
        clock.now += 601
        await access.check_manifest(NAME, TAG)
        assert hub.count("HEAD", "/manifests/") == 2


async def test_a_public_repository_stays_readable_while_the_hub_is_away_but_not_for_ever(hub: FaultyRegistry) -> None:
    clock = Clock()
    async with access_of(hub, clock) as access:
        await access.check_manifest(NAME, TAG)
        await hub.kill()
        clock.now += 3600
        await access.check_manifest(NAME, TAG)
        with pytest.raises(Unavailable):
            await access.check_manifest(RepositoryName(HUB, "team/other"), TAG)
        clock.now += 86_400
        with pytest.raises(Unavailable):
            await access.check_manifest(NAME, TAG)


async def test_a_repository_that_became_private_is_refused_also_when_the_hub_goes_away_then(hub: FaultyRegistry) -> None:
    clock = Clock()
    async with access_of(hub, clock) as access:
        await access.check_manifest(NAME, TAG)
        clock.now += 601
        hub.faults.auth, hub.faults.user = "bearer", ACCOUNT
        with pytest.raises(Denied, match="is not public"):
            await access.check_manifest(NAME, TAG)
        await hub.kill()
        with pytest.raises((Denied, Unavailable)):
            await access.check_manifest(NAME, TAG)


async def test_a_blob_that_no_manifest_names_is_asked_for_once_also_without_the_database(hub: FaultyRegistry) -> None:
    clock, links = Clock(), MemoryLinks()
    links.is_down = True
    async with access_of(hub, clock, links) as access:
        for _ in range(2):
            assert (await access.check_blob(NAME, Digest.of(LAYER)))[1] == len(LAYER)
        assert hub.count("HEAD", "/blobs/") == 2  # As nobody, and then with the account.
        with pytest.raises(NotFound):
            await access.check_blob(NAME, Digest.of(b"no"))
