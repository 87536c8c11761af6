"""Private repositories, for clients whose own credential the upstream takes for them; and for nobody else."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from aiohttp.test_utils import make_mocked_request
from sqlalchemy import text

from mirror.config import wiring
from mirror.config.models import Config
from mirror.config.relations import contradictions
from mirror.errors import InvalidInput, Unavailable
from mirror.oci.challenge import find_bearer, parse_challenges
from mirror.oci.digest import Digest
from mirror.proxy.client_address import AddressRanges
from mirror.proxy.own_address import is_confidential
from mirror.proxy.seal import Seal, seal_key
from mirror.state.engine import Database
from mirror.upstream.model import Credential
from tests.support.faulty_registry import FaultyRegistry
from tests.support.mirror_server import HUB, Answer, Image, MirrorServer, add_image, mirror_server
from tests.support.state import Clock

ADA, BOB, EVE = ("ada", "ada's word"), ("bob", "bob's word"), ("eve", "eve's word")
PUBLIC, PRIVATE, OTHER = "team/open", "team/closed", "bobs/own"
LAYER, SECRET, BOBS = b"public" * 1000, b"secret" * 1000, b"bob" * 1000
CLIENT = {"private": "client"}


@asynccontextmanager
async def passing(
    root: Path, more: Mapping[str, Any] | None = None, **settings: Mapping[str, Any]
) -> AsyncIterator[tuple[MirrorServer, dict[str, Image]]]:
    """A mirror that passes credentials on, with a hub that has a public repository and two private ones. more: upstreams."""
    async with mirror_server(root, upstream=CLIENT, settings=settings, upstreams=more) as mirror:
        mirror.hub.faults.auth = "bearer"
        mirror.hub.faults.readers = {PRIVATE: dict([ADA]), OTHER: dict([BOB])}
        content = ((PUBLIC, LAYER), (PRIVATE, SECRET), (OTHER, BOBS))
        yield mirror, {name: add_image(mirror.hub, name, "1", layer) for name, layer in content}


@pytest.fixture
async def mirror(tmp_path: Path) -> AsyncIterator[MirrorServer]:
    async with passing(tmp_path) as (started, _):
        yield started


def basic(user: str, password: str) -> str:
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


def asked_as_anybody(hub: FaultyRegistry) -> bool:
    return not any((seen.authorization or "").startswith("Basic") for seen in hub.seen)


class Client:
    """Goes the way of docker, podman and all others: a challenge, a token from where it says, the request again."""

    def __init__(self, mirror: MirrorServer, user: tuple[str, str] | None = None) -> None:
        self._mirror = mirror
        self._user = user
        self.challenged = 0

    async def ask(self, method: str, path: str, **headers: str) -> Answer:
        first = await self._mirror.ask(method, path, **headers)
        if first.status != 401:
            return first
        self.challenged += 1
        return await self._mirror.ask(method, path, **headers, Authorization=f"Bearer {await self.token(first)}")

    async def token(self, challenged: Answer) -> str:
        bearer = find_bearer(parse_challenges([challenged.headers["WWW-Authenticate"]]))
        assert bearer is not None
        assert bearer.realm == f"{self._mirror.url}/_debark/v1/token"
        query = {"service": bearer.service or "", **({"scope": bearer.scope} if bearer.scope else {})}
        with_user = {"Authorization": basic(*self._user)} if self._user else {}
        answer = await self._mirror.get(f"/_debark/v1/token?{urlencode(query)}", **with_user)
        assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-store")
        document = json.loads(answer.body)
        assert document["token"] == document["access_token"]
        assert document["expires_in"] >= 60
        token: str = document["token"]
        return token

    async def get(self, path: str) -> Answer:
        return await self.ask("GET", path)


async def test_anybody_pulls_what_is_public_as_before(tmp_path: Path) -> None:
    async with passing(tmp_path) as (mirror, images):
        nobody = Client(mirror)
        assert (await nobody.get("/v2/")).status == 200
        assert nobody.challenged == 1
        for path, body in ((f"manifests/{images[PUBLIC].digest}", images[PUBLIC].raw), (f"blobs/{images[PUBLIC].layer}", LAYER)):
            assert (await mirror.get(f"/v2/{PUBLIC}/{path}")).body == body  # containerd asks without a token
            with_token = await mirror.get(f"/v2/{PUBLIC}/{path}", Authorization="Bearer anonymous")
            assert (with_token.status, with_token.body) == (200, body)
            assert "private" not in with_token.headers.get("Cache-Control", "")


async def test_who_has_said_who_it_is_is_greeted(mirror: MirrorServer) -> None:
    for said, status in ((basic(*ADA), 200), ("Bearer anonymous", 200), ("Basic Og==", 401), ("Basic ?", 401), ("Digest x", 401)):
        answer = await mirror.get("/v2/", Authorization=said)
        assert (answer.status, "WWW-Authenticate" in answer.headers) == (status, status == 401)
    sealed = await Client(mirror, ADA).token(await mirror.get("/v2/"))
    assert (await mirror.get("/v2/", Authorization=f"Bearer {sealed}")).status == 200
    assert (await mirror.get("/v2/", Authorization=f"Bearer {sealed[:-4]}")).status == 401


async def test_anonymous_tokens_do_not_keep_answers_from_being_warm(tmp_path: Path) -> None:
    async with passing(tmp_path, tags={"ttl": 60}) as (mirror, _):
        for _ in range(2):
            await mirror.get(f"/v2/{PUBLIC}/manifests/1", Authorization="Bearer anonymous")
        asked = len(mirror.hub.seen)
        for _ in range(3):
            answer = await mirror.get(f"/v2/{PUBLIC}/manifests/1", Authorization="Bearer anonymous")
            assert answer.headers["X-Debark-Cache"] == "hit"
        assert len(mirror.hub.seen) == asked


async def test_who_may_read_it_at_the_hub_reads_it_here(tmp_path: Path) -> None:
    async with passing(tmp_path) as (mirror, images):
        ada, image = Client(mirror, ADA), images[PRIVATE]
        for path, body in (
            ("manifests/1", image.raw),
            (f"manifests/{image.digest}", image.raw),
            (f"blobs/{image.layer}", SECRET),
            (f"blobs/{image.layer}", SECRET),
        ):
            answer = await ada.get(f"/v2/{PRIVATE}/{path}")
            assert (answer.status, answer.body) == (200, body)
            vary = "Accept, Authorization" if path == "manifests/1" else "Authorization"
            head = await ada.ask("HEAD", f"/v2/{PRIVATE}/{path}")
            assert head.status == 200
            for headers in (answer.headers, head.headers):
                assert (headers["Cache-Control"], headers["Vary"]) == ("private", vary)
        tags = await ada.get(f"/v2/{PRIVATE}/tags/list")
        assert (json.loads(tags.body)["tags"], tags.headers["Cache-Control"]) == (["1"], "private")
        assert (await ada.get(f"/v2/{PRIVATE}/referrers/{image.digest}")).status == 200
        assert mirror.hub.count("GET", f"/blobs/{image.layer}") == 1
        # The same password with the request itself, as containerd's hosts.toml sends it.
        assert (await mirror.get(f"/v2/{PRIVATE}/manifests/1", Authorization=basic(*ADA))).body == image.raw


async def test_nobody_else_does_whatever_they_know(tmp_path: Path) -> None:
    async with passing(tmp_path) as (mirror, images):
        image = images[PRIVATE]
        for path in ("manifests/1", f"manifests/{image.digest}", f"blobs/{image.layer}", f"blobs/{image.config}", "tags/list"):
            assert (await Client(mirror, ADA).get(f"/v2/{PRIVATE}/{path}")).status == 200
        strangers = {None: 401, BOB: 403, EVE: 403, ("ada", "bob's word"): 403, ("ada", ""): 401}
        made_up = Digest.of(b"made up")
        for stranger, status in strangers.items():
            client = Client(mirror, stranger)
            for kind, there, absent in (
                ("manifests", image.digest, made_up),
                ("manifests", "1", "2"),
                ("blobs", image.layer, made_up),
                ("referrers", image.digest, made_up),
                ("tags", "list", "list"),
            ):
                answers = [await client.get(f"/v2/{PRIVATE}/{kind}/{reference}") for reference in (there, absent)]
                assert [answer.status for answer in answers] == [status] * 2
                messages = {answer.message.replace(str(there), "X").replace(str(absent), "X") for answer in answers}
                assert len(messages) == 1
                assert all(len(answer.body) < 600 for answer in answers)


async def test_what_is_here_is_in_no_other_repository(tmp_path: Path) -> None:
    """By its digest, under names that the asker may read: public ones, their own, and those of manifests that they made."""
    async with passing(tmp_path) as (mirror, images):
        secret = images[PRIVATE]
        ada, bob = Client(mirror, ADA), Client(mirror, BOB)
        for path in (f"manifests/{secret.digest}", f"blobs/{secret.layer}"):
            assert (await ada.get(f"/v2/{PRIVATE}/{path}")).status == 200
        # Registries do not look whether foreign layers and subjects are there.
        layers = [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": str(secret.layer), "size": len(SECRET)}]
        config = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": str(images[OTHER].config), "size": 2}
        subject = {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": str(secret.digest),
            "size": len(secret.raw),
        }
        raw = json.dumps({"schemaVersion": 2, "config": config, "layers": layers, "subject": subject}).encode()
        hub = mirror.hub
        held = {key: hub.blobs.pop(key) for key in (str(secret.layer), str(secret.config))}  # One hub, but not for all names.
        for client, name in ((bob, OTHER), (bob, PUBLIC), (Client(mirror), PUBLIC)):
            hub.add_manifest(name, "bait", raw)
            assert (await client.get(f"/v2/{name}/manifests/bait")).status == 200
            for path in (f"manifests/{secret.digest}", f"blobs/{secret.layer}"):
                for method in ("GET", "HEAD"):
                    answer = await client.ask(method, f"/v2/{name}/{path}")
                    # That a manifest names a blob is known of public names; its bytes are not.
                    assert SECRET not in answer.body
                    assert secret.raw not in answer.body
                    assert answer.status == 404 or (method == "HEAD" and name == PUBLIC)
        hub.blobs |= held


async def test_nothing_of_it_is_noted_where_others_look(tmp_path: Path) -> None:
    async with passing(tmp_path) as (mirror, images):
        ada, nobody = Client(mirror, ADA), Client(mirror)
        for name, client in ((PRIVATE, ada), (PUBLIC, nobody)):
            await client.get(f"/v2/{name}/manifests/1")
            await client.get(f"/v2/{name}/blobs/{images[name].layer}")
            await client.get(f"/v2/{name}/tags/list")
        private_answer = await ada.get(f"/v2/{PRIVATE}/manifests/1")
        assert not [name for name in private_answer.headers if name.startswith("X-CVMFS") or name in ("Warning", "Link")]
        status = f"/_debark/v1/images?ref={HUB}/"
        await until_known(mirror, f"{status}{PUBLIC}:1")
        assert (await mirror.get(f"{status}{PRIVATE}:1")).status == 404
        assert (await mirror.get(f"{status}{PRIVATE}@{images[PRIVATE].digest}")).status == 404
        config = Config.model_validate({"server": {"data": mirror.data}})
        database = Database(wiring.database(config))
        try:
            async with database.read() as connection:
                names = (await connection.execute(text("select name from sqlite_master where type = 'table'"))).scalars().all()
                rows = {name: str((await connection.execute(text(f'select * from "{name}"'))).all()) for name in names}
        finally:
            await database.close()
        assert any(PUBLIC in content for content in rows.values())
        for content in rows.values():
            assert PRIVATE not in content
            assert str(images[PRIVATE].digest) not in content
            assert str(images[PRIVATE].layer) not in content
        # The publisher's store is blobs/.
        stored = {path.name for path in (mirror.data / "blobs").rglob("*") if path.is_file()}
        assert images[PUBLIC].layer.hex in stored
        assert not {images[PRIVATE].layer.hex, images[PRIVATE].digest.hex} & stored
        assert (mirror.data / "private").stat().st_mode & 0o077 == 0


async def until_known(mirror: MirrorServer, path: str) -> None:
    known: list[bool] = []
    for _ in range(200):
        if (await mirror.get(path)).status == 200:
            known.append(True)
            break
        await asyncio.sleep(0.05)
    assert known


async def test_a_token_is_for_the_repository_that_it_was_asked_for(mirror: MirrorServer) -> None:
    mirror.hub.faults.readers[OTHER] = dict([ADA])
    challenge = await mirror.get(f"/v2/{PRIVATE}/manifests/1")
    token = f"Bearer {await Client(mirror, ADA).token(challenge)}"
    assert (await mirror.get(f"/v2/{PRIVATE}/manifests/1", Authorization=token)).status == 200
    for _ in range(2):
        other = await mirror.get(f"/v2/{OTHER}/manifests/1", Authorization=token)
        assert other.status == 401
        assert f'scope="repository:{OTHER}:pull"' in other.headers["WWW-Authenticate"]


async def test_a_login_without_a_scope_is_taken_and_seals_no_rights(mirror: MirrorServer) -> None:
    ada = Client(mirror, ADA)
    challenge = await mirror.get("/v2/")
    assert challenge.status == 401
    token = f"Bearer {await ada.token(challenge)}"
    assert (await mirror.get("/v2/", Authorization=token)).status == 200
    assert (await mirror.get(f"/v2/{PRIVATE}/manifests/1", Authorization=token)).status == 401
    for wrong in ("Bearer x", "Bearer gAAAA", f"{token}x", "Basic ?", "Digest x"):
        assert (await mirror.get("/v2/", Authorization=wrong)).status == 401
    assert asked_as_anybody(mirror.hub)


async def test_tokens_by_post(mirror: MirrorServer) -> None:
    mirror.hub.faults.identity_tokens = {"ada's identity": "ada"}
    common = {"service": f"debark/{HUB}", "scope": f"repository:{HUB}/{PRIVATE}:pull", "client_id": "test"}
    for form in (
        {"grant_type": "password", "username": ADA[0], "password": ADA[1]},
        {"grant_type": "refresh_token", "refresh_token": "ada's identity"},
    ):
        async with mirror.session.post(f"{mirror.url}/_debark/v1/token", data={**form, **common}) as answer:
            assert answer.status == 200
            token = (await answer.json())["access_token"]
        assert (await mirror.get(f"/v2/{PRIVATE}/manifests/1", Authorization=f"Bearer {token}")).status == 200
    posted = [seen.form for seen in mirror.hub.seen if seen.form]
    assert posted[0]["refresh_token"] == "ada's identity"
    assert posted[0]["scope"] == f"repository:{PRIVATE}:pull"
    for wrong in ({"grant_type": "magic"}, {}, {"grant_type": "password", "username": "x"}):
        async with mirror.session.post(f"{mirror.url}/_debark/v1/token", data=wrong) as answer:
            assert answer.status == 400
    for content_type, status in (("application/x-www-form-urlencoded", 413), ("application/json", 400)):
        headers = {"Content-Type": content_type}
        async with mirror.session.post(f"{mirror.url}/_debark/v1/token", data=b"x" * 100_000, headers=headers) as answer:
            assert answer.status == status


async def test_a_user_name_may_say_for_which_upstream_it_is(tmp_path: Path) -> None:
    async with FaultyRegistry() as second:
        second.faults.auth, second.faults.readers = "bearer", {PRIVATE: dict([ADA])}
        add_image(second, PRIVATE, "1", SECRET)
        tables = {"second.test": {"url": second.url, "private": "client"}}
        async with passing(tmp_path, tables) as (mirror, _):
            for_second = (f"second.test/{ADA[0]}", ADA[1])
            assert (await Client(mirror, for_second).get(f"/v2/second.test/{PRIVATE}/manifests/1")).status == 200
            direct = basic(*for_second)
            assert (await mirror.get(f"/v2/second.test/{PRIVATE}/manifests/1", Authorization=direct)).status == 200
            for answer in (
                await Client(mirror, for_second).get(f"/v2/{PRIVATE}/manifests/1"),
                await mirror.get(f"/v2/{PRIVATE}/manifests/1", Authorization=direct),
            ):
                assert answer.status == 401
            assert asked_as_anybody(mirror.hub)
            # The namespace of containerd is part of the challenge, and of what the token is for.
            assert (await Client(mirror, ADA).get(f"/v2/{PRIVATE}/manifests/1?ns=second.test")).status == 200
            assert asked_as_anybody(mirror.hub)


async def test_an_upstream_that_takes_no_clients_credentials_gets_none(tmp_path: Path) -> None:
    async with FaultyRegistry() as second:
        second.faults.auth, second.faults.readers = "bearer", {PRIVATE: dict([ADA])}
        add_image(second, PRIVATE, "1", SECRET)
        add_image(second, PUBLIC, "1", LAYER)
        async with passing(tmp_path, {"second.test": {"url": second.url}}) as (mirror, _):
            for path, status in ((PUBLIC, 200), (PRIVATE, 403)):
                answer = await mirror.get(f"/v2/second.test/{path}/manifests/1", Authorization=basic(*ADA))
                assert answer.status == status
            assert asked_as_anybody(second)


@pytest.mark.parametrize("proxies", [["127.0.0.1"], []])
async def test_passwords_are_not_taken_where_others_can_read_them(tmp_path: Path, proxies: list[str]) -> None:
    async with passing(tmp_path, access={"trusted_proxies": proxies}) as (mirror, _):
        by_http, by_tls = {"X_Forwarded_For": "198.51.100.7"}, {"X_Forwarded_For": "198.51.100.7", "X_Forwarded_Proto": "https"}
        for path in (f"/v2/{PRIVATE}/manifests/1", f"/_debark/v1/token?scope=repository:{PRIVATE}:pull"):
            answer = await mirror.get(path, Authorization=basic(*ADA), **by_http)
            assert answer.status == 403
            assert "TLS" in answer.message
        # None is asked for, either: clients would send it.
        assert (await mirror.get("/v2/", **by_http)).status == 200
        plain = await mirror.get(f"/v2/{PRIVATE}/manifests/1", **by_http)
        assert (plain.status, "WWW-Authenticate" in plain.headers) == (403, False)
        assert (await mirror.get(f"/v2/{PUBLIC}/manifests/1", **by_http)).status == 200
        assert asked_as_anybody(mirror.hub)
        asked = await mirror.get("/v2/", **by_tls)
        assert f'realm="{mirror.url.replace("http", "https")}/_debark' in asked.headers["WWW-Authenticate"]
        assert (await mirror.get(f"/v2/{PRIVATE}/manifests/1", Authorization=basic(*ADA), **by_tls)).status == 200


async def test_a_wrong_password_reaches_the_hub_once_and_many_of_them_not_at_all(tmp_path: Path) -> None:
    async with passing(tmp_path, access={"wrong_passwords": 3}) as (mirror, _):
        for _ in range(5):
            assert (await mirror.get(f"/v2/{PRIVATE}/manifests/1", Authorization=basic("ada", "wrong"))).status == 403
        tried = [seen for seen in mirror.hub.seen if (seen.authorization or "").startswith("Basic")]
        assert len(tried) == 1
        statuses = [
            (await mirror.get(f"/v2/{PRIVATE}/manifests/1", Authorization=basic("ada", f"guess {number}"))).status
            for number in range(5)
        ]
        assert statuses == [403, 403, 429, 429, 429]
        # Who has shown a right is not concerned, nor what needs none.
        assert (await mirror.get(f"/v2/{PUBLIC}/manifests/1", Authorization=basic("ada", "guess 7"))).status == 200


@pytest.mark.parametrize("kind", ["basic", "bearer"])
async def test_wrong_passwords_reach_the_hub_no_more_often_when_they_come_at_once(tmp_path: Path, kind: str) -> None:
    async with passing(tmp_path, access={"wrong_passwords": 3}) as (mirror, _):
        mirror.hub.faults.auth = kind

        async def pull(password: str, name: str = PRIVATE) -> int:
            return (await mirror.get(f"/v2/{name}/manifests/1", Authorization=basic("ada", password))).status

        assert await asyncio.gather(*(pull("wrong", name) for name in (PRIVATE, OTHER) * 5)) == [403] * 10
        statuses = await asyncio.gather(*(pull(f"guess {number}") for number in range(20)))
        assert set(statuses) == {403, 429}
        tried = [seen for seen in mirror.hub.seen if (seen.authorization or "").startswith("Basic")]
        assert len(tried) <= 1 + 2 + 3  # the first, two more up to the bound, and those that were on their way then


async def test_a_right_that_was_taken_away_is_gone(tmp_path: Path) -> None:
    async with passing(tmp_path, access={"rights": 1, "rights_kept": 1}) as (mirror, images):
        path = f"/v2/{PRIVATE}/blobs/{images[PRIVATE].layer}"
        assert (await mirror.get(path, Authorization=basic(*ADA))).body == SECRET
        mirror.hub.faults.readers[PRIVATE] = {}

        async def status() -> int:
            return (await mirror.get(path, Authorization=basic(*ADA))).status

        for _ in range(100):
            if await status() != 200:
                break
            await asyncio.sleep(0.05)
        assert await status() == 403


async def test_a_hub_that_is_away_leaves_those_who_have_shown_their_right(tmp_path: Path) -> None:
    async with passing(tmp_path, access={"rights": 1, "rights_kept": 3600}) as (mirror, images):
        manifest = f"/v2/{PRIVATE}/manifests/{images[PRIVATE].digest}"
        assert (await mirror.get(manifest, Authorization=basic(*ADA))).status == 200
        await mirror.hub.kill()
        await asyncio.sleep(1.1)
        assert (await mirror.get(manifest, Authorization=basic(*ADA))).body == images[PRIVATE].raw
        for stranger in (basic(*BOB), "Bearer anonymous"):
            assert (await mirror.get(manifest, Authorization=stranger)).status == 503


async def test_no_secret_is_in_any_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    async with passing(tmp_path) as (mirror, images):
        for user in (ADA, EVE, BOB):
            for path in ("manifests/1", f"blobs/{images[PRIVATE].layer}"):
                await Client(mirror, user).get(f"/v2/{PRIVATE}/{path}")
                await mirror.get(f"/v2/{PRIVATE}/{path}", Authorization=basic(*user))
        await mirror.get("/v2/?token=ada's%20word", Authorization=basic(*ADA))
        sealed = await Client(mirror, ADA).token(await mirror.get("/v2/"))
    printed = "".join(capfd.readouterr()) + (tmp_path / "access.jsonl").read_text()
    assert PRIVATE in printed
    for _, password in (ADA, EVE, BOB):
        assert password not in printed
        assert b64encode(password.encode()).decode()[:12] not in printed
    assert sealed not in printed
    for file in tmp_path.rglob("*"):
        if file.is_file() and file.name != "token_key":
            content = file.read_bytes()
            assert ADA[1].encode() not in content, file
            assert sealed.encode() not in content, file


async def test_it_cannot_be_used_together_with_users_of_the_mirror() -> None:
    config = Config.model_validate({"access": {"users_file": "users"}, "upstreams": {HUB: {"url": "http://x", **CLIENT}}})
    assert [place for place, words in contradictions(config) if "one user and password" in words] == [("access", "users_file")]


@pytest.mark.parametrize(
    ("peer", "headers", "confidential"),
    [
        ("127.0.0.1", {}, True),
        ("::1", {}, True),
        ("::ffff:127.0.0.1", {}, True),
        ("192.0.2.7", {}, False),
        ("192.0.2.7", {"X-Forwarded-Proto": "https"}, False),  # A stranger says so.
        ("10.0.0.7", {"X-Forwarded-Proto": "https"}, True),
        ("10.0.0.7", {"X-Forwarded-Proto": "https, http"}, False),
        ("10.0.0.7", {"X-Forwarded-For": "192.0.2.7"}, False),
        ("10.0.0.7", {}, False),
        ("127.0.0.1", {"X-Forwarded-Proto": "http"}, False),
        ("", {}, False),
    ],
)
def test_where_others_could_read_along(peer: str, headers: dict[str, str], confidential: bool) -> None:
    request = make_mocked_request("GET", "/v2/", headers).clone(remote=peer)
    assert is_confidential(request, AddressRanges.parse(["10.0.0.0/8"])) is confidential


def test_seals_are_for_one_mirror_and_a_short_time(tmp_path: Path) -> None:
    clock = Clock()
    clock.now = 1_000_000.0
    seal = Seal(seal_key(tmp_path / "key"), 300, clock)
    secret = Credential("ada", "wörd\ud800")
    token = seal.close(secret, ["b", "a"])
    for opener in (seal, Seal(seal_key(tmp_path / "key"), 300, clock)):  # Another process of the same mirror.
        opened = opener.open(token)
        assert opened is not None
        assert (opened.credential, opened.names) == (secret, frozenset({"a", "b"}))
    assert "ada" not in token
    assert Seal(seal_key(tmp_path / "other"), 300, clock).open(token) is None
    for spoilt in (token[:-2], token[:20] + "A" + token[21:], "", "ä", "anonymous"):
        assert seal.open(spoilt) is None
    clock.now += 299
    assert seal.open(token) is not None
    clock.now += 3
    assert seal.open(token) is None


def test_the_key_is_for_the_mirrors_user_only(tmp_path: Path) -> None:
    file = tmp_path / "key"
    seal_key(file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["key"]
    file.chmod(0o644)
    with pytest.raises(InvalidInput, match="delete it"):
        seal_key(file)
    file.chmod(0o600)
    file.write_text("no key")
    with pytest.raises(InvalidInput, match="is no key"):
        seal_key(file)
    with pytest.raises(Unavailable, match="cannot be made or read"):
        seal_key(file / "key")
