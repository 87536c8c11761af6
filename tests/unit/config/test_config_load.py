"""The configuration as an operator meets it: defaults without a file, all mistakes at once, no secret repeated."""

import stat
from pathlib import Path

import pytest
from pydantic import ValidationError

from mirror.config import Config, ConfigError, Overrides, load, read_secret


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "debark.toml"


def mistakes(file: Path, text: str, overrides: Overrides | None = None) -> dict[str, str]:
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file, overrides)
    return {mistake.place: mistake.problem for mistake in caught.value.mistakes}


def test_without_a_file_everything_has_a_default() -> None:
    config = load()
    assert config == Config()
    assert config.address == ("127.0.0.1", 8585)
    assert config.public_url == "http://127.0.0.1:8585"
    assert len(config.publish.repositories) == 2
    assert config.default_upstream in config.active_upstreams


def test_data_directory_follows_the_xdg_rule(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert load().data == tmp_path / "debark"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert load().data == Path("/home/someone/.local/share/debark")


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        load().server.listen = "0.0.0.0:80"


def test_sizes_and_durations_are_read_with_units_and_without(file: Path) -> None:
    file.write_text(
        '[store]\nmin_free = "1.5 GiB"\n[fetch]\nmax_manifest = 65536\n[tags]\nttl = "2 min"\n[publish]\nlease = 90\n'
    )
    config = load(file)
    assert config.store.min_free == 1536 << 20
    assert config.fetch.max_manifest == 65536
    assert config.tags.ttl == 120
    assert config.publish.lease == 90


def test_every_mistake_is_reported_at_once_with_what_is_allowed(file: Path) -> None:
    found = mistakes(
        file,
        """
        default_upstream = "nowhere.example.org"
        [server]
        listen = "here"
        max_requests = 0
        [store]
        min_free = "5 ZiB"
        [fetch]
        max_manifest = "1 GiB"
        [publish]
        platforms = ["linux/amd64", "linux"]
        repositories = ["unpacked"]
        threads = "8"
        [publish.limits]
        entries = true
        [log]
        level = "loud"
        [metrics]
        enabled = "yes"
        """,
    )
    assert set(found) == {
        "default_upstream",
        "server.listen",
        "server.max_requests",
        "store.min_free",
        "fetch.max_manifest",
        "publish.platforms[1]",
        "publish.repositories[0]",
        "publish.threads",
        "publish.limits.entries",
        "log.level",
        "metrics.enabled",
    }
    assert found["server.max_requests"] == "0 is given, allowed is a whole number from 1 to 100000"
    assert "from 64 KiB to 64 MiB" in found["fetch.max_manifest"]
    assert '"debug", "info", "warning", "error"' in found["log.level"]
    assert "true or false" in found["metrics.enabled"]
    assert "linux/amd64" in found["publish.platforms[1]"]
    assert "docker.io" in found["default_upstream"]


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "1e30"])
def test_no_bound_is_passed_by_odd_numbers(file: Path, value: str) -> None:
    assert "tags.ttl" in mistakes(file, f"[tags]\nttl = {value}\n")


def test_unknown_keys_are_refused_with_a_proposal(file: Path) -> None:
    found = mistakes(file, '[server]\nlisten_on = "127.0.0.1:1"\n[publisher]\nenabled = true\n')
    assert "did you mean 'listen'" in found["server.listen_on"]
    assert "did you mean 'publish'" in found["publisher"]


def test_unknown_keys_in_tables_with_names_of_their_own_are_compared_with_what_belongs_there(file: Path) -> None:
    found = mistakes(
        file,
        """
        redirect.places.site = { url = "https://cvmfs.example.org", client = [] }
        access.issuers."https://tokens.example.org" = { audience = "a", keys_file = "k", key = "" }
        upstreams."quay.io" = { usernme = "me", namespaces.team = { username = "me", password = "hunter2" } }
        """,
    )
    assert found["redirect.places.site.client"].endswith("did you mean 'clients'? Known here are clients, url")
    assert found['access.issuers."https://tokens.example.org".key'].endswith("Known here are audience, keys_file")
    assert "did you mean 'username'" in found['upstreams."quay.io".usernme']
    assert "a secret has no place in this file" in found['upstreams."quay.io".namespaces.team.password']
    assert "hunter2" not in str(found)


def test_unquoted_registry_name_is_explained(file: Path) -> None:
    assert '[upstreams."quay.io"]' in mistakes(file, '[upstreams.quay.io]\nurl = "https://quay.io"\n')["upstreams.quay.io"]


def test_a_value_where_a_table_belongs_is_one_mistake(file: Path) -> None:
    found = mistakes(file, 'server = 3\nupstreams = "docker.io"\n[publish]\nlimits = []\n')
    assert set(found) == {"server", "upstreams", "publish.limits"}
    assert "expected is a table" in found["server"]


def test_secrets_given_by_mistake_are_not_repeated(file: Path) -> None:
    file.write_text(
        """
        [state]
        url = "postgresql://debark:hunter2@db.example.org/debark"
        [upstreams."hub.example.org"]
        url = "https://me:hunter2@hub.example.org"
        password = "hunter2"
        """
    )
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert "hunter2" not in str(caught.value)
    assert "password_file" in str(caught.value)
    assert len(caught.value.mistakes) == 3


def test_upstreams_may_be_added_changed_and_switched_off(file: Path) -> None:
    file.write_text(
        """
        default_upstream = "hub.example.org:5000"
        [upstreams."Hub.Example.org:5000"]
        aliases = ["old-hub.example.org"]
        [upstreams."index.docker.io"]
        enabled = false
        """
    )
    config = load(file)
    assert config.upstreams["hub.example.org:5000"].url == "https://hub.example.org:5000"
    assert "docker.io" not in config.active_upstreams
    assert "docker.io" in config.upstreams


def test_aliases_lead_to_one_upstream_only(file: Path) -> None:
    found = mistakes(file, '[upstreams."a.example.org"]\naliases = ["c.org"]\n[upstreams."b.example.org"]\naliases = ["c.org"]\n')
    assert found == {'upstreams."b.example.org".aliases': '"c.org" leads to upstream "a.example.org" already'}


def test_a_name_of_the_server_leads_to_one_upstream_only(file: Path) -> None:
    found = mistakes(file, '[upstreams."a.example.org"]\nhosts = ["m.org"]\n[upstreams."b.example.org"]\nhosts = ["m.org"]\n')
    assert found == {'upstreams."b.example.org".hosts': '"m.org" leads to upstream "a.example.org" already'}


def test_half_a_credential_is_refused(file: Path) -> None:
    assert "password_file" in mistakes(file, '[upstreams."a.org"]\nusername = "me"\n')['upstreams."a.org".username']
    assert 'upstreams."a.org".private' in mistakes(file, '[upstreams."a.org"]\nprivate = "serve"\n')


def test_mirrors_that_cannot_be_asked_are_refused(file: Path) -> None:
    file.write_text(
        """
        [upstreams."docker.io"]
        mirrors = ["mirror.example.org", {url = "https://me:hunter2@mirror"}, {url = "http://m", prefix = "/x"}, {prefix = "y"}]
        breaker_pause = "2 min"
        """
    )
    with pytest.raises(ConfigError) as caught:
        load(file)
    text = str(caught.value)
    assert text.count("a URL such as") == 2
    assert "hunter2" not in text
    assert "the beginning of repository names" in text
    assert "is longer than 'breaker_longest_pause'" in text
    assert all(f"mirrors[{number}]" in text or f"mirrors.{number}" in text for number in range(4)), text


def test_limits_that_contradict_each_other_are_refused(file: Path) -> None:
    found = mistakes(file, '[publish]\nfirst_pause = "1 h"\nlongest_pause = "1 min"\nrepositories = ["a.org", "a.org"]\n')
    assert set(found) == {"publish.first_pause", "publish.repositories"}
    assert set(mistakes(file, '[publish]\nmin_free = "5 GiB"\n')) == {"publish.resume_free"}
    assert set(mistakes(file, '[access]\npublic_kept = "5 min"\n')) == {"access.public_kept"}


def test_the_policy_file_is_found_beside_the_settings(file: Path) -> None:
    file.write_text('[publish]\npolicy_file = "policy.toml"\n')
    assert load(file).publish.policy_file == str(file.parent / "policy.toml")


def test_command_line_wins_over_the_file_and_is_named_when_wrong(file: Path, tmp_path: Path) -> None:
    file.write_text('[server]\nlisten = "127.0.0.1:1"\ndata = "/nowhere"\n[log]\nlevel = "error"\n')
    overrides = Overrides(
        data=tmp_path, listen="[::1]:99", upstreams=(("127.0.0.1:5000", "http://127.0.0.1:5000"),), log_level="debug"
    )
    config = load(file, overrides)
    assert config.address == ("::1", 99)
    assert config.public_url == "http://[::1]:99"
    assert config.data == tmp_path
    assert config.log.level == "debug"
    assert config.upstreams["127.0.0.1:5000"].url == "http://127.0.0.1:5000"
    with pytest.raises(ConfigError, match=r"command line: server\.listen"):
        load(file, Overrides(listen="nonsense"))


def test_relative_paths_are_relative_to_the_file(file: Path, tmp_path: Path) -> None:
    file.write_text(
        '[server]\ndata = "d"\n[log]\nfile = "none"\naccess_file = "a.jsonl"\n'
        '[upstreams."a.org"]\nusername = "me"\npassword_file = "secret"\n'
    )
    config = load(file)
    assert config.data == tmp_path / "d"
    assert config.log_file is None
    assert config.access_log == tmp_path / "a.jsonl"
    assert config.upstreams["a.org"].password_file == str(tmp_path / "secret")


def test_logs_are_below_the_data_directory_by_default(tmp_path: Path) -> None:
    config = load(None, Overrides(data=tmp_path))
    assert config.log_file == tmp_path / "log" / "debark.log"
    assert config.access_log == tmp_path / "log" / "access.jsonl"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[server\n", "line 1"),
        (b"\xff\xfe", "not TOML"),
        (b"a = " + b"[" * 100_000, "not TOML"),
        (b"#" * (1 << 20) + b"#", "longer"),
    ],
)
def test_a_file_that_is_not_toml_is_one_clear_mistake(file: Path, content: bytes, words: str) -> None:
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=words) as caught:
        load(file)
    assert str(file) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file"):
        load(tmp_path / "none.toml")


def test_secret_is_the_first_line_of_its_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("pass word \n")
    assert read_secret(secret) == "pass word "
    for bad in ("", "\n", "two\nlines\n", "x" * 5000):
        secret.write_text(bad)
        with pytest.raises(ConfigError) as caught:
            read_secret(secret)
        assert "two" not in str(caught.value)
    secret.chmod(stat.S_IWUSR)
    with pytest.raises(ConfigError, match="No such file"):
        read_secret(tmp_path / "absent")


def test_paths_are_taken_from_where_the_file_is(file: Path) -> None:
    file.write_text(
        """
        [server]
        tls_certificate = "server.crt"
        tls_key = "/etc/server.key"
        [access]
        users_file = "users"
        [access.issuers."https://tokens.example.org"]
        audience = "debark"
        keys_file = "keys/issuer.jwks"
        """
    )
    config, here = load(file), file.parent
    assert (config.server.tls_certificate, config.server.tls_key) == (str(here / "server.crt"), "/etc/server.key")
    assert config.access.users_file == str(here / "users")
    assert config.access.issuers["https://tokens.example.org"].keys_file == str(here / "keys/issuer.jwks")
