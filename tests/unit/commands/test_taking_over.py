"""What CernVM-FS's server tools wrote: taken over, continued, handed back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from publisher.cvmfs.hash import ContentHash
from tests.support.golden import FQRN, ServerRepository, server_repository
from tests.support.tool import TOP
from tests.support.verbs import Verbs
from tests.unit.commands.test_verbs import tar


@pytest.fixture
def server(tmp_path: Path) -> ServerRepository:
    return server_repository(tmp_path)


@pytest.fixture
def verbs(tmp_path: Path) -> Verbs:
    return Verbs(tmp_path / "data", FQRN)


@pytest.mark.parametrize("way", [[], ["--copy"]])
def test_a_repository_is_continued(server: ServerRepository, verbs: Verbs, tmp_path: Path, way: list[str]) -> None:
    original = (server.storage / ".cvmfspublished").read_bytes()
    (taken,) = verbs.records("import", *server.places, *way)
    assert taken["revision"] == 4
    assert (verbs.data / "cvmfs" / FQRN).is_symlink() is (not way)
    assert verbs.run("check", "--content").exit_code == 0
    expected = json.loads((TOP / "tests/data/cvmfs-golden/expected.json").read_text())
    shown = {entry["path"] for entry in verbs.records("ls", "", "-R")}
    assert {entry["path"] for entry in expected["entries"] if entry["path"]} <= shown
    (grown,) = verbs.records("ingest", "-t", "-", "-b", "added", given=tar(here="by us"))
    assert grown["revision"] == 5
    tags = {tag["name"]: tag["revision"] for tag in verbs.records("tag")}
    assert (tags["trunk"], tags["trunk-previous"], tags["first"]) == (5, 4, 2)
    assert verbs.run("cat", "added/here").stdout_bytes == b"by us"
    verbs.run("rollback", "-t", "first")
    assert verbs.run("check", "--content").exit_code == 0
    verbs.run("gc", "--grace", "0", "--alone")
    assert verbs.run("check", "--content").exit_code == 0
    assert ((server.storage / ".cvmfspublished").read_bytes() == original) is bool(way)
    verbs.run("export-keys", "--output", tmp_path / "back")
    assert (tmp_path / "back" / "reflog.chksum").read_text() == str(
        ContentHash.of((verbs.data / "cvmfs" / FQRN / ".cvmfsreflog").read_bytes())
    )


def test_a_collection_leaves_what_the_server_tools_leave(server: ServerRepository, verbs: Verbs) -> None:
    """On disk. `cvmfs_server gc -r0` of 2.12 deleted these objects of the same repository, and nothing else."""
    deleted = json.loads((TOP / "tests/data/cvmfs-golden/collected.json").read_text())
    verbs.run("import", *server.places)
    before = stored(server)
    verbs.run("gc", "--grace", "0", "--alone")
    assert before - stored(server) == set(deleted["all names kept"])
    for tag in verbs.records("tag"):
        if not tag["name"].startswith("trunk"):
            verbs.run("tag", "-r", tag["name"])
    verbs.run("gc", "--grace", "0", "--alone")
    signed_otherwise = {name for name in before if name.endswith(("H", "X"))}
    assert before - stored(server) - signed_otherwise == set(deleted["only trunk and trunk-previous kept"])
    assert verbs.run("check", "--content").exit_code == 0


def stored(server: ServerRepository) -> set[str]:
    data = server.storage / "data"
    return {str(path.relative_to(data)) for path in data.rglob("*") if path.is_file()}


def test_content_that_is_there_is_not_stored_twice(server: ServerRepository, verbs: Verbs) -> None:
    verbs.run("import", *server.places)
    listed = [entry for entry in verbs.records("ls", "", "-R") if entry["kind"] == "file" and 0 < entry["size"] < 1000]
    known = next(entry for entry in listed if entry["object"] and entry["path"].isascii())
    content = verbs.run("cat", known["path"]).stdout_bytes.decode("latin-1")
    verbs.run("ingest", "-t", "-", "-b", "again", given=tar(copy=content))
    assert verbs.records("ls", "again", "-l")[0]["object"] == known["object"]


def test_a_transaction_that_is_open_is_not_overrun(server: ServerRepository, verbs: Verbs) -> None:
    (server.spool / "in_transaction.lock").touch()
    assert "end the transaction first" in verbs.run("import", *server.places, code=1).stderr
    (server.spool / "in_transaction.lock").unlink()
    verbs.run("import", *server.places)
    assert "already" in verbs.run("import", *server.places, code=1).stderr


def test_what_does_not_fit_together_is_refused_before_anything_changes(server: ServerRepository, verbs: Verbs) -> None:
    before = {path: path.read_bytes() for path in server.storage.glob(".cvmfs*")}
    (server.spool / "reflog.chksum").write_text("0" * 40)
    reflog = server.storage / ".cvmfsreflog"
    reflog.write_bytes(reflog.read_bytes() + b"\0")
    assert "fits neither" in verbs.run("import", *server.places, code=1).stderr
    reflog.write_bytes(before[reflog])
    key = server.keys / f"{FQRN}.key"
    key.rename(server.keys / "away")
    assert f"{key} is missing" in verbs.run("import", *server.places, code=1).stderr
    (server.keys / "away").rename(key)
    assert "no repository at" in verbs.run("import", "--storage", server.keys, "--keys", server.keys, code=1).stderr
    assert {path: path.read_bytes() for path in server.storage.glob(".cvmfs*")} == before
    verbs.run("import", *server.places)
    assert verbs.run("check").exit_code == 0


def test_a_checksum_that_only_the_operator_knows_is_enough(server: ServerRepository, verbs: Verbs) -> None:
    checksum = (server.spool / "reflog.chksum").read_text().strip()
    (server.spool / "reflog.chksum").unlink()
    verbs.run("import", *server.places, "--reflog-checksum", checksum)
    assert verbs.run("check").exit_code == 0


def test_layers_to_come_have_the_form_that_the_settings_say(server: ServerRepository, verbs: Verbs, tmp_path: Path) -> None:
    settings = tmp_path / "debark.toml"
    settings.write_text('[publish]\nwhiteouts = "files"\n')
    verbs.run("import", "--config", settings, *server.places)
    (shown,) = verbs.records("info")
    assert shown["whiteouts"] == "files"
