"""Verbs on a repository in a data directory, as an operator types them."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from mirror.data import DataDirectory
from publisher.alone import only_publisher
from publisher.cli import main
from publisher.objects.local import LocalObjectStore
from tests.support.repository_server import RepositoryServer
from tests.support.verbs import Verbs

FQRN = "verbs.example.org"


def tar(**files: str) -> bytes:
    """An archive of small files; names have / as __."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as out:
        for name, content in files.items():
            member = tarfile.TarInfo(name.replace("__", "/"))
            member.size = len(content)
            member.mtime = 1_700_000_000
            out.addfile(member, io.BytesIO(content.encode()))
    return archive.getvalue()


@pytest.fixture
def verbs(tmp_path: Path) -> Verbs:
    made = Verbs(tmp_path / "data", FQRN)
    made.run("mkfs")
    return made


def test_a_repository_cannot_be_made_twice(verbs: Verbs) -> None:
    assert "exists already" in verbs.run("mkfs", code=1).stderr


def test_a_repository_that_is_not_there_is_not_made_by_looking(tmp_path: Path) -> None:
    verbs = Verbs(tmp_path, FQRN)
    for verb in ("info", "check", "ls", "tag", "gc", "rollback", "export-keys", "resign"):
        assert "there is no repository" in verbs.run(verb, code=1).stderr
    assert not (tmp_path / "cvmfs" / FQRN).exists()


def test_impossible_names_and_settings_are_usage_errors(tmp_path: Path) -> None:
    for name in ("../etc", "nodots", "a..b", "x/y.z"):
        assert CliRunner().invoke(main, ["info", "--data", str(tmp_path), name]).exit_code == 2
    (tmp_path / "bad.toml").write_text("[publish]\nttl = 'soon'\n")
    result = CliRunner().invoke(main, ["info", "--config", str(tmp_path / "bad.toml"), FQRN])
    assert result.exit_code == 2
    assert "publish.ttl" in result.stderr


def test_archives_come_from_files_and_from_standard_input(verbs: Verbs, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar(a__b="one", c="two"))
    (record,) = verbs.records("ingest", "--tar", tmp_path / "a.tar", "--base", "/opt/x/")
    assert (record["revision"], record["entries"]) == (2, 3)
    verbs.run("ingest", "-t", "-", "-b", "opt/x", given=gzip.compress(tar(a__d="three")))
    assert verbs.names() == ["opt", "opt/x", "opt/x/a", "opt/x/a/b", "opt/x/a/d", "opt/x/c"]
    assert verbs.run("cat", "opt/x/a/d").stdout_bytes == b"three"
    assert verbs.run("check", "--content").exit_code == 0


def test_deleting_and_unpacking_are_one_revision(verbs: Verbs) -> None:
    verbs.run("ingest", "-t", "-", "-b", "sw/1", given=tar(a="1"))
    (record,) = verbs.records("ingest", "-t", "-", "-b", "sw/2", "-d", "sw/1", "--catalog", given=tar(b="2"))
    assert record["revision"] == 3
    assert verbs.names() == ["sw", "sw/2", "sw/2/b"]
    assert verbs.records("info")[0]["catalogs"] == 2
    verbs.run("ingest", "-t", "-", "-b", "sw/2", "--replace", given=tar(c="3"))
    assert verbs.names("sw/2") == ["c"]
    assert verbs.run("check").exit_code == 0


def test_a_mistake_in_ingest_changes_nothing(verbs: Verbs, tmp_path: Path) -> None:
    assert "does not exist" in verbs.run("ingest", "-d", "nowhere", code=1).stderr
    assert "nothing to do" in verbs.run("ingest", code=1).stderr
    assert "root directory" in verbs.run("ingest", "-d", "/", code=1).stderr
    assert "cannot be read" in verbs.run("ingest", "-t", tmp_path / "missing.tar", code=1).stderr
    assert "standard input" in verbs.run("ingest", "-t", "-", code=1, given=b"no archive at all" * 100).stderr
    assert verbs.records("info")[0]["revision"] == 1


def test_names_that_delete_in_layers_are_ordinary_ones_in_archives(verbs: Verbs) -> None:
    verbs.run("ingest", "-t", "-", given=tar(**{"d__.wh.x": "kept", ".wh..wh.y": "kept too"}))
    assert verbs.names() == [".wh..wh.y", "d", "d/.wh.x"]


def test_revisions_are_named_listed_and_rolled_back_to(verbs: Verbs) -> None:
    verbs.run("ingest", "-t", "-", given=tar(a="1"))
    (named,) = verbs.records("tag", "-a", "v1", "-m", "the first")
    assert (named["revision"], named["description"]) == (2, "the first")
    assert verbs.records("info")[0]["revision"] == 2
    verbs.run("ingest", "-t", "-", "-d", "a", given=tar(b="2"))
    assert "already" in verbs.run("tag", "-a", "v1", code=1).stderr
    verbs.run("tag", "-a", "v1-again", "--hash", named["root"])
    assert [tag["name"] for tag in verbs.records("tag")] == ["v1", "v1-again"]
    assert verbs.names("", "--tag", "v1") == ["a"]
    (back,) = verbs.records("rollback", "--tag", "v1")
    assert (back["revision"], back["tree_of"]) == (4, 2)
    assert verbs.names() == ["a"]
    verbs.run("rollback")
    assert verbs.names() == ["b"]
    assert "there are: v1, v1-again" in verbs.run("rollback", "-t", "nothing", code=1).stderr
    verbs.run("tag", "-r", "v1", "-r", "v1-again")
    assert verbs.records("tag") == []
    assert "no named snapshot" in verbs.run("tag", "-r", "v1", code=1).stderr
    assert verbs.run("check", "--content").exit_code == 0


def test_a_first_revision_cannot_be_rolled_back(verbs: Verbs) -> None:
    assert "none before it" in verbs.run("rollback", code=1).stderr


def test_what_is_damaged_is_named_with_what_to_do(verbs: Verbs) -> None:
    verbs.run("ingest", "-t", "-", given=tar(a="content", b="other"))
    (listed,) = [entry for entry in verbs.records("ls", "-l") if entry["path"] == "a"]
    item = f"data/{listed['object'][:2]}/{listed['object'][2:]}"
    place = verbs.data / "cvmfs" / FQRN / item
    good = place.read_bytes()
    place.write_bytes(b"damaged")
    assert verbs.run("check").exit_code == 0
    problem, total = verbs.records("check", "--content", code=1)
    assert (problem["path"], problem["item"], total["problems"]) == ("/a", item, 1)
    assert "restore the object" in problem["mend"]
    place.unlink()
    assert "/a: its object is missing" in verbs.run("check", code=1).stdout.replace('"', "").replace("path=/a problem=", "/a: ")
    place.write_bytes(good)
    assert verbs.run("check", "-i").exit_code == 0


@pytest.mark.parametrize("name", ["C", "X", "H", ".cvmfspublished", ".cvmfswhitelist", ".cvmfsreflog"])
def test_what_a_revision_hangs_on_is_named_with_what_to_do(verbs: Verbs, name: str) -> None:
    """Root catalog, certificate, history and the named files: spoilt, and gone."""
    verbs.run("ingest", "-t", "-", given=tar(a="content"))
    verbs.run("tag", "-a", "kept")
    storage = verbs.data / "cvmfs" / FQRN
    lines = (storage / ".cvmfspublished").read_bytes().partition(b"--\n")[0].decode().splitlines()
    fields = {line[0]: line[1:] for line in lines}
    item = f"data/{fields[name][:2]}/{fields[name][2:]}{name}" if name in fields else name
    good = (storage / item).read_bytes()
    if name != ".cvmfsreflog":
        (storage / item).write_bytes(b"junk")
        problem = verbs.records("check", code=1)[0]
        assert (problem["path"], problem["item"]) == ("/", item)
        assert "restore" in problem["mend"]
    if name != ".cvmfspublished":
        (storage / item).unlink()
        problem = verbs.records("check", code=1)[0]
        assert (problem["path"], problem["item"]) == ("/", item)
        assert "restore" in problem["mend"]
    (storage / item).write_bytes(good)
    assert verbs.run("check").exit_code == 0


def test_a_repository_that_cannot_be_trusted_is_named_with_what_to_do(verbs: Verbs, tmp_path: Path) -> None:
    other = Verbs(tmp_path / "other", FQRN)
    other.run("mkfs")
    (problem,) = verbs.records("check", "-k", other.data / "keys" / f"{FQRN}.pub", code=1)
    assert "not signed by the master key at hand" in problem["problem"]
    assert problem["item"] == ".cvmfswhitelist"
    assert "resign" in problem["mend"]


async def test_a_repository_is_checked_and_read_over_http(verbs: Verbs, tmp_path: Path) -> None:
    import asyncio

    verbs.run("ingest", "-t", "-", given=tar(a="over http"))
    key = verbs.data / "keys" / f"{FQRN}.pub"
    elsewhere = Verbs(tmp_path / "elsewhere", FQRN)
    async with RepositoryServer(LocalObjectStore(verbs.data / "cvmfs" / FQRN), FQRN).running() as server:

        def look() -> None:
            web: list[str | Path] = ["--url", server.url, "--public-key", key]
            (total,) = elsewhere.records("check", *web, "--content")
            assert (total["problems"], total["revision"]) == (0, 2)
            assert elsewhere.run("cat", "a", *web).stdout_bytes == b"over http"
            assert [entry["path"] for entry in elsewhere.records("ls", *web)] == ["a"]
            assert elsewhere.records("info", *web)[0]["files"] == 1
            assert "no public key" in elsewhere.run("check", "--url", server.url, code=1).stderr
            (replica,) = elsewhere.records("replicate", server.url, "--public-key", key, "--storage", tmp_path / "replica")
            assert (replica["revision"], replica["changed"]) == (2, True)
            (again,) = elsewhere.records("replicate", server.url, "--public-key", key, "--storage", tmp_path / "replica")
            assert (again["revision"], again["changed"], again["objects"]) == (2, False, 0)

        await asyncio.to_thread(look)


def test_what_nobody_needs_is_collected(verbs: Verbs) -> None:
    verbs.run("ingest", "-t", "-", given=tar(a="garbage soon"))
    verbs.run("ingest", "-d", "a")
    (would,) = verbs.records("gc", "--grace", "0", "--dry-run")
    assert would["objects_found"] > 0 == would["objects_deleted"]
    (did,) = verbs.records("gc", "--grace", "0", "--alone")
    assert did["objects_deleted"] == would["objects_found"]
    (nothing,) = verbs.records("gc", "--grace", "1 d")
    assert nothing["objects_deleted"] == 0
    assert verbs.run("check", "--content").exit_code == 0


def test_a_short_grace_period_asks_for_rest(verbs: Verbs) -> None:
    """Beside publications it would delete what they rely on."""
    verbs.run("ingest", "-t", "-", given=tar(a="garbage soon"))
    verbs.run("ingest", "-d", "a")
    refused = verbs.run("gc", "--grace", "119 min", code=1).stderr
    assert "below 2 h" in refused
    assert "--alone" in refused
    with only_publisher(DataDirectory(verbs.data)):
        assert "another publisher works" in verbs.run("gc", "--grace", "0", "--alone", code=1).stderr
        assert verbs.records("gc", "--grace", "2 h")[0]["objects_deleted"] == 0
    assert verbs.records("gc", "--grace", "0", "--alone")[0]["objects_deleted"] > 0


def test_listings_show_what_clients_see(verbs: Verbs) -> None:
    verbs.run("ingest", "-t", "-", "-b", "d", given=tar(file="12345"))
    assert verbs.run("ls", "-l", "d").stdout.split() == ["-rw-r--r--", "0", "0", "5", "2023-11-14", "22:13:20", "file"]
    assert verbs.run("ls", "d/file").stdout == "file\n"
    assert "does not exist" in verbs.run("ls", "nothing", code=1).stderr
    assert "not a regular file" in verbs.run("cat", "d", code=1).stderr


def test_results_are_one_line_of_fields_where_nobody_watches(verbs: Verbs) -> None:
    line = verbs.run("tag", "-a", "x", "-m", 'two words, "quoted"').stdout.strip()
    assert line.startswith("name=x revision=1 root=")
    assert json.loads(line.partition(" description=")[2]) == 'two words, "quoted"'
