"""What the settings change for those who read a repository."""

from __future__ import annotations

import json
import stat
from pathlib import Path

from mirror.oci.digest import Digest
from publisher.images import layout, podman
from tests.support.faulty_registry import FaultyRegistry
from tests.support.publishing import offer, publishing
from tests.support.small_images import Image, Layer, directory, file, tiny

SECRETIVE = Image((Layer.of(directory("srv", mode=0o700), file("srv/data", b"1", mode=0o600), file("srv/run", mode=0o710)),))


async def test_deletions_can_be_files_and_stay_so_whatever_the_setting_says_later(tmp_path: Path) -> None:
    top = Layer.of(file("more", b"x"))
    first, second = tiny(), Image((*tiny().layers, top))
    mark = layout.layer_root(Digest.of(tiny().layers[1].packed)) + b"/etc/.wh.removed"
    async with FaultyRegistry() as hub:
        async with publishing(tmp_path, hub, 'whiteouts = "files"\n') as here, here.publisher():
            await here.request("hub.test/team/app:1", offer(hub, "team/app", "1", first))
            await here.published("hub.test/team/app:1")
            found = here.reader().lookup(mark)
            assert found is not None
            assert (found.mode, found.size) == (stat.S_IFREG | 0o644, 0)
        async with publishing(tmp_path, hub) as here, here.publisher():
            await here.request("hub.test/team/app:2", offer(hub, "team/app", "2", second))
            await here.published("hub.test/team/app:2")
            await here.request("hub.test/team/app:3", offer(hub, "team/app", "3", tiny("other")))
            await here.published("hub.test/team/app:3")
            reader = here.reader()
        for image in (first, second):
            names = {path for path, _ in reader.walk(layout.flat_root(Digest.of(image.config)) + b"/etc")}
            assert {b"motd", b"os-release"} <= names
            assert not names & {b"removed", b".wh.removed"}
        other = layout.layer_root(Digest.of(tiny("other").layers[1].packed))
        assert reader.lookup(other + b"/etc/.wh.removed") is not None, "the form is the repository's"
        assert here.problems() == []


async def test_everybody_can_be_let_read_everything(tmp_path: Path) -> None:
    expected = {
        "u+rwX": {b"srv": 0o700, b"srv/data": 0o600, b"srv/run": 0o710},
        "a+rX": {b"srv": 0o755, b"srv/data": 0o644, b"srv/run": 0o755},
    }
    async with FaultyRegistry() as hub:
        for policy, modes in expected.items():
            place = tmp_path / policy
            place.mkdir()
            async with publishing(place, hub, f'permissions = "{policy}"\n') as here, here.publisher():
                await here.request("hub.test/team/app:1", offer(hub, "team/app", "1", SECRETIVE))
                await here.published("hub.test/team/app:1")
                reader = here.reader()
            found = dict(reader.walk(layout.flat_root(Digest.of(SECRETIVE.config))))
            assert {path: stat.S_IMODE(found[path].mode) for path in modes} == modes
            layer = dict(reader.walk(layout.layer_root(Digest.of(SECRETIVE.layers[0].packed))))
            assert stat.S_IMODE(layer[b"srv/data"].mode) == 0o600, "layers are as their archives have them"


async def test_permissions_concern_what_is_made_from_then_on(tmp_path: Path) -> None:
    async with FaultyRegistry() as hub:
        for tag, policy in (("1", "image"), ("2", "a+rX")):
            async with publishing(tmp_path, hub, f'permissions = "{policy}"\n') as here, here.publisher():
                await here.request(f"hub.test/team/app:{tag}", offer(hub, "team/app", tag, SECRETIVE))
                await here.published(f"hub.test/team/app:{tag}")
                found = here.reader().lookup(layout.flat_root(Digest.of(SECRETIVE.config)) + b"/srv")
            assert found is not None
            assert stat.S_IMODE(found.mode) == 0o700


async def test_images_are_listed_for_podman_if_wanted(tmp_path: Path) -> None:
    async with FaultyRegistry() as hub:
        for settings, expected in (("", None), ("podman_store = true\n", ["hub.test/team/app:2"])):
            async with publishing(tmp_path, hub, settings) as here, here.publisher():
                tag = "2" if settings else "1"
                await here.request(f"hub.test/team/app:{tag}", offer(hub, "team/app", tag, tiny()))
                await here.published(f"hub.test/team/app:{tag}")
                reader = here.reader()
                assert here.problems() == []
            if expected is None:
                assert reader.lookup(podman.STORE) is None
            else:
                (record,) = json.loads(reader.read(podman.IMAGES_FILE))
                assert record["names"] == expected
