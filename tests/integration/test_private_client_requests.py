"""What well-known clients send to log in and to pull what is private, answered as each of them needs it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.debark_process import DebarkProcess
from tests.support.hub import READER, Hub
from tests.support.registry_client import Credentials, digest_of
from tests.support.small_images import Image, push_index, tiny
from tests.support.wire_logins import LOGIN_CLIENTS, LoginClient, PrivatePuller

SETTINGS = """
default_upstream = "hub.test"
[tags]
ttl = 0
[upstreams."hub.test"]
private = "client"
[upstreams."closed.test"]
private = "client"
[upstreams."other.test"]
private = "client"
[publish]
enabled = false
"""
OPEN, CLOSED, OTHER = "/v2/{name}", "/v2/closed.test/{name}", "/v2/other.test/{name}"
APP = "team/app"


@pytest.fixture(scope="module")
def image() -> Image:
    return tiny("for those who may")


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory, image: Image) -> Iterator[Hub]:
    with Hub(tmp_path_factory.mktemp("closed"), private=True) as started:
        push_index(started.client(), APP, "1", [image])
        yield started


@pytest.fixture(scope="module")
def debark(hub: Hub, closed: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DebarkProcess]:
    """Its default upstream is open; two others are one registry that wants a password."""
    push_index(hub.client(), "everybody/app", "1", [tiny("for everybody")])
    upstreams = {"hub.test": hub.url, "closed.test": closed.url, "other.test": closed.url}
    with DebarkProcess(tmp_path_factory.mktemp("debark"), upstreams, SETTINGS) as started:
        yield started


@pytest.fixture(params=LOGIN_CLIENTS, ids=lambda client: client.name)
def client(request: pytest.FixtureRequest) -> LoginClient:
    found: LoginClient = request.param
    return found


def blobs_of(image: Image) -> dict[str, bytes]:
    return {digest_of(data): data for data in (image.config, *(layer.packed for layer in image.layers))}


def logged_in(client: LoginClient) -> list[int]:
    """Statuses, after which a client says that the login was right."""
    return [{"ping": 401, "token": 200, "again": 200}[step] for step in client.login]


def refusal(client: LoginClient, debark: DebarkProcess, credentials: Credentials | None = None) -> tuple[int, str, str]:
    """Status, code and message of the answer for the manifest, after which a client gives up."""
    puller = PrivatePuller(client, debark.address, credentials).of(APP)
    if client.client.begins[:1] == ("GET /v2/",):
        assert puller.ask("GET", "/v2/").status == 200
    reply = puller.manifest("GET", APP, "1")
    puller.close()
    error = json.loads(reply.body)["errors"][0]
    return reply.status, error["code"], error["message"]


def test_who_has_logged_in_gets_what_is_private_and_nobody_else_does(
    debark: DebarkProcess, client: LoginClient, image: Image
) -> None:
    private = client.on(CLOSED)
    for credentials in (READER, Credentials(f"closed.test/{READER.user}", READER.password)):
        puller = PrivatePuller(private, debark.address, credentials)
        assert puller.log_in() == logged_in(client)
        assert puller.of(APP).pull(APP, "1").blobs == blobs_of(image)
    # Without a login, and after a logout, which is the same on the wire: the content is here by now.
    status, code, message = refusal(private, debark)
    assert (status, code) == (401, "UNAUTHORIZED")
    assert "log in with an account of closed.test" in message


def test_a_wrong_password_is_refused_by_the_pull_in_words(debark: DebarkProcess, client: LoginClient) -> None:
    stranger = Credentials(READER.user, "read me not")
    puller = PrivatePuller(client.on(CLOSED), debark.address, stranger)
    assert puller.log_in() == logged_in(client)  # Only the upstream knows whether it is right.
    status, code, message = refusal(client.on(CLOSED), debark, stranger)
    assert (status, code) == (403, "DENIED")
    assert "closed.test refuses the user name and password" in message
    assert stranger.password not in message


def test_a_user_of_one_upstream_is_nobody_at_another(debark: DebarkProcess, client: LoginClient) -> None:
    status, code, message = refusal(client.on(OTHER), debark, Credentials(f"closed.test/{READER.user}", READER.password))
    assert (status, code) == (401, "UNAUTHORIZED")
    assert "log in with an account of other.test" in message


@pytest.mark.parametrize("credentials", [None, READER, Credentials(READER.user, "read me not")], ids=["nobody", "user", "wrong"])
def test_what_is_public_is_for_all(debark: DebarkProcess, client: LoginClient, credentials: Credentials | None) -> None:
    pulled = PrivatePuller(client.on(OPEN), debark.address, credentials).of("everybody/app").pull("everybody/app", "1")
    assert pulled.blobs == blobs_of(tiny("for everybody"))
