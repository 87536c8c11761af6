"""Who may use the mirror: by address, by password, by token, and how much."""

from __future__ import annotations

import json
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import bcrypt
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from mirror.errors import InvalidInput, TooManyRequests, Unavailable
from mirror.proxy.client_address import AddressRanges, client_address
from mirror.proxy.client_limits import ClientGate, ClientLimits
from mirror.proxy.passwords import PasswordFile, read_users
from mirror.proxy.tokens import Issuer, TokenVerifier
from tests.support.mirror_server import MirrorServer, add_image, mirror_server
from tests.support.state import Clock

PROXIES = AddressRanges.parse(["127.0.0.1", "10.0.0.0/8", "2001:db8::/32"])
ISSUER = "https://tokens.example.org"


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.7", ["198.51.100.1"], "192.0.2.7"),  # made up: the peer is no proxy of ours
        ("127.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("127.0.0.1", ["203.0.113.9, 198.51.100.1"], "198.51.100.1"),  # the first one is made up by the second
        ("127.0.0.1", ["198.51.100.1, 10.1.2.3"], "198.51.100.1"),
        ("127.0.0.1", ["198.51.100.1", "10.1.2.3"], "198.51.100.1"),
        ("::ffff:127.0.0.1", ["198.51.100.1:4711"], "198.51.100.1"),
        ("2001:db8::1", ["[2001:db9::7]:4711"], "2001:db9::7"),
        ("127.0.0.1", ["2001:db9::7"], "2001:db9::7"),
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", ["unknown"], "unknown"),
    ],
)
def test_the_client_behind_proxies(peer: str, forwarded: list[str], client: str) -> None:
    assert client_address(peer, forwarded, PROXIES) == client


def test_what_is_no_address_is_in_no_range() -> None:
    everything = AddressRanges.parse(["0.0.0.0/0", "::/0"])
    assert "192.0.2.1" in everything
    assert "::1" in everything
    assert "unknown" not in everything
    assert "" not in everything


def users_file(path: Path, **users: str) -> Path:
    lines = [f"{name}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()}" for name, password in users.items()]
    path.write_text("\n".join(["# users", "", *lines]))
    return path


async def test_right_passwords_are_right_and_wrong_ones_wrong(tmp_path: Path) -> None:
    clock = Clock()
    users = PasswordFile(users_file(tmp_path / "users", ada="open sesame", bob="höhle"), timer=clock)
    for _ in range(2):
        assert await users.verify("ada", "open sesame")
        assert await users.verify("bob", "höhle")
        for wrong in ("höhle", "", "open sesame\0", "x" * 73):
            assert not await users.verify("ada", wrong)
        for nobody in ("eve", ""):
            assert not await users.verify(nobody, "open sesame")
    users_file(tmp_path / "users", ada="another one")
    clock.now += 2
    assert not await users.verify("ada", "open sesame")
    assert await users.verify("ada", "another one")
    (tmp_path / "users").write_text("ada:plain text")
    clock.now += 2
    assert await users.verify("ada", "another one")  # what it said before, while it is broken


@pytest.mark.parametrize("line", ["ada", "ada:secret", "ada:$apr1$x$y", "ada:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", ":$2y$05$x"])
def test_a_password_that_is_kept_badly_is_refused_and_not_shown(tmp_path: Path, line: str) -> None:
    file = tmp_path / "users"
    file.write_text(f"\n{line}\n")
    with pytest.raises(InvalidInput, match=r"line 2 of .* htpasswd -B") as caught:
        read_users(file)
    assert "secret" not in str(caught.value)


class TokenService:
    """An issuer with two keys."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "keys.json"
        self.first = ec.generate_private_key(ec.SECP256R1())
        self.second = rsa.generate_private_key(65537, 2048)
        self.publish(self.first, self.second)

    def publish(self, *keys: Any) -> None:
        published = []
        for key in keys:
            curve = isinstance(key, ec.EllipticCurvePrivateKey)
            algorithm: Any = jwt.algorithms.ECAlgorithm if curve else jwt.algorithms.RSAAlgorithm
            document = json.loads(algorithm.to_jwk(key.public_key()))
            published.append({**document, "kid": str(id(key)), "alg": "ES256" if curve else "RS256"})
        self.file.write_text(json.dumps({"keys": published}))

    def token(self, key: Any = None, **claims: Any) -> str:
        key = key or self.first
        stated = {"iss": ISSUER, "aud": "debark", "sub": "ada", "exp": time.time() + 60, **claims}
        given = {name: value for name, value in stated.items() if value is not None}
        algorithm = "ES256" if isinstance(key, ec.EllipticCurvePrivateKey) else "RS256"
        return jwt.encode(given, key, algorithm, headers={"kid": str(id(key))})


@pytest.fixture
def service(tmp_path: Path) -> TokenService:
    return TokenService(tmp_path)


def verifier(service: TokenService, clock: Clock | None = None) -> TokenVerifier:
    return TokenVerifier([Issuer(ISSUER, "debark", service.file)], timer=clock or Clock())


def test_tokens_of_an_issuer_tell_who_somebody_is(service: TokenService) -> None:
    tokens = verifier(service)
    assert tokens.user(service.token()) == "ada"
    assert tokens.user(service.token(service.second, sub="bob", aud=["x", "debark"])) == "bob"


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": 1},
        {"exp": None},
        {"nbf": 4_000_000_000},
        {"aud": "another"},
        {"aud": None},
        {"iss": "https://another"},
        {"iss": None},
        {"sub": ""},
        {"sub": None},
    ],
    ids=str,
)
def test_tokens_that_are_not_for_us_or_not_now(service: TokenService, claims: dict[str, Any]) -> None:
    assert verifier(service).user(service.token(**claims)) is None


def test_tokens_that_nobody_signed(service: TokenService) -> None:
    tokens, good = verifier(service), service.token()
    stranger = ec.generate_private_key(ec.SECP256R1())
    head, body, _ = good.split(".")
    claims = {"iss": ISSUER, "aud": "debark", "sub": "ada", "exp": 4_000_000_000}
    unsigned = jwt.encode(claims, "", "none")
    shared = jwt.encode(claims, service.file.read_text() * 2, "HS256")
    cut = [f"{head}.{body}.", f"{head}.{body}.AAAA", f"{head}.{body}", "x", "", "a.b.c", good * 100]
    for wrong in (service.token(stranger), unsigned, shared, *cut):
        assert tokens.user(wrong) is None


def test_keys_may_change(service: TokenService) -> None:
    clock = Clock()
    tokens, old = verifier(service, clock), service.token(service.first)
    assert tokens.user(old) == "ada"
    service.publish(service.second)
    clock.now += 2
    assert tokens.user(old) is None
    assert tokens.user(service.token(service.second)) == "ada"


@pytest.mark.parametrize("text", ["", "{}", '{"keys": []}', '{"keys": [{"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"}]}', "[1]"])
def test_what_is_no_set_of_public_keys_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "keys.json"
    file.write_text(text)
    with pytest.raises(InvalidInput, match=r"keys\.json"):
        TokenVerifier([Issuer(ISSUER, "debark", file)])


def test_one_client_cannot_have_everything() -> None:
    clock = Clock()
    gate = ClientGate(ClientLimits(requests=2, rate=10, burst=3), clock)
    gate.enter("a")
    gate.enter("a")
    with pytest.raises(Unavailable, match="a has 2 requests"):
        gate.enter("a")
    gate.enter("b")
    gate.leave("a")
    with pytest.raises(TooManyRequests, match="more than 10 requests a second") as caught:
        gate.enter("a")
    assert caught.value.retry_after == pytest.approx(0.1)
    clock.now += 0.15
    gate.enter("a")
    with pytest.raises(TooManyRequests):
        gate.enter("a")


def guarded(root: Path, **access: Any) -> AbstractAsyncContextManager[MirrorServer]:
    return mirror_server(root, settings={"access": access})


def basic(user: str, password: str) -> str:
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


@pytest.fixture
async def mirror(tmp_path: Path, service: TokenService) -> AsyncIterator[MirrorServer]:
    issuers = {ISSUER: {"audience": "debark", "keys_file": str(service.file)}}
    async with guarded(tmp_path, users_file=str(users_file(tmp_path / "users", ada="sesame")), issuers=issuers) as started:
        add_image(started.hub, "team/app", "1", b"layer")
        yield started


async def test_pulls_want_a_password_or_a_token(mirror: MirrorServer, service: TokenService) -> None:
    for path in ("/v2/", "/v2/team/app/manifests/1", "/v2/team/app/tags/list"):
        for wrong in ("", basic("ada", "wrong"), "Bearer x", "Basic Og==", "Basic ?", "Digest x"):
            answer = await mirror.get(path, Authorization=wrong)
            assert (answer.status, answer.code) == (401, "UNAUTHORIZED")
            assert answer.headers["WWW-Authenticate"].startswith('Basic realm="debark"')
        for right in (basic("ada", "sesame"), f"Bearer {service.token()}", basic("anything", service.token())):
            assert (await mirror.get(path, Authorization=right)).status == 200
    assert all(seen.authorization is None for seen in mirror.hub.seen)  # what is meant for the mirror goes no further
    for path in ("/healthz", "/metrics", "/_debark/v1/repositories"):
        assert (await mirror.get(path)).status == 200


async def test_the_access_log_tells_who_it_was(tmp_path: Path, service: TokenService) -> None:
    file = users_file(tmp_path / "users", ada="sesame")
    async with guarded(tmp_path, users_file=str(file), trusted_proxies=["127.0.0.1"]) as mirror:
        await mirror.get("/v2/", Authorization=basic("ada", "sesame"), X_Forwarded_For="198.51.100.1")
        await mirror.get("/v2/")
    found = [(line["client"], line["user"], line["status"]) for line in mirror.access_lines()]
    assert found == [("198.51.100.1", "ada", 200), ("127.0.0.1", "", 401)]


async def test_addresses_that_are_not_allowed(tmp_path: Path) -> None:
    async with guarded(tmp_path, allow=["10.0.0.0/8"], trusted_proxies=["127.0.0.1"]) as mirror:
        for path in ("/v2/", "/metrics", "/_debark/v1/repositories", "/cvmfs/x/y"):
            answer = await mirror.get(path)
            assert (answer.status, answer.code) == (403, "DENIED")
            assert "127.0.0.1" in answer.message
        assert (await mirror.get("/v2/", X_Forwarded_For="10.1.2.3")).status == 200
        assert (await mirror.get("/healthz")).status == 200


async def test_a_client_that_asks_too_fast_is_told_when_to_come_again(tmp_path: Path) -> None:
    async with guarded(tmp_path, rate=0.01, burst=2) as mirror:
        assert [(await mirror.get("/v2/")).status for _ in range(2)] == [200, 200]
        answer = await mirror.get("/v2/")
        assert (answer.status, answer.code) == (429, "TOOMANYREQUESTS")
        assert int(answer.headers["Retry-After"]) > 50
        assert (await mirror.get("/healthz")).status == 200


async def test_each_address_and_each_user_has_a_rate_of_its_own(tmp_path: Path) -> None:
    async with guarded(tmp_path, rate=0.01, burst=1, trusted_proxies=["127.0.0.1"]) as mirror:
        for address in ("198.51.100.1", "198.51.100.2"):
            assert [(await mirror.get("/v2/", X_Forwarded_For=address)).status for _ in range(2)] == [200, 429]
    file = users_file(tmp_path / "users", ada="sesame", bob="open")
    async with guarded(tmp_path, rate=0.01, burst=1, users_file=str(file)) as mirror:
        for user in (basic("ada", "sesame"), basic("bob", "open")):
            assert [(await mirror.get("/v2/", Authorization=user)).status for _ in range(2)] == [200, 429]


@pytest.mark.parametrize(
    "path",
    [
        "/v2/team/app/manifests/1",
        "/%76%32/team/app/manifests/1",
        "//v2/team/app/manifests/1",
        "/./v2/team/app/manifests/1",
        "/healthz/../v2/team/app/manifests/1",
        "/V2/team/app/manifests/1",
        "/v2%2fteam/app/manifests/1",
        "/v2/team/app/manifests/1?x=/healthz",
        "/v2;x/team/app/manifests/1",
    ],
)
async def test_no_way_of_writing_a_path_leads_past_the_password(tmp_path: Path, path: str) -> None:
    file = users_file(tmp_path / "users", ada="open sesame")
    async with mirror_server(tmp_path, settings={"access": {"users_file": str(file)}}) as mirror:
        image = add_image(mirror.hub, "team/app", "1", b"layer")
        right = b64encode(b"ada:open sesame").decode()
        assert (await mirror.get("/v2/team/app/manifests/1", Authorization=f"Basic {right}")).body == image.raw
        answer = await mirror.get(path)
        assert answer.status in {401, 404}
        assert image.raw not in answer.body
