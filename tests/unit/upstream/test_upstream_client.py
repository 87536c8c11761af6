"""The client of an upstream, against a registry that misbehaves."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from mirror.errors import Denied, IntegrityError, NotFound, Unavailable
from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_INDEX, OCI_MANIFEST
from mirror.oci.reference import Reference
from mirror.upstream.client import UpstreamClient
from mirror.upstream.model import Credential, Failure, UpstreamUnavailable
from mirror.upstream.session import GuardedResolver
from tests.support.faulty_registry import Faults, FaultyRegistry
from tests.support.upstreams import client_of

pytestmark = pytest.mark.usefixtures("every_way_of_reading")

BLOB = bytes(range(256)) * 2000
MANIFEST = b'{"schemaVersion": 2, "config": {}, "layers": []}\n'
TAG = Reference(tag="1")


@pytest.fixture
async def hub() -> AsyncIterator[FaultyRegistry]:
    async with FaultyRegistry() as registry:
        registry.add_blob(BLOB)
        registry.add_manifest("team/app", "1", MANIFEST)
        yield registry


DIGEST = Digest.of(BLOB)


async def read(client: UpstreamClient, offset: int = 0) -> bytes:
    async with client.open_blob("team/app", DIGEST, offset) as stream:
        return b"".join([chunk async for chunk in stream.chunks])


async def test_manifests_come_byte_for_byte(hub: FaultyRegistry) -> None:
    async with client_of(hub.url) as client:
        info = await client.head_manifest("team/app", TAG)
        found = await client.get_manifest("team/app", TAG)
        by_digest = await client.get_manifest("team/app", Reference(digest=found.digest))

    assert (info.digest, info.media_type, info.size) == (Digest.of(MANIFEST), OCI_MANIFEST, len(MANIFEST))
    assert (found.raw, found.media_type, found.digest) == (MANIFEST, OCI_MANIFEST, Digest.of(MANIFEST))
    assert by_digest == found
    assert {request.accept_encoding for request in hub.seen} == {"identity"}


async def test_a_manifest_may_state_its_own_type(hub: FaultyRegistry) -> None:
    hub.faults.content_type = "application/json; charset=utf-8"
    hub.add_manifest("team/app", "index", b'{"manifests": []}')
    async with client_of(hub.url) as client:
        assert (await client.get_manifest("team/app", TAG)).media_type == OCI_MANIFEST
        assert (await client.get_manifest("team/app", Reference(tag="index"))).media_type == OCI_INDEX


async def test_a_wrong_manifest_is_refused(hub: FaultyRegistry) -> None:
    async with client_of(hub.url) as client:
        hub.faults.wrong_content = True
        with pytest.raises(IntegrityError, match="another digest"):
            await client.get_manifest("team/app", Reference(digest=Digest.of(MANIFEST)))
        hub.faults.wrong_content = False
        hub.faults.content_encoding = "gzip"
        with pytest.raises(IntegrityError, match="encoded"):
            await client.get_manifest("team/app", TAG)


async def test_a_manifest_has_a_limit(hub: FaultyRegistry) -> None:
    async with client_of(hub.url, max_manifest_bytes=20) as client:
        with pytest.raises(IntegrityError, match="more than 20 bytes"):
            await client.get_manifest("team/app", TAG)


async def test_blobs_come_from_an_offset(hub: FaultyRegistry) -> None:
    async with client_of(hub.url) as client:
        assert await client.head_blob("team/app", DIGEST) == len(BLOB)
        assert await read(client) == BLOB
        async with client.open_blob("team/app", DIGEST, 70_000) as stream:
            assert (stream.status, stream.total) == (206, len(BLOB))
            assert b"".join([chunk async for chunk in stream.chunks]) == BLOB[70_000:]


async def test_a_server_that_ignores_ranges_is_read_from_its_start(hub: FaultyRegistry) -> None:
    hub.faults.ignore_range = True
    async with client_of(hub.url) as client, client.open_blob("team/app", DIGEST, 70_000) as stream:
        assert (stream.status, stream.total) == (200, len(BLOB))
        assert b"".join([chunk async for chunk in stream.chunks]) == BLOB[70_000:]


async def test_nothing_is_after_the_end(hub: FaultyRegistry) -> None:
    async with client_of(hub.url) as client, client.open_blob("team/app", DIGEST, len(BLOB)) as stream:
        assert (stream.status, stream.total) == (416, len(BLOB))
        assert [chunk async for chunk in stream.chunks] == []


async def test_encoded_blobs_are_refused(hub: FaultyRegistry) -> None:
    hub.faults.content_encoding = "gzip"
    async with client_of(hub.url) as client:
        with pytest.raises(IntegrityError, match="gzip"):
            await read(client)


@pytest.mark.parametrize(
    ("status", "error", "requests"),
    [
        (404, NotFound, 1),
        (403, Denied, 1),
        (429, Unavailable, 1),
        (503, Unavailable, 3),
        (500, Unavailable, 3),
        (418, Unavailable, 1),
    ],
)
async def test_statuses(hub: FaultyRegistry, status: int, error: type[Exception], requests: int) -> None:
    hub.faults.status = status
    async with client_of(hub.url) as client:
        with pytest.raises(error, match=r"hub\.test.*manifest team/app:1.*the hub says no"):
            await client.get_manifest("team/app", TAG)
    assert hub.count("GET") == requests


async def test_a_throttling_upstream_says_for_how_long(hub: FaultyRegistry) -> None:
    hub.faults.status, hub.faults.headers = 429, {"Retry-After": "77"}
    async with client_of(hub.url) as client:
        with pytest.raises(UpstreamUnavailable) as caught:
            await client.head_manifest("team/app", TAG)
    assert (caught.value.failure, caught.value.retry_after) == (Failure.THROTTLED, 77.0)


async def test_a_short_outage_is_not_noticed(hub: FaultyRegistry) -> None:
    hub.faults.statuses = [502, 503]
    async with client_of(hub.url) as client:
        assert (await client.get_manifest("team/app", TAG)).raw == MANIFEST


async def test_silence_ends(hub: FaultyRegistry) -> None:
    hub.faults.before_headers = 5.0
    async with client_of(hub.url, read_timeout=0.1) as client:
        with pytest.raises(UpstreamUnavailable, match=r"silent for 0\.1 s") as caught:
            await client.get_manifest("team/app", TAG)
    assert caught.value.failure is Failure.TIMEOUT
    assert hub.count("GET") == 1


async def test_an_upstream_that_is_away(hub: FaultyRegistry) -> None:
    await hub.kill()
    async with client_of(hub.url) as client:
        with pytest.raises(UpstreamUnavailable, match=r"hub\.test cannot be reached") as caught:
            await client.get_manifest("team/app", TAG)
    assert caught.value.failure is Failure.UNREACHABLE


# Rights


async def test_an_anonymous_token_serves_many_requests(hub: FaultyRegistry) -> None:
    hub.faults.auth = "bearer"
    async with client_of(hub.url) as client:
        await client.get_manifest("team/app", TAG)
        assert await read(client) == BLOB
    assert hub.count("GET", "/token") == 1


async def test_an_expired_token_is_replaced(hub: FaultyRegistry) -> None:
    hub.faults.auth, hub.faults.token_uses = "bearer", 1
    async with client_of(hub.url) as client:
        for _ in range(3):
            assert await read(client) == BLOB
    assert hub.count("GET", "/token") == 3


async def test_an_upstream_that_says_nothing_to_an_expired_token(hub: FaultyRegistry) -> None:
    hub.faults.auth = "bearer"
    async with client_of(hub.url) as client:
        await read(client)
        hub.faults.token_uses, hub.faults.statuses = 1, [401]
        assert await read(client) == BLOB
    assert hub.count("GET", "/token") == 2


async def test_a_token_that_never_suffices_is_a_denial(hub: FaultyRegistry) -> None:
    hub.faults.auth, hub.faults.token_uses = "bearer", 0
    async with client_of(hub.url) as client:
        with pytest.raises(Denied, match=r"hub\.test denies access to manifest team/app:1"):
            await client.get_manifest("team/app", TAG)
    assert hub.count("GET", "/token") == 1


@pytest.mark.parametrize("auth", ["bearer", "basic"])
async def test_user_and_password(hub: FaultyRegistry, auth: str) -> None:
    hub.faults.auth, hub.faults.user = auth, ("me", "pass:word")
    async with client_of(hub.url, credential=Credential("me", "pass:word")) as client:
        assert not client.anonymous
        assert await read(client) == BLOB
        assert await read(client) == BLOB
    assert hub.count("GET", "/blobs/") == 3


@pytest.mark.parametrize("auth", ["bearer", "basic"])
async def test_a_wrong_password_is_not_tried_again_at_once(hub: FaultyRegistry, auth: str) -> None:
    hub.faults.auth, hub.faults.user = auth, ("me", "right")
    async with client_of(hub.url, credential=Credential("me", "wrong")) as client:
        for _ in range(5):
            with pytest.raises(Denied, match=r"^(?!.*wrong)"):
                await client.get_manifest("team/app", TAG)
    tried = [request for request in hub.seen if request.authorization and request.authorization.startswith("Basic")]
    assert len(tried) == 1


async def test_an_anonymous_client_proves_what_everybody_may_read(hub: FaultyRegistry) -> None:
    hub.faults.auth, hub.faults.user = "bearer", ("me", "right")
    async with client_of(hub.url, anonymous=True, credential=Credential("me", "right")) as client:
        assert client.anonymous
        with pytest.raises(Denied, match="an anonymous client"):
            await client.head_blob("team/app", DIGEST)
    assert not any((request.authorization or "").startswith("Basic") for request in hub.seen)


@pytest.mark.parametrize(
    ("challenge", "words"),
    [
        ('Bearer realm="https://evil.example/token"', "trusted_hosts"),
        ('Bearer realm="http://169.254.169.254/token"', "not encrypted"),
        ("Negotiate", "does not say how"),
        ("", "does not say how"),
        ('Bearer realm="::::"', "web address"),
    ],
)
async def test_credentials_go_to_no_strange_place(hub: FaultyRegistry, challenge: str, words: str) -> None:
    hub.faults.auth, hub.faults.challenge = "bearer", challenge
    async with client_of(hub.url, credential=Credential("me", "secret")) as client:
        with pytest.raises(Denied, match=words):
            await client.get_manifest("team/app", TAG)


async def test_a_token_service_that_redirects_is_not_followed(hub: FaultyRegistry) -> None:
    hub.faults.auth, hub.faults.token_status, hub.faults.headers = "bearer", 307, {"Location": "/elsewhere"}
    async with client_of(hub.url, credential=Credential("me", "secret")) as client:
        with pytest.raises(Denied, match="no token"):
            await client.get_manifest("team/app", TAG)
    assert hub.count("GET", "/elsewhere") == 0


@pytest.mark.parametrize(("status", "failure"), [(429, Failure.THROTTLED), (503, Failure.ERROR)])
async def test_a_token_service_in_trouble_is_no_denial(hub: FaultyRegistry, status: int, failure: Failure) -> None:
    hub.faults.auth, hub.faults.token_status = "bearer", status
    async with client_of(hub.url) as client:
        with pytest.raises(UpstreamUnavailable, match="token service") as caught:
            await client.get_manifest("team/app", TAG)
    assert caught.value.failure is failure


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"<html>", "not JSON"),
        (b"", "not JSON"),
        (b'["token"]', "without a token"),
        (b'{"token": 7}', "without a token"),
        (b'{"token": "a\\nb"}', "without a token"),
        (b'{"token": "t", "filling": "' + b"x" * (1 << 20) + b'"}', "more than"),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_a_token_service_that_talks_nonsense(hub: FaultyRegistry, body: bytes, words: str) -> None:
    hub.faults.auth, hub.faults.token_body = "bearer", body
    async with client_of(hub.url) as client:
        with pytest.raises(UpstreamUnavailable, match=words) as caught:
            await client.get_manifest("team/app", TAG)
    assert caught.value.failure is Failure.PROTOCOL


# Redirects


async def test_a_redirect_to_a_trusted_host_carries_no_rights(hub: FaultyRegistry) -> None:
    async with FaultyRegistry() as bucket:
        bucket.add_blob(BLOB)
        hub.faults.auth, hub.faults.redirect = "bearer", bucket.url
        async with client_of(hub.url) as client:
            assert await read(client, 1000) == BLOB[1000:]
        (request,) = bucket.seen
    assert request.authorization is None
    assert request.range == "bytes=1000-"
    assert request.query == "signature=a%2Fb%3D"


async def test_manifests_may_be_elsewhere_too(hub: FaultyRegistry) -> None:
    async with FaultyRegistry() as regional:
        regional.add_manifest("team/app", "1", MANIFEST)
        hub.faults.auth, hub.faults.redirect, hub.faults.redirect_manifests = "bearer", regional.url, True
        async with client_of(hub.url) as client:
            assert (await client.head_manifest("team/app", TAG)).digest == Digest.of(MANIFEST)
            assert (await client.get_manifest("team/app", TAG)).raw == MANIFEST
            with pytest.raises(NotFound):
                await client.get_manifest("team/app", Reference(tag="2"))
    assert {request.authorization for request in regional.seen} == {None}


@pytest.mark.parametrize("auth", ["bearer", "basic"])
@pytest.mark.parametrize("status", [401, 403])
async def test_what_refuses_behind_a_redirect_says_nothing_of_the_account(hub: FaultyRegistry, status: int, auth: str) -> None:
    async with FaultyRegistry(Faults(status=status)) as bucket:
        hub.faults.auth, hub.faults.user, hub.faults.redirect = auth, ("me", "right"), bucket.url
        async with client_of(hub.url, credential=Credential("me", "right")) as client:
            with pytest.raises(Denied):
                await read(client)
            hub.faults.redirect = None
            assert await read(client) == BLOB
    assert hub.count("GET", "/token") == (auth == "bearer")


async def test_a_redirect_to_a_strange_host_is_refused(hub: FaultyRegistry) -> None:
    hub.faults.redirect = f"http://localhost:{hub.port}"
    async with client_of(hub.url) as client:
        with pytest.raises(Denied, match=r"add 'localhost' to the trusted_hosts of hub\.test"):
            await read(client)
    assert len(hub.seen) == 1


async def test_a_name_that_leads_to_a_private_address_is_refused(hub: FaultyRegistry) -> None:
    hub.faults.redirect = f"http://localhost:{hub.port}"
    async with client_of(hub.url, trusted_hosts=("localhost",)) as client:
        with pytest.raises(Unavailable, match="no public address"):
            await read(client)
    assert len(hub.seen) == 1


async def test_redirects_in_a_circle_end(hub: FaultyRegistry) -> None:
    hub.faults.redirect_loop = True
    async with client_of(hub.url) as client:
        with pytest.raises(UpstreamUnavailable, match="more than 5 times"):
            await read(client)
    assert len(hub.seen) == 6


class _Names(AbstractResolver):
    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        addresses = ("10.0.0.1", "93.184.216.34") if host == "mixed.example" else ("169.254.169.254",)
        return [ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0) for address in addresses]

    async def close(self) -> None:
        """Nothing is open."""


async def test_the_resolver_gives_only_addresses_that_may_be_dialled() -> None:
    resolver = GuardedResolver(_Names(), ["lab.example", "*.inside.example"])

    assert [found["host"] for found in await resolver.resolve("mixed.example")] == ["93.184.216.34"]
    assert len(await resolver.resolve("hub.inside.example")) == 1
    with pytest.raises(OSError, match="no public address"):
        await resolver.resolve("metadata.example")
