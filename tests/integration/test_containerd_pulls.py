"""A real containerd with the mirror in its hosts.toml: the only client that says by `ns=` which registry it means."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.containerd import Containerd
from tests.support.debark_process import DebarkProcess
from tests.support.hub import Hub
from tests.support.small_images import push_index, tiny
from tests.support.tool import ToolFailed

IMAGE = tiny("containerd")


@pytest.fixture(scope="module")
def containerd(hub: Hub, debark: DebarkProcess) -> Iterator[Containerd]:
    """Asks the mirror for `ctd/app:1`; the names after which registries are asked do not exist."""
    push_index(hub.client(), "ctd/app", "1", [IMAGE])
    with Containerd() as started:
        started.mirror("_default", debark.address)
        started.mirror("path.test", debark.address, "/v2/hub.test")
        yield started


@pytest.mark.parametrize("name", ["hub.test/ctd/app:1", "path.test/ctd/app:1"])
def test_an_image_is_fetched_whole(hub: Hub, debark: DebarkProcess, containerd: Containerd, name: str) -> None:
    containerd.fetch(name)
    index = hub.client().manifest("ctd/app", "1").headers["Docker-Content-Digest"]
    assert containerd.digest(name) == index
    manifest = json.loads(IMAGE.manifest)
    wanted = {index, IMAGE.digest, manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])}
    assert wanted <= containerd.content()
    agents = [record for record in debark.access_records() if record["agent"].startswith("containerd/")]
    assert agents
    assert {record["upstream"] for record in agents} == {"hub.test"}
    assert {record["status"] for record in agents} == {200}


def test_the_mirrors_own_address_is_a_registry_too(debark: DebarkProcess, containerd: Containerd) -> None:
    name = f"{debark.address}/hub.test/ctd/app:1"
    containerd.fetch(name, "--plain-http")
    assert IMAGE.digest in containerd.content()


def test_what_is_nowhere_is_not_found(containerd: Containerd) -> None:
    with pytest.raises(ToolFailed, match=r"response was http\.StatusNotFound"):
        containerd.fetch("hub.test/ctd/never:1")


def test_a_registry_that_the_mirror_does_not_know_is_not_asked_for(containerd: Containerd) -> None:
    with pytest.raises(ToolFailed, match=r"response was http\.StatusNotFound"):
        containerd.fetch("elsewhere.test/ctd/app:1")
