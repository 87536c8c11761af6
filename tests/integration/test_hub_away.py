"""The hub goes away after a pull: what was pulled is served on, and what was accepted is published."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.clients import Skopeo
from tests.support.debark_process import DebarkProcess
from tests.support.hub import Hub
from tests.support.registry_client import digest_of
from tests.support.small_images import tiny
from tests.support.tool import ToolFailed


def test_a_pulled_tag_is_served_on_and_marked_stale(tmp_path: Path, skopeo: Skopeo) -> None:
    with Hub(tmp_path / "hub") as hub:
        tiny("kept").push(hub.client(), "team/app", "1")
        with DebarkProcess(tmp_path / "debark", {"hub.test": hub.url}) as debark:
            name = f"{debark.address}/hub.test/team/app"
            before = skopeo.pull(f"{name}:1", "before")
            published = debark.wait_for("hub.test/team/app:1")
            hub.stop()
            after = skopeo.pull(f"{name}:1", "after")
            assert (after.manifest, after.blobs) == (before.manifest, before.blobs)
            answer = debark.client().manifest("hub.test/team/app", "1")
            assert answer.headers["X-Debark-Cache"] == "stale"
            assert answer.headers["X-CVMFS-Path"] == published["path"]
            with pytest.raises(ToolFailed):
                skopeo.pull(f"{name}:2", "never")
            unknown = debark.client().manifest("hub.test/team/app", "2")
            assert unknown.status == 503
            assert "hub.test" in unknown.json()["errors"][0]["message"]
            records = [record for record in debark.access_records() if record["reference"] == "1"]
            assert records[-1]["cache"] == "stale"


def test_an_image_that_cannot_be_pulled_any_more_is_pointed_to_in_cvmfs(tmp_path: Path, skopeo: Skopeo) -> None:
    image = tiny("evicted")
    with Hub(tmp_path / "hub") as hub:
        image.push(hub.client(), "team/app", "1")
        with DebarkProcess(tmp_path / "debark", {"hub.test": hub.url}) as debark:
            name = f"{debark.address}/hub.test/team/app"
            skopeo.pull(f"{name}:1", "before")
            published = debark.wait_for("hub.test/team/app:1")
            hub.stop()
            layer = digest_of(image.layers[0].packed).removeprefix("sha256:")
            (debark.data / "blobs" / "sha256" / layer[:2] / layer).unlink()
            with pytest.raises(ToolFailed):
                skopeo.pull(f"{name}:1", "after")
            message = debark.client().manifest("hub.test/team/app", "1").json()["errors"][0]["message"]
            assert message.endswith(f"; it is unpacked: {published['path']}")
            for method in ("GET", "HEAD"):
                answer = debark.client().ask(method, "/v2/hub.test/team/app/manifests/1")
                assert answer.status == 503
                assert (answer.headers["X-CVMFS-Path"], answer.headers["X-CVMFS-State"]) == (published["path"], "published")
                assert answer.headers["Warning"].startswith('299 - "hub.test/team/app:1 is unpacked: apptainer exec ')
            other = debark.client().manifest("hub.test/team/app", "2")
            assert (other.status, other.headers["Warning"]) == (503, None)
