"""Where credentials come from: namespaces, Docker's configuration file, helper programs; all may change while the mirror runs."""

from __future__ import annotations

import asyncio
import json
import logging
import stat
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from mirror.config import Config, load, wiring
from mirror.config.mistakes import ConfigError
from mirror.errors import InvalidInput
from mirror.upstream.credential_helper import CredentialHelper, HelperLimits
from mirror.upstream.credentials import ByNamespace, DockerConfig, read_docker_config
from mirror.upstream.model import Credential, CredentialSource, UpstreamUnavailable
from tests.support.state import Clock


def entry(user: str, password: str) -> dict[str, str]:
    return {"auth": b64encode(f"{user}:{password}".encode()).decode()}


async def users(source: CredentialSource, *repositories: str) -> list[str]:
    found = [await source.credential_for(repository) for repository in repositories]
    return [credential.username if credential else "-" for credential in found]


async def test_the_longest_namespace_decides() -> None:
    names = {name: Credential(name, "x") for name in ("team", "team/inner", "te")}
    paths = ("team/app", "team/inner/app", "team/inner", "team/innermost", "teams/app", "team", "other/team/app")
    wanted = ["team", "team/inner", "team/inner", "team", "else", "team", "else"]
    assert await users(ByNamespace(names, Credential("else", "x")), *paths) == wanted
    assert await users(ByNamespace(names, None), "teams/app") == ["-"]


async def test_dockers_configuration_as_docker_and_podman_write_it(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    auths = {
        "https://index.docker.io/v1/": entry("hub", "a:b"),
        "ghcr.io": entry("whole", "x"),
        "ghcr.io/team/app": entry("app", "x"),
        "ghcr.io/team": entry("team", "x"),
        "https://quay.io/v2/": {"auth": b64encode(b"quay:x\0\0").decode()},
        "registry.example.org:5000": {"auth": "", "identitytoken": "identity"},
        "acr.example.org": entry("<token>", "identity"),
        "helped.example.org": {},
    }
    file.write_text(json.dumps({"auths": auths, "credsStore": "desktop", "HttpHeaders": {}}))
    found = read_docker_config(file)
    ghcr = DockerConfig(lambda: found, ("ghcr.io",))
    assert await users(ghcr, "team/app", "team/app/more", "team/application", "other") == ["app", "app", "team", "whole"]
    assert found["docker.io"] == Credential("hub", "a:b")
    assert found["quay.io"] == Credential("quay", "x")
    for name in ("registry.example.org:5000", "acr.example.org"):
        assert found[name] == Credential("", "identity", is_identity_token=True)
    assert "helped.example.org" not in found
    for name in ("helped.example.org", "unknown.example.org"):
        assert await DockerConfig(lambda: found, (name,)).credential_for("team/app") is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"auths": []}',
        '{"auths": {"ghcr.io": "c2VjcmV0OnNlY3JldA=="}}',
        '{"auths": {"ghcr.io": {"auth": "c2VjcmV0"}}}',
        '{"auths": {"ghcr.io": {"auth": "?secret"}}}',
        '{"auths": {"ghcr.io": {"auth": ["secret"]}}}',
    ],
)
def test_a_file_that_is_none_is_refused_without_showing_it(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(text)
    with pytest.raises(InvalidInput, match=r"config\.json") as caught:
        read_docker_config(file)
    assert "secret" not in str(caught.value)
    assert "c2Vj" not in str(caught.value)


def configured(tmp_path: Path, **settings: Any) -> CredentialSource:
    """As the configuration has it, for an upstream `hub.test`."""
    config = Config.model_validate({"upstreams": {"hub.test": {"url": "https://hub.test", **settings}}})
    source = wiring.upstreams(config)["hub.test"].credential
    assert source is not None
    return source


async def test_files_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("mirror.watched_file.WatchedFile.__init__.__kwdefaults__", {"look_seconds": 0.0, "timer": clock})
    password, config = tmp_path / "password", tmp_path / "config.json"
    password.write_text("one\n")
    config.write_text(json.dumps({"auths": {"hub.test": entry("docker", "one")}}))
    table = {"namespaces": {"team": {"username": "robot", "password_file": str(password)}}, "docker_config": str(config)}
    source = configured(tmp_path, **table)
    for repository in ("team/app", "other"):
        found = await source.credential_for(repository)
        assert found is not None
        assert found.password == "one"
    password.write_text("two\n")
    config.write_text(json.dumps({"auths": {"hub.test": entry("docker", "two")}}))
    for repository in ("team/app", "other"):
        found = await source.credential_for(repository)
        assert found is not None
        assert found.password == "two"
    config.write_text("{")  # While it is broken, what it said before counts.
    found = await source.credential_for("other")
    assert found is not None
    assert found.password == "two"


def test_settings_that_contradict_each_other_are_told(tmp_path: Path) -> None:
    file = tmp_path / "debark.toml"
    for text, words in (
        ('username = "x"\npassword_file = "p"\ndocker_config = "c"', "comes from 'username' already"),
        ('credential_helper = "bin/helper"', "neither the name of a program nor an absolute path"),
        ('private = "serve"', '"serve" is about what a credential can read'),
        ('namespaces."Upper Case" = {username = "x", password_file = "p"}', "the beginning of repository names"),
        ('namespaces.team = {username = "x", password = "hunter2"}', "name the file that holds it with 'password_file'"),
    ):
        file.write_text(f'[upstreams."a.test"]\n{text}\n')
        with pytest.raises(ConfigError) as caught:
            load(file)
        assert words in str(caught.value)
        assert "hunter2" not in str(caught.value)
    config = Config.model_validate({"upstreams": {"e.test": {"credential_helper": "docker-credential-none-such"}}})
    with pytest.raises(ConfigError, match=r'e\.test".*no program \'docker-credential-none-such\''):
        wiring.upstreams(config)


def program(path: Path, body: str) -> str:
    """A helper in the shell that notes each call."""
    path.write_text(f'#!/bin/sh\nread server\necho "$1 $server" >> {path}.calls\n{body}\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def calls(path: Path) -> list[str]:
    file = Path(f"{path}.calls")
    return file.read_text().splitlines() if file.exists() else []


def answer(user: str, secret: str) -> str:
    return f"echo '{json.dumps({'ServerURL': 'x', 'Username': user, 'Secret': secret})}'"


async def test_a_helper_is_asked_once_and_again_ahead_of_time(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "docker-credential-test"
    helper = CredentialHelper(program(path, answer("me", "one")), "hub.test", HelperLimits(lifetime=100), timer=clock)
    found = await asyncio.gather(*(helper.credential_for("team/app") for _ in range(5)))
    assert found == [Credential("me", "one")] * 5
    clock.now += 79
    await helper.credential_for("team/app")
    assert calls(path) == ["get hub.test"]
    program(path, answer("<token>", "two"))
    clock.now += 2
    assert await helper.credential_for("team/app") == Credential("me", "one")  # In the background.
    renewed = None
    for _ in range(500):
        renewed = await helper.credential_for("team/app")
        if renewed != Credential("me", "one"):
            break
        await asyncio.sleep(0.01)
    assert renewed == Credential("", "two", is_identity_token=True)
    assert len(calls(path)) == 2


async def test_docker_hub_has_its_old_name(tmp_path: Path) -> None:
    path = tmp_path / "helper"
    await CredentialHelper(program(path, answer("me", "x")), "docker.io").credential_for("library/debian")
    assert calls(path) == ["get https://index.docker.io/v1/"]


async def test_a_helper_without_a_credential_means_nobody(tmp_path: Path) -> None:
    path = tmp_path / "helper"
    helper = CredentialHelper(program(path, "echo 'credentials not found in native keychain'; exit 1"), "hub.test")
    for _ in range(3):
        assert await helper.credential_for("team/app") is None
    assert len(calls(path)) == 1


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("echo secret-words; exit 3", "exit status 3"),
        ("echo secret-words", "not JSON"),
        ("echo '{}'", "without a user name"),
        ("echo '[1]'", "without a user name"),
        ("yes secret-words", "more than 65536 bytes"),
        ("exec sleep 60", "within 0.5 s"),
        ("sleep 60 & echo secret-words", "within 0.5 s"),
        ("sleep 60", "within 0.5 s"),
    ],
)
async def test_a_helper_that_fails_is_left_alone_for_ever_longer(
    tmp_path: Path, body: str, words: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    clock, path = Clock(), tmp_path / "helper"
    caplog.set_level(logging.DEBUG)
    helper = CredentialHelper(program(path, body), "hub.test", HelperLimits(lifetime=100, timeout=0.5), timer=clock)
    for _ in range(3):
        with pytest.raises(UpstreamUnavailable, match=words) as caught:
            await helper.credential_for("team/app")
        assert "secret-words" not in str(caught.value)
    assert len(calls(path)) == 1
    clock.now += 6
    for _ in range(3):
        with pytest.raises(UpstreamUnavailable):
            await helper.credential_for("team/app")
    assert len(calls(path)) == 2
    clock.now += 6
    with pytest.raises(UpstreamUnavailable):
        await helper.credential_for("team/app")
    assert len(calls(path)) == 2
    clock.now += 6
    program(path, answer("me", "x"))
    assert await helper.credential_for("team/app") == Credential("me", "x")
    assert "secret-words" not in caplog.text + "".join(capfd.readouterr())


async def test_what_a_helper_said_counts_on_while_it_fails(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "helper"
    helper = CredentialHelper(program(path, answer("me", "x")), "hub.test", HelperLimits(lifetime=100), timer=clock)
    assert await helper.credential_for("team/app") == Credential("me", "x")
    path.unlink()
    clock.now += 1000
    assert await helper.credential_for("team/app") == Credential("me", "x")
