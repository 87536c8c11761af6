"""From a request in the queue to a revision, with hubs and images that go wrong."""

from __future__ import annotations

import tarfile
from pathlib import Path

from mirror.jobs.model import State
from mirror.jobs.notes import Notes
from mirror.oci.digest import Digest
from mirror.oci.reference import ImageReference
from publisher.images import layout
from tests.support.faulty_registry import FaultyRegistry, until
from tests.support.publishing import FQRN, offer, publishing
from tests.support.small_images import Image, Layer, base_layer, directory, file, link, member, tiny


async def test_an_image_becomes_a_directory_with_all_that_consumers_look_for(tmp_path: Path) -> None:
    image = tiny("hello")
    async with FaultyRegistry() as hub, publishing(tmp_path, hub) as here, here.publisher():
        await here.request("hub.test/team/app:1", offer(hub, "team/app", "1", image))
        status = await here.published("hub.test/team/app:1")
        reader = here.reader()
    assert status.publication is not None
    assert status.publication.path == f"/cvmfs/{FQRN}/hub.test/team/app:1"
    assert status.publication.revision == reader.manifest.revision == 2
    config = Digest.of(image.config)
    root = layout.flat_root(config)
    link = reader.lookup(b"hub.test/team/app:1")
    assert link is not None
    assert link.symlink == b"../../" + root
    assert reader.read(root + b"/etc/motd") == b"hello"
    assert reader.lookup(root + b"/etc/removed") is None
    assert reader.lookup(root + b"/.singularity.d/runscript") is not None
    assert reader.read(b".metadata/hub.test/team/app:1/manifest.json") == image.manifest
    for layer in image.layers:
        digest = Digest.of(layer.packed)
        assert reader.lookup(layout.layer_root(digest)) is not None
        assert str(config).encode() in reader.read(layout.origin_document(digest))
        assert layer.diff_id.encode() in reader.read(layout.layers_document(digest))
    assert here.problems() == []


async def test_another_name_of_an_image_adds_a_link_and_touches_no_layer(tmp_path: Path) -> None:
    image = tiny()
    async with FaultyRegistry() as hub, publishing(tmp_path, hub) as here, here.publisher():
        digest = offer(hub, "team/app", "1", image)
        await here.request("hub.test/team/app:1", digest)
        await here.published("hub.test/team/app:1")
        fetched = hub.count("GET", "/blobs/")
        root = here.reader().lookup(layout.flat_root(Digest.of(image.config)))
        await here.request("hub.test/team/app:stable", digest)
        await here.published("hub.test/team/app:stable")
        reader = here.reader()
        assert hub.count("GET", "/blobs/") == fetched + 3, "config and layers are shown to be public again, and not fetched"
    assert reader.manifest.revision == 3
    found = reader.lookup(layout.flat_root(Digest.of(image.config)))
    assert root is not None
    assert found is not None
    assert (found.mtime, found.mode) == (root.mtime, root.mode)
    first, second = reader.lookup(b"hub.test/team/app:1"), reader.lookup(b"hub.test/team/app:stable")
    assert first is not None
    assert second is not None
    assert first.symlink == second.symlink


async def test_what_was_left_out_is_known_of_layers_that_the_repository_has_already(tmp_path: Path) -> None:
    special = Layer.of((member("dev-null", tarfile.CHRTYPE), b""), file("su", mode=0o4755))
    first, second = (Image((special, Layer.of(file("own", text)))) for text in (b"1", b"2"))
    async with FaultyRegistry() as hub, publishing(tmp_path, hub) as here:
        for tag, image in (("1", first), ("2", second)):
            async with here.publisher():
                await here.request(f"hub.test/team/app:{tag}", offer(hub, "team/app", tag, image))
                status = await here.published(f"hub.test/team/app:{tag}")
            assert status.notes == Notes(devices_dropped=1, setuid_kept=1)
        async with here.publisher():  # only a name is added
            await here.request("hub.test/team/app:again", Digest.of(first.manifest))
            assert (await here.published("hub.test/team/app:again")).notes == Notes(devices_dropped=1, setuid_kept=1)


async def test_a_layer_takes_nothing_of_one_image_into_another(tmp_path: Path) -> None:
    """A link into the layers below, and a directory that only a path implies, are what the image's own layers make of them."""
    shared = Layer.of(link("copy", "etc/passwd", tarfile.LNKTYPE), file("etc/more"))
    evil, good = (
        Image((Layer.of(directory("./", mode=mode), directory("etc", mode=mode), file("etc/passwd", text)), shared))
        for mode, text in ((0o777, b"evil"), (0o755, b"good"))
    )
    async with FaultyRegistry() as hub, publishing(tmp_path, hub) as here:
        async with here.publisher():
            await here.request("hub.test/team/evil:1", offer(hub, "team/evil", "1", evil))
            await here.published("hub.test/team/evil:1")
        other = Image((*good.layers, Layer.of(file("third"))))
        async with here.publisher():
            for name, image in (("good", good), ("other", other)):
                await here.request(f"hub.test/team/{name}:1", offer(hub, f"team/{name}", "1", image))
                await here.published(f"hub.test/team/{name}:1")
        reader = here.reader()
    for image, mode, text in ((evil, 0o777, b"evil"), (good, 0o755, b"good"), (other, 0o755, b"good")):
        root = layout.flat_root(Digest.of(image.config))
        assert reader.read(root + b"/copy") == text
        for path in (root, root + b"/etc"):
            entry = reader.lookup(path)
            assert entry is not None
            assert entry.mode & 0o777 == mode


async def test_a_tag_that_moves_takes_its_link_along_and_leaves_the_old_root(tmp_path: Path) -> None:
    old, new = tiny("old"), tiny("new")
    async with FaultyRegistry() as hub, publishing(tmp_path, hub) as here, here.publisher():
        await here.request("hub.test/team/app:1", offer(hub, "team/app", "1", old))
        await here.published("hub.test/team/app:1")
        await here.request("hub.test/team/app:1", offer(hub, "team/app", "1", new))
        await here.published("hub.test/team/app:1")
        reader = here.reader()
    link = reader.lookup(b"hub.test/team/app:1")
    assert link is not None
    assert link.symlink.endswith(Digest.of(new.config).hex.encode())
    assert reader.read(layout.flat_root(Digest.of(old.config)) + b"/etc/motd") == b"old"
    assert here.problems() == []


async def test_images_of_one_moment_share_the_unpacking_of_what_they_share(tmp_path: Path) -> None:
    images = {str(number): tiny(f"number {number}") for number in range(6)}
    async with FaultyRegistry() as hub, publishing(tmp_path, hub) as here:
        for tag, image in images.items():
            await here.request(f"hub.test/team/app:{tag}", offer(hub, "team/app", tag, image))
        async with here.publisher():
            for tag in images:
                await here.published(f"hub.test/team/app:{tag}")
        revision = here.reader().manifest.revision
        shown = len(images)
        assert hub.count("GET", str(Digest.of(base_layer().packed))) == 1 + shown
    assert revision < 2 + len(images), "every image had a revision of its own"
    assert here.problems() == []


async def test_what_an_anonymous_client_may_not_read_is_refused(tmp_path: Path) -> None:
    async with FaultyRegistry() as hub, publishing(tmp_path, hub) as here, here.publisher():
        hub.faults.auth, hub.faults.user = "bearer", ("somebody", "secret")
        await here.request("hub.test/team/app:1", offer(hub, "team/app", "1", tiny()))
        status = await here.reach("hub.test/team/app:1", {State.REFUSED})
    assert status.reason is not None
    assert "not public" in status.reason
    assert here.reader().manifest.revision == 1


async def test_a_public_image_does_not_make_the_name_of_a_private_repository_public(tmp_path: Path) -> None:
    image = tiny()
    async with FaultyRegistry() as hub, publishing(tmp_path, hub) as here, here.publisher():
        digest = offer(hub, "team/app", "1", image)
        await here.request("hub.test/team/app:1", digest)
        await here.published("hub.test/team/app:1")
        await here.request("hub.test/secret/copy:1", digest)  # the hub gives that repository's manifest to nobody
        await here.reach("hub.test/secret/copy:1", {State.FAILED, State.REFUSED})
        await here.published("hub.test/team/app:1")
        assert here.reader().lookup(b"hub.test/secret") is None


async def test_a_hub_that_is_away_is_tried_again_until_it_is_back(tmp_path: Path) -> None:
    async with FaultyRegistry() as hub, publishing(tmp_path, hub) as here, here.publisher():
        hub.faults.status = 503
        await here.request("hub.test/team/app:1", offer(hub, "team/app", "1", tiny()))
        status = await here.reach("hub.test/team/app:1", {State.FAILED})
        assert status.reason is not None
        assert "hub.test" in status.reason
        assert status.next_try is not None
        hub.faults.status = None
        await here.published("hub.test/team/app:1")


async def test_bad_images_are_refused_with_the_reason_and_the_queue_goes_on(tmp_path: Path) -> None:
    upward = Layer.of(file("../escaped", b"x"))
    lying = Image((Layer(base_layer().packed, "sha256:" + "0" * 64),))
    scrap = Image((Layer(b"no archive" * 200, "sha256:" + "1" * 64),))
    # Texts of JSON that are no text: whoever quotes them must be able to write them down.
    nameless, nowhere = Image((Layer(base_layer().packed, "\ud800"),)), Image((base_layer(),), architecture="\ud800")
    bad = {"upward": Image((upward,)), "lying": lying, "scrap": scrap, "nameless": nameless, "nowhere": nowhere}
    async with FaultyRegistry() as hub, publishing(tmp_path, hub) as here, here.publisher():
        for tag, image in bad.items():
            await here.request(f"hub.test/team/bad:{tag}", offer(hub, "team/bad", tag, image))
        await here.request("hub.test/team/app:1", offer(hub, "team/app", "1", tiny()))
        reasons = {tag: (await here.reach(f"hub.test/team/bad:{tag}", {State.REFUSED})).reason or "" for tag in bad}
        await here.published("hub.test/team/app:1")
    assert "../escaped" in reasons["upward"]
    assert "config says sha256:000" in reasons["lying"]
    assert reasons["scrap"]
    assert "'?'" in reasons["nameless"]
    assert "no name of a system" in reasons["nowhere"]
    assert here.problems() == []


async def test_a_publisher_that_stops_gives_its_jobs_back_and_the_next_one_finishes_them(tmp_path: Path) -> None:
    async with FaultyRegistry() as hub, publishing(tmp_path, hub) as here:
        image = Image((Layer.of(file("big", bytes(range(256)) * 4096), compressed=False),))
        await here.request("hub.test/team/app:1", offer(hub, "team/app", "1", image))
        hub.faults.hold_at = 300_000
        async with here.publisher():
            await until(lambda: hub.count("GET", "/blobs/") >= 2)
        status = await here.statuses.status(ImageReference.parse("hub.test/team/app:1"))
        assert status is not None
        assert (status.state, status.attempts) == (State.QUEUED, 0)
        hub.faults.hold_at = None
        hub.release.set()
        async with here.publisher():
            await here.published("hub.test/team/app:1")
    assert here.problems() == []
