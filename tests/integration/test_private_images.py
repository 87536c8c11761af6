"""A real hub behind a password, and a real client: who has the password pulls through the mirror; nobody else learns anything."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from tests.support.clients import Skopeo
from tests.support.debark_process import DebarkProcess
from tests.support.hub import READER, Hub
from tests.support.registry_client import Credentials, RegistryClient
from tests.support.small_images import tiny
from tests.support.tool import ToolFailed

SETTINGS = """
[tags]
ttl = 0
[server]
keepalive = 1
[upstreams."closed.test"]
private = "client"
"""
STRANGER = Credentials("reader", "read me not")


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with Hub(tmp_path_factory.mktemp("closed"), private=True) as started:
        tiny("secret").push(started.client(), "team/app", "1")
        yield started


@pytest.fixture(scope="module")
def debark(hub: Hub, closed: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DebarkProcess]:
    """With the hub of the session for everybody, and one that takes clients' own credentials."""
    tiny("open").push(hub.client(), "everybody/app", "1")
    upstreams = {"hub.test": hub.url, "closed.test": closed.url}
    with DebarkProcess(tmp_path_factory.mktemp("debark"), upstreams, SETTINGS) as started:
        yield started


def test_real_clients_with_and_without_the_password(debark: DebarkProcess, closed: Hub, hub: Hub, tmp_path: Path) -> None:
    private, public = f"{debark.address}/closed.test/team/app:1", f"{debark.address}/hub.test/everybody/app:1"
    nobody, reader, namespaced, stranger = (Skopeo(tmp_path / name) for name in ("nobody", "reader", "namespaced", "stranger"))
    reader.login(debark.address, READER)
    namespaced.login(f"{debark.address}/closed.test", READER)
    stranger.login(debark.address, STRANGER)

    for client in (nobody, stranger):
        with pytest.raises(ToolFailed):
            client.pull(private, "before")
    for client in (reader, namespaced):
        assert client.pull(private, "private").differences(closed, "team/app", "1") == []
    for client in (nobody, stranger):  # Now it is here.
        with pytest.raises(ToolFailed) as caught:
            client.pull(private, "after")
        assert READER.password not in str(caught.value)
    for client in (nobody, reader, stranger):
        assert client.pull(public, "public").differences(hub, "everybody/app", "1") == []

    debark.wait_for("hub.test/everybody/app:1")  # What was pulled before it would be known by now.
    assert debark.image("closed.test/team/app:1") is None
    secret = named_by(closed, "team/app") - named_by(hub, "everybody/app")
    assert secret
    for digest in secret:
        assert RegistryClient(debark.address).blob("hub.test/everybody/app", digest).status == 404
        hexadecimal = digest.removeprefix("sha256:")
        assert [path.relative_to(debark.data).parts[0] for path in debark.data.rglob(hexadecimal)] == ["private"]
    assert not list((debark.data / "cvmfs").rglob("*closed.test*"))
    texts = [debark.output(), *(path.read_text() for path in (debark.data / "log").iterdir())]
    assert any("closed.test" in text for text in texts)
    for text in texts:
        for credentials in (READER, STRANGER):
            assert credentials.password not in text
            assert credentials.basic not in text


def named_by(hub: Hub, repository: str) -> set[str]:
    """Digests of config and layers."""
    manifest = hub.client().manifest(repository, "1").json()
    return {manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])}


def test_headers_that_never_come_to_an_end_hold_no_connection(debark: DebarkProcess) -> None:
    host, _, port = debark.address.rpartition(":")
    for first in (b"", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"):
        with socket.create_connection((host, int(port)), 60) as connection:
            connection.sendall(first)
            connection.settimeout(0.1)
            deadline = monotonic() + 60
            closed = False
            letters = iter(b"GET /v2/ HTTP/1.1\r\nX-Slow: " + b"x" * 1000)
            while not closed and monotonic() < deadline:
                try:
                    connection.sendall(bytes([next(letters)]))
                    closed = not connection.recv(65536)
                except TimeoutError:
                    continue
                except ConnectionError:
                    closed = True
            assert closed


def test_a_body_that_nobody_wants_is_not_waited_for(debark: DebarkProcess) -> None:
    answer = debark.client().ask("PUT", "/v2/hub.test/everybody/app/manifests/2", body=b"x" * 1_000_000)
    assert answer.status == 405
    host, _, port = debark.address.rpartition(":")
    with socket.create_connection((host, int(port)), 60) as connection:
        form = b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 1000\r\n\r\ngrant_type="
        connection.sendall(b"POST /_debark/v1/token HTTP/1.1\r\nHost: x\r\n" + form)
        answered = connection.recv(65536)
        assert answered.startswith(b"HTTP/1.1 400")
