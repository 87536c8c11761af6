"""The operator says no: by a policy file, and by taking down what is published, while everything runs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients import Skopeo
from tests.support.debark_process import IMPATIENT, PROGRAMS, DebarkProcess, wait_until
from tests.support.hub import Hub
from tests.support.published import open_repository, problems
from tests.support.small_images import tiny

_SECONDS = 60.0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("policy")


@pytest.fixture(scope="module")
def strict(hub: Hub, place: Path) -> Iterator[DebarkProcess]:
    """A mirror with a policy file."""
    (place / "policy.toml").write_text('[[rules]]\naction = "deny"\nrepository = "denied/*"\nreason = "not here"\n')
    settings = IMPATIENT + f'policy_file = "{place / "policy.toml"}"\n'
    with DebarkProcess(place / "debark", {"hub.test": hub.url}, settings) as started:
        yield started


def take_down(debark: DebarkProcess, *arguments: str, code: int = 0) -> list[dict[str, Any]]:
    command = [str(PROGRAMS / "debark-publisher"), "take-down", "--data", str(debark.data), "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def audit(debark: DebarkProcess) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (debark.data / "log" / "audit.jsonl").read_text().splitlines()]


def warning(debark: DebarkProcess, repository: str, tag: str) -> tuple[int, str]:
    answer = debark.get(f"/v2/hub.test/{repository}/manifests/{tag}")
    return answer.status, answer.headers.get("Warning", "")


def policy_health(debark: DebarkProcess) -> str:
    text: str = debark.get("/healthz").json()["parts"]["publisher_policy"]
    return text


def test_what_the_policy_denies_is_served_but_not_published(strict: DebarkProcess, hub: Hub, skopeo: Skopeo, place: Path) -> None:
    name = "hub.test/denied/app:1"
    tiny("denied").push(hub.client(), "denied/app", "1")
    skopeo.pull(f"{strict.address}/{name}", "denied")
    image = strict.wait_for(name, {"refused"})
    assert "not here" in image["reason"]
    wait_until(lambda: "not here" in warning(strict, "denied/app", "1")[1], _SECONDS, lambda: "no warning")
    assert warning(strict, "denied/app", "1")[0] == 200
    policy = place / "policy.toml"
    good = policy.read_text()
    policy.write_text("nonsense")
    wait_until(lambda: "policy.toml" in policy_health(strict), _SECONDS, lambda: "a broken policy is not shown")
    policy.write_text(good)
    wait_until(lambda: policy_health(strict) == "ok", _SECONDS, lambda: "a mended policy is not shown")


def test_an_image_is_taken_down_while_everything_runs_and_stays_away(strict: DebarkProcess, hub: Hub, skopeo: Skopeo) -> None:
    tiny("bad").push(hub.client(), "team/bad", "1")
    tiny("good").push(hub.client(), "team/good", "1")
    for name in ("bad", "good"):
        skopeo.pull(f"{strict.address}/hub.test/team/{name}:1", name)
    image = strict.wait_for("hub.test/team/bad:1")
    good = strict.wait_for("hub.test/team/good:1")
    fqrn = image["fqrn"]
    assert open_repository(strict, fqrn).lookup(b"hub.test/team/bad:1") is not None
    (record,) = take_down(strict, "hub.test/team/bad:1", "--reason", "has a virus", "--by", "anna")
    assert image["manifest"] in record["digests"]
    reader = open_repository(strict, fqrn)
    assert reader.lookup(b"hub.test/team/bad:1") is None
    assert open_repository(strict, good["fqrn"]).lookup(b"hub.test/team/good:1") is not None
    assert strict.wait_for("hub.test/team/bad:1", {"refused"})["path"] is None
    wait_until(lambda: "has a virus" in warning(strict, "team/bad", "1")[1], _SECONDS, lambda: "no warning")
    skopeo.pull(f"{strict.address}/hub.test/team/bad:1", "bad-again")
    assert strict.wait_for("hub.test/team/bad:1", {"refused", "published"})["state"] == "refused"
    (listed,) = take_down(strict, "--list")
    assert (listed["by"], listed["reason"]) == ("anna", "has a virus")
    assert problems(strict, fqrn) == []
    take_down(strict, "--lift", image["manifest"])
    assert strict.wait_for("hub.test/team/bad:1")["path"] is not None
    acts = [line["act"] for line in audit(strict)]
    for act in ("made", "policy", "published", "taken_down", "removed", "lifted"):
        assert act in acts, acts
    take_down(strict, "hub.test/never/seen:1", "--reason", "x", code=1)
    take_down(strict, "hub.test/team/bad:1", code=1)


def test_without_a_publisher_the_verb_removes_the_image_itself(strict: DebarkProcess, hub: Hub, skopeo: Skopeo) -> None:
    tiny("late").push(hub.client(), "team/late", "1")
    skopeo.pull(f"{strict.address}/hub.test/team/late:1", "late")
    image = strict.wait_for("hub.test/team/late:1")
    strict.stop()
    settings = strict.data.parent / "debark.toml"
    take_down(strict, "hub.test/team/late:1", "--reason", "stale", "--config", str(settings))
    strict.start()
    assert strict.wait_for("hub.test/team/late:1", {"refused"})["path"] is None
    assert open_repository(strict, image["fqrn"]).lookup(b"hub.test/team/late:1") is None
    assert problems(strict, image["fqrn"]) == []
