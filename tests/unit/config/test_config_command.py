"""`debark config check` and `debark config show`."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mirror.config import load
from mirror.config.command import config
from mirror.config.show import as_toml

SETTINGS = """
default_upstream = "hub.example.org:5000"
[server]
listen = "[::1]:9000"
data = "/srv/de\\"bark"
[fetch]
max_blob = 1234567
[upstreams."hub.example.org:5000"]
username = "me"
password_file = "secret"
aliases = ["other.example.org"]
trusted_hosts = ["*.cdn.example.org:8443"]
mirrors = ["https://one.example.org/x/", { url = "http://two", prefix = "a/b", trusted_hosts = ["s3", "s4"] }]
[upstreams."quay.io"]
enabled = false
[publish]
platforms = ["linux/arm64/v8", "linux/amd64"]
lease = 2.5
[log]
access_file = "none"
"""


def run(*arguments: object, **environment: str) -> Result:
    return CliRunner().invoke(config, [str(argument) for argument in arguments], env=environment)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "debark.toml"
    path.write_text(SETTINGS)
    return path


def test_all_is_well_without_a_file() -> None:
    result = run("check")
    assert (result.exit_code, result.stdout) == (0, "The built-in settings: all is well\n")


def test_check_reads_password_files_as_the_mirror_would(file: Path, tmp_path: Path) -> None:
    missing = run("check", file)
    assert missing.exit_code == 1
    assert f"{tmp_path / 'secret'}: the secret cannot be read" in missing.stderr
    (tmp_path / "secret").write_text("hunter2\n")
    assert run("check", file).exit_code == 0


def test_check_prints_every_mistake_on_a_line(file: Path) -> None:
    file.write_text("[tags]\nttl = -1\n[log]\nlevel = 3\n")
    result = run("check", file)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert [line.split(": ")[:2] for line in result.stderr.splitlines()] == [[str(file), "tags.ttl"], [str(file), "log.level"]]


def test_check_reads_every_file_that_the_server_would_read(file: Path, tmp_path: Path) -> None:
    (tmp_path / "users").write_text("alice:in-the-clear\n")
    (tmp_path / "policy.toml").write_text('default = "maybe"\nlimit = 1\n')
    file.write_text(
        """
        server = { tls_certificate = "server.pem", tls_key = "server.key" }
        access = { users_file = "users", issuers."https://tokens.example.org" = { audience = "debark", keys_file = "keys" } }
        publish = { policy_file = "policy.toml" }
        upstreams."quay.io" = { username = "me", password_file = "quay" }
        upstreams."ghcr.io" = { username = "me", password_file = "ghcr" }
        """
    )
    result = run("check", file)
    assert (result.exit_code, result.stdout) == (1, "")
    said = result.stderr.splitlines()
    for place, words in {
        "server.tls_certificate: ": "server.pem",
        "access.users_file: ": "line 1",
        'access.issuers."https://tokens.example.org".keys_file: ': "JWKS",
        f"{tmp_path / 'quay'}: ": "No such file",
        f"{tmp_path / 'ghcr'}: ": "No such file",
        "publish.policy_file: the policy": "'allow' or 'deny'",
        "publish.policy_file: limit: ": "unknown key",
    }.items():
        assert any(place in line and words in line for line in said), (place, said)
    assert "in-the-clear" not in result.stderr


def test_check_does_not_read_files_that_are_of_no_account(file: Path) -> None:
    file.write_text('publish = { policy_file = "none.toml", supervised = false }\n')
    assert run("check", file).exit_code == 0


def test_check_finds_a_database_that_cannot_be_used(file: Path) -> None:
    file.write_text('[state]\nurl = "oracle://db/debark"\n')
    assert "state.url" in run("check", file).stderr


def test_file_may_come_from_the_environment(file: Path) -> None:
    assert '"hub.example.org:5000"' in run("show", DEBARK_CONFIG=str(file)).stdout


def test_what_show_prints_is_a_file_with_the_same_effect(file: Path, tmp_path: Path) -> None:
    shown = run("show", file)
    assert shown.exit_code == 0
    again = tmp_path / "again.toml"
    again.write_text(shown.stdout)
    assert as_toml(load(again)) == shown.stdout
    assert load(again).upstreams == load(file).upstreams
    assert [mirror.prefix for mirror in load(again).upstreams["hub.example.org:5000"].mirrors] == ["", "a/b"]
    assert load(again).publish == load(file).publish
    assert load(again).access_log is None


def test_show_has_derived_values_and_no_secret(file: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hunter2\n")
    shown = run("show", file).stdout
    assert 'public_url = "http://[::1]:9000"' in shown
    assert 'file = "/srv/de\\"bark/log/debark.log"' in shown
    assert 'max_blob = "1234567 B"' in shown
    assert "hunter2" not in shown
