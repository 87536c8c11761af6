"""Images that nobody pulled: a recipe beside a running publisher, and one image on a machine where none runs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from publisher.check import check
from publisher.cvmfs.reader import RepositoryReader
from publisher.keys import load_public_key
from publisher.objects.local import LocalObjectStore
from tests.support.debark_process import IMPATIENT, PROGRAMS, DebarkProcess
from tests.support.hub import Hub
from tests.support.published import open_repository
from tests.support.small_images import broken, many_platforms, push_index, tiny


@pytest.fixture(scope="module")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recipes")


@pytest.fixture(scope="module")
def busy(hub: Hub, recipes: Path) -> Iterator[DebarkProcess]:
    with DebarkProcess(recipes / "debark", {"hub.test": hub.url}, IMPATIENT) as started:
        yield started


def run(verb: str, data: Path, hub: Hub, *arguments: str | Path, code: int = 0) -> list[dict[str, Any]]:
    command = [PROGRAMS / "debark-publisher", verb, "--data", data, f"--upstream=hub.test={hub.url}", "--json", *arguments]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def results(records: list[dict[str, Any]]) -> dict[str, str]:
    return {record["image"] or f"line {record['line']}": record["result"] for record in records if "result" in record}


def test_a_recipe_is_published_and_kept_and_its_mistakes_are_all_told(busy: DebarkProcess, hub: Hub, recipes: Path) -> None:
    for tag in ("1.0", "1.1", "2.0"):
        tiny(f"wild {tag}").push(hub.client(), "wild/app", tag)
    by_digest = tiny("exact").push(hub.client(), "exact/app")
    push_index(hub.client(), "many/app", "1", many_platforms())
    broken()["not-gzip"].push(hub.client(), "wild/broken", "1")
    recipe = recipes / "recipe.yaml"
    recipe.write_text(
        "version: 1\nuser: nobody\ncvmfs_repo: unpacked.example.org\noutput_format: '$(scheme)://x/$(image)'\ninput:\n"
        "  - 'https://hub.test/wild/app:1.*'\n"
        f"  - 'hub.test/exact/app@{by_digest}'\n"
        "  - hub.test/many/app:1\n"
        "  - hub.test/wild/missing:1\n"
        "  - 'https://elsewhere.test/team/app:1'\n"
        "  - no-registry\n"
        "  - hub.test/wild/broken:1\n"
    )
    first = run("convert", busy.data, hub, "--wait", recipe, code=1)
    assert results(first) == {
        "hub.test/wild/app:1.0": "published",
        "hub.test/wild/app:1.1": "published",
        f"hub.test/exact/app@{by_digest}": "published",
        "hub.test/many/app:1": "published",
        "hub.test/wild/missing:1": "missing",
        "elsewhere.test/team/app:1": "mistaken",
        "line 11": "mistaken",
        "hub.test/wild/broken:1": "refused",
    }
    by_line = {record["line"]: record["reason"] for record in first if record.get("reason")}
    assert '[upstreams."elsewhere.test"]' in by_line[10]
    image = busy.image("hub.test/wild/app:1.1")
    assert image is not None
    assert (image["state"], image["pinned"]) == ("published", True)
    assert open_repository(busy, image["fqrn"]).lookup(b"hub.test/wild/app:1.1") is not None
    assert busy.run("where", "hub.test/wild/app:1.0").stdout.startswith("/cvmfs/")
    assert busy.run("where", "--platform", "x86_64", "hub.test/many/app:1").stdout.startswith("/cvmfs/")
    assert busy.image("hub.test/wild/app:2.0") is None
    revisions = {repository["fqrn"]: repository["revision"] for repository in busy.repositories()}

    again = run("convert", busy.data, hub, "--wait", recipe, code=1)
    assert results(again) == results(first)
    assert not any(record["new"] for record in again if "result" in record)
    assert {repository["fqrn"]: repository["revision"] for repository in busy.repositories()} == revisions

    # A tag comes, one goes out of the recipe; and nothing is given up because of a slip.
    tiny("wild 1.2").push(hub.client(), "wild/app", "1.2")
    recipe.write_text("version: 1\ninput: ['hub.test/wild/app:1.*', 'slip']\n")
    run("convert", busy.data, hub, "--wait", recipe, code=1)
    assert pinned(busy, "hub.test/many/app:1")
    recipe.write_text("version: 1\ninput: ['hub.test/wild/app:1.*']\n")
    (*_, summary) = run("convert", busy.data, hub, "--wait", recipe)
    assert "hub.test/many/app:1" in summary["unpinned"]
    assert not pinned(busy, "hub.test/many/app:1")
    assert pinned(busy, "hub.test/wild/app:1.2")


def pinned(debark: DebarkProcess, name: str) -> bool:
    image = debark.image(name)
    assert image is not None
    return bool(image["pinned"])


def test_one_image_beside_a_running_publisher(busy: DebarkProcess, hub: Hub) -> None:
    tiny("one").push(hub.client(), "one/app", "1")
    (record,) = run("convert-image", busy.data, hub, "hub.test/one/app:1")
    assert (record["result"], record["new"]) == ("published", True)
    assert busy.image("hub.test/one/app:1")["path"] == record["path"]  # type: ignore[index]
    assert not pinned(busy, "hub.test/one/app:1")


def test_one_image_where_nothing_runs(hub: Hub, tmp_path: Path) -> None:
    data = tmp_path / "data"
    tiny("alone").push(hub.client(), "alone/app", "1")
    (record,) = run("convert-image", data, hub, "hub.test/alone/app:1")
    fqrn = record["fqrn"]
    assert record["path"] == f"/cvmfs/{fqrn}/hub.test/alone/app:1"
    key = load_public_key((data / "keys" / f"{fqrn}.pub").read_bytes())
    reader = RepositoryReader(LocalObjectStore(data / "cvmfs" / fqrn), fqrn, key)
    link = reader.lookup(b"hub.test/alone/app:1")
    assert link is not None
    root = link.symlink.decode().lstrip("./")
    root = f".{root}"
    assert list(check(reader, data=True)) == []
    motd = subprocess.run(
        [PROGRAMS / "debark-publisher", "cat", "--data", data, fqrn, f"{root}/etc/motd"],
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert motd.stdout == b"alone"
    (again,) = run("convert-image", data, hub, "hub.test/alone/app:1")
    assert (again["new"], again["path"]) == (False, record["path"])
    run("convert-image", data, hub, "hub.test/alone/missing:1", code=1)


def test_a_recipe_waits_for_a_publisher_unless_told_to_be_one(hub: Hub, tmp_path: Path) -> None:
    tiny("later").push(hub.client(), "later/app", "1")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("input: ['hub.test/later/app:1']\n")
    (record, _) = run("convert", tmp_path / "data", hub, recipe)
    assert record["result"] == "queued"
    (record, _) = run("convert", tmp_path / "data", hub, "--wait", recipe, code=1)
    assert (record["result"], record["new"]) == ("queued", False)
    (record, _) = run("convert", tmp_path / "data", hub, "--now", recipe)
    assert record["result"] == "published"
