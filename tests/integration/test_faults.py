"""Processes that die in the middle: nothing that was accepted is lost, nothing wrong is kept."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.support.clients import Skopeo
from tests.support.comparison import differences
from tests.support.debark_process import DebarkProcess, wait_until
from tests.support.hub import Hub
from tests.support.published import flat_tree, problems
from tests.support.small_images import tiny
from tests.support.unpacked import unpack
from tests.support.wire import Wire

MIB = 1024 * 1024
RUNNING = {"fetching", "ingesting", "committing", "replicating", "published"}
PAUSES = (0.0, 0.3, 1.0, 2.5)
"""Seconds of work that the publisher is granted before it is killed."""


def test_a_publisher_killed_again_and_again_finishes(hub: Hub, debian: Path, tmp_path: Path, skopeo: Skopeo) -> None:
    with DebarkProcess(tmp_path / "debark", {"hub.test": hub.url}) as debark:
        name = "hub.test/library/debian:full"
        skopeo.pull(f"{debark.address}/{name}", "full")
        for pause in PAUSES:
            debark.wait_for(name, RUNNING)
            time.sleep(pause)
            wait_until(debark.kill_publisher, 60, lambda: "the publisher is not started again")
        image = debark.wait_for(name, seconds=240)
        reference = unpack(debian, "full")
        assert differences(reference, flat_tree(debark, image)) == []
        tiny("after the kills").push(hub.client(), "faults/kills", "1")
        skopeo.pull(f"{debark.address}/hub.test/faults/kills:1", "tiny")
        debark.wait_for("hub.test/faults/kills:1")
        assert problems(debark, image["fqrn"]) == []


def test_what_was_accepted_survives_the_death_of_everything(hub: Hub, debian: Path, tmp_path: Path, skopeo: Skopeo) -> None:
    assert debian.exists()
    name = "hub.test/library/debian:other"
    with DebarkProcess(tmp_path / "debark", {"hub.test": hub.url}) as debark:
        skopeo.pull(f"{debark.address}/{name}", "other")
        wait_until(lambda: debark.image(name) is not None, 30, lambda: "the pull is not recorded")
        debark.kill()
        debark.start()
        image = debark.wait_for(name)
        assert problems(debark, image["fqrn"]) == []


def test_a_hub_that_dies_within_a_blob_leaves_nothing_wrong(debian: Path, tmp_path: Path, skopeo: Skopeo) -> None:
    with Hub(tmp_path / "hub") as hub, Wire(hub.address, 20 * MIB) as wire:
        skopeo.push(debian, "base", f"{hub.address}/library/debian:base")
        settings = '[upstreams."hub.test"]\nattempts = 2\n'
        with DebarkProcess(tmp_path / "debark", {"hub.test": wire.url}, settings) as debark:
            name = f"{debark.address}/hub.test/library/debian:base"
            pull = skopeo.start_pull(name, "cut")
            wait_until(lambda: wire.carried > 10 * MIB, 60, lambda: f"only {wire.carried} bytes passed")
            hub.stop()
            assert pull.wait(120) != 0
            hub.start()
            copy = skopeo.pull(name, "whole")
            assert copy.differences(hub, "library/debian", "base") == []


def test_clients_that_want_a_cold_blob_at_once_share_one_fetch(debian: Path, tmp_path: Path) -> None:
    with Hub(tmp_path / "hub") as hub, Wire(hub.address, 40 * MIB) as wire:
        Skopeo(tmp_path / "pusher").push(debian, "base", f"{hub.address}/library/debian:base")
        with DebarkProcess(tmp_path / "debark", {"hub.test": wire.url}) as debark, ThreadPoolExecutor(4) as clients:
            name = f"{debark.address}/hub.test/library/debian:base"
            pulls = [clients.submit(Skopeo(tmp_path / f"client-{n}").pull, name, "x") for n in range(4)]
            copies = [pull.result() for pull in pulls]
            layer = json.loads(copies[0].manifest)["layers"][0]["digest"]
            assert hub.requests("GET", f"/v2/library/debian/blobs/{layer}") == 1
            assert len({copy.blobs[layer] for copy in copies}) == 1
