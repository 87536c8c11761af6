"""Verbs for keys: whitelists signed here or elsewhere, new certificates, keys that come and go."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import pytest

from tests.support.verbs import Verbs

FQRN = "keys.example.org"


@pytest.fixture
def verbs(tmp_path: Path) -> Verbs:
    made = Verbs(tmp_path / "data", FQRN)
    made.run("mkfs")
    return made


@pytest.fixture
def safe(verbs: Verbs, tmp_path: Path) -> Path:
    """Another machine, where the master key is now, and no longer on the publisher's."""
    directory = tmp_path / "safe"
    directory.mkdir()
    shutil.move(verbs.data / "keys" / f"{FQRN}.masterkey", directory)
    for name in (f"{FQRN}.pub", f"{FQRN}.crt"):
        shutil.copy(verbs.data / "keys" / name, directory)
    return directory


def test_a_whitelist_is_signed_for_as_long_as_wanted(verbs: Verbs) -> None:
    before = verbs.records("info")[0]["whitelist_expires"]
    (signed,) = verbs.records("resign", "--days", "90")
    assert signed["expires"] > before
    assert verbs.records("info")[0]["whitelist_expires"] == signed["expires"]


def test_a_new_certificate_takes_over(verbs: Verbs) -> None:
    (old,) = verbs.records("info")[0]["certificates"]
    (signed,) = verbs.records("resign", "--new-certificate")
    assert len(signed["certificates"]) == 2
    assert old in signed["certificates"]
    assert verbs.run("check", "--content").exit_code == 0
    (signed,) = verbs.records("resign")
    assert len(signed["certificates"]) == 1
    assert old not in signed["certificates"]
    assert verbs.run("check").exit_code == 0


def test_without_the_master_key_everybody_is_told(verbs: Verbs, safe: Path) -> None:
    assert safe.exists()
    result = verbs.run("resign", code=1)
    assert "not on this machine" in result.stderr
    assert "WARNING" in verbs.run("info").stderr
    assert "resign --keys DIR --output FILE" in result.stderr


def test_a_whitelist_is_signed_where_the_master_key_is(verbs: Verbs, safe: Path, tmp_path: Path) -> None:
    elsewhere, carried = Verbs(tmp_path / "nothing", FQRN), tmp_path / "whitelist"
    (signed,) = elsewhere.records("resign", "--keys", safe, "--output", carried, "--days", "77")
    verbs.run("resign", "--whitelist", carried)
    assert verbs.records("info")[0]["whitelist_expires"] == signed["expires"]
    (signed,) = elsewhere.records("resign", "--keys", safe, "--storage", verbs.data / "cvmfs" / FQRN, "--days", "99")
    assert verbs.records("info")[0]["whitelist_expires"] == signed["expires"]
    assert not (tmp_path / "nothing").exists()


def test_certificates_are_exchanged_with_the_master_key_elsewhere(verbs: Verbs, safe: Path, tmp_path: Path) -> None:
    (request,) = verbs.records("resign", "--new-certificate")
    new = shutil.copy(request["request"], safe)
    carried = tmp_path / "whitelist"
    elsewhere = Verbs(tmp_path / "nothing", FQRN)
    both: list[str | Path] = ["--certificate", safe / f"{FQRN}.crt", "--certificate", new]
    elsewhere.run("resign", "--keys", safe, *both, "--output", carried)
    (placed,) = verbs.records("resign", "--whitelist", carried)
    assert len(placed["certificates"]) == 2
    assert not Path(request["request"]).exists()
    assert verbs.run("check", "--content").exit_code == 0
    assert (verbs.data / "keys" / f"{FQRN}.crt").read_bytes() == Path(new).read_bytes()


@pytest.mark.parametrize(
    "arguments",
    [["--keys", "."], ["--output", "x"], ["--new-certificate", "--keys", ".", "--output", "x"], ["--certificate", __file__]],
)
def test_options_that_do_not_go_together_are_refused(verbs: Verbs, arguments: list[str]) -> None:
    verbs.run("resign", *arguments, code=1)


def test_repositories_are_made_with_keys_that_exist(verbs: Verbs, tmp_path: Path) -> None:
    keys = tmp_path / "exported"
    verbs.run("export-keys", "--output", keys)
    assert {path.name for path in keys.iterdir()} == {
        *(f"{FQRN}.{end}" for end in ("masterkey", "pub", "key", "crt")),
        "reflog.chksum",
    }
    assert all(stat.S_IMODE((keys / f"{FQRN}.{end}").stat().st_mode) == 0o600 for end in ("masterkey", "key"))
    assert "already" in verbs.run("export-keys", "--output", keys, code=1).stderr
    again = Verbs(tmp_path / "again", FQRN)
    again.run("mkfs", "--keys", keys)
    assert (again.data / "keys" / f"{FQRN}.crt").read_bytes() == (keys / f"{FQRN}.crt").read_bytes()
    assert again.run("check").exit_code == 0


def test_a_master_key_alone_gets_a_new_certificate_and_may_stay_where_it_is(safe: Path, tmp_path: Path) -> None:
    (safe / f"{FQRN}.crt").unlink()
    made = Verbs(tmp_path / "made", FQRN)
    result = made.run("mkfs", "--keys", safe, "--leave-master-key")
    assert "WARNING" in result.stderr
    assert not (made.data / "keys" / f"{FQRN}.masterkey").exists()
    assert made.run("check").exit_code == 0


def test_a_repository_is_made_with_a_whitelist_from_elsewhere(verbs: Verbs, safe: Path, tmp_path: Path) -> None:
    keys, carried = tmp_path / "keys", tmp_path / "whitelist"
    verbs.run("export-keys", "--output", keys)
    made = Verbs(tmp_path / "made", FQRN)
    assert "not on this machine" in made.run("mkfs", "--keys", keys, code=1).stderr
    made.run("resign", "--keys", safe, "--output", carried)
    made.run("mkfs", "--keys", keys, "--whitelist", carried)
    assert made.run("check").exit_code == 0


def test_clients_need_the_public_key_only(verbs: Verbs, tmp_path: Path) -> None:
    verbs.run("export-keys", "--public", "--output", tmp_path / "public")
    assert [path.name for path in (tmp_path / "public").iterdir()] == [f"{FQRN}.pub"]
