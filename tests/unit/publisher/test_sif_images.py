"""A SIF image, from a request in the queue to a root file system in the repository."""

from __future__ import annotations

import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest

from mirror.errors import Unavailable
from mirror.jobs.model import State
from mirror.jobs.notes import NO_NOTES
from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_MANIFEST, ImageManifest, parse_manifest
from mirror.oci.reference import ImageReference
from publisher.cvmfs.entry import Directory, Entry
from publisher.images import layout
from publisher.images.place import PreparedImage, place_images
from publisher.images.remove import GoingImage, remove_images
from publisher.layers.limits import LayerLimits
from publisher.layers.permissions import PermissionPolicy
from publisher.layers.policy import LayerPolicy
from publisher.objects.compress import compressor
from publisher.objects.pipeline import Pipeline, PipelineLimits
from publisher.sif.facts import SifFacts
from publisher.sif.image import SifRules, flat_root
from publisher.sif.unpack import SifResult, unpack_sif
from publisher.transaction import Transaction
from tests.support import sif_images
from tests.support.faulty_registry import FaultyRegistry
from tests.support.memory_store import MemoryStore
from tests.support.publishing import FQRN, publishing
from tests.support.repositories import NOW, new_repository, problems
from tests.support.sif_images import EMPTY_CONFIG, SifImage, root, sif, squashfs, whole
from tests.support.small_images import directory, file, link, member, pack

OWN_RUNSCRIPT = b"#!/bin/sh\necho the image's own\n"


def _tar(text: str) -> bytes:
    return pack(
        [
            directory(".singularity.d"),
            file(".singularity.d/runscript", OWN_RUNSCRIPT, mode=0o755),
            link("singularity", ".singularity.d/runscript"),
            directory("etc"),
            file("etc/hosts", b"127.0.0.1 own\n"),
            file("etc/motd", text.encode()),
            directory("locked", mode=0o500),
            file("locked/unreadable", b"x", mode=0o000),
            (member("null", tarfile.CHRTYPE, devmajor=1, devminor=3), b""),
        ]
    )


def offer(hub: FaultyRegistry, repository: str, tag: str, image: SifImage) -> Digest:
    hub.add_blob(EMPTY_CONFIG)
    hub.add_blob(image.file)
    return hub.add_manifest(repository, tag, image.manifest)


async def test_a_sif_image_becomes_a_root_file_system_under_the_digest_of_its_file(tmp_path: Path) -> None:
    image = SifImage(whole(squashfs(_tar("hello"), tmp_path)))
    async with FaultyRegistry() as hub, publishing(tmp_path, hub) as here, here.publisher():
        await here.request("hub.test/team/app:1", offer(hub, "team/app", "1", image))
        status = await here.published("hub.test/team/app:1")
        reader = here.reader()
    assert status.publication is not None
    assert status.publication.path == f"/cvmfs/{FQRN}/hub.test/team/app:1"
    digest = Digest.of(image.file)
    place = layout.flat_root(digest)
    found = reader.lookup(b"hub.test/team/app:1")
    assert found is not None
    assert found.symlink == b"../../" + place
    assert reader.read(place + b"/etc/motd") == b"hello"
    assert reader.read(b".metadata/hub.test/team/app:1/manifest.json") == image.manifest
    assert reader.lookup(layout.layer_directory(digest)) is None
    for_platform = reader.lookup(b".multiarch/amd64/hub.test/team/app:1")
    assert for_platform is not None
    assert for_platform.symlink == b"../../../../" + place
    assert here.problems() == []


async def test_its_own_files_stay_and_what_a_runtime_binds_over_is_added(tmp_path: Path) -> None:
    image = SifImage(whole(squashfs(_tar("hello"), tmp_path)))
    async with FaultyRegistry() as hub, publishing(tmp_path, hub) as here, here.publisher():
        await here.request("hub.test/team/app:1", offer(hub, "team/app", "1", image))
        await here.published("hub.test/team/app:1")
        reader = here.reader()
    place = layout.flat_root(Digest.of(image.file))
    assert reader.read(place + b"/.singularity.d/runscript") == OWN_RUNSCRIPT
    assert reader.lookup(place + b"/.singularity.d/actions") is None
    assert reader.read(place + b"/etc/hosts") == b"127.0.0.1 own\n"
    assert reader.read(place + b"/etc/resolv.conf") == b""
    for name in (b"dev", b"proc", b"root", b"var/tmp", b"tmp", b"sys", b"home"):
        entry = reader.lookup(place + b"/" + name)
        assert entry is not None, name
        assert stat.S_ISDIR(entry.mode)
    modes = [reader.lookup(place + name) for name in (b"/locked", b"/locked/unreadable")]
    assert [entry and stat.S_IMODE(entry.mode) for entry in modes] == [0o700, 0o600]


async def test_images_of_one_config_have_roots_of_their_own_and_a_second_name_unpacks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpacked = []

    def counted(*arguments: Any) -> SifResult:
        unpacked.append(arguments)
        return unpack_sif(*arguments)

    monkeypatch.setattr("publisher.sif.image.unpack_sif", counted)
    one, two = (SifImage(whole(squashfs(_tar(text), tmp_path))) for text in ("one", "two"))
    async with FaultyRegistry() as hub, publishing(tmp_path, hub) as here, here.publisher():
        digest = offer(hub, "team/app", "1", one)
        await here.request("hub.test/team/app:1", digest)
        await here.published("hub.test/team/app:1")
        await here.request("hub.test/team/app:2", offer(hub, "team/app", "2", two))
        await here.published("hub.test/team/app:2")
        await here.request("hub.test/team/app:latest", digest)
        latest = await here.published("hub.test/team/app:latest")
        assert len(unpacked) == 2
        reader = here.reader()
    for image, text in ((one, b"one"), (two, b"two")):
        assert reader.read(layout.flat_root(Digest.of(image.file)) + b"/etc/motd") == text
    assert latest.notes.devices_dropped == 1, "what is known of the file is known without it"
    assert reader.lookup(b".multiarch/amd64/hub.test/team/app:latest") is not None
    first, third = reader.lookup(b"hub.test/team/app:1"), reader.lookup(b"hub.test/team/app:latest")
    assert first is not None
    assert third is not None
    assert first.symlink == third.symlink


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (sif([root(b"secret", sif_images.ENCRYPTED)]), "encrypted"),
        (sif([root(b"no squashfs" * 20)]), "no squashfs"),
        (b"no SIF at all", "too short for a SIF image"),
    ],
)
async def test_what_cannot_be_unpacked_is_refused_with_the_reason(tmp_path: Path, file: bytes, words: str) -> None:
    async with FaultyRegistry() as hub, publishing(tmp_path, hub) as here, here.publisher():
        await here.request("hub.test/team/app:1", offer(hub, "team/app", "1", SifImage(file)))
        status = await here.reach("hub.test/team/app:1", {State.REFUSED, State.FAILED, State.PUBLISHED})
    assert (status.state, words in (status.reason or "")) == (State.REFUSED, True), status.reason


async def test_a_sif_that_only_some_may_read_is_not_published(tmp_path: Path) -> None:
    image = SifImage(whole(squashfs(_tar("secret"), tmp_path)))
    async with FaultyRegistry() as hub, publishing(tmp_path, hub) as here, here.publisher():
        hub.add_blob(EMPTY_CONFIG)  # the manifest and the config are there, the file is not
        await here.request("hub.test/team/app:1", hub.add_manifest("team/app", "1", image.manifest))
        status = await here.reach("hub.test/team/app:1", {State.REFUSED, State.FAILED, State.PUBLISHED})
    assert status.state is not State.PUBLISHED


def test_an_image_that_is_taken_out_leaves_nothing(tmp_path: Path) -> None:
    image = SifImage(whole(b"whatever"))
    manifest = parse_manifest(image.manifest, OCI_MANIFEST)
    assert isinstance(manifest, ImageManifest)
    raw, digest = image.manifest, Digest.of(image.manifest)
    name = ImageReference.parse("hub.test/team/app:1")
    flat, facts = Directory(Entry(mode=stat.S_IFDIR | 0o755)), SifFacts("amd64", 0, 0, NO_NOTES)
    prepared = PreparedImage(digest, raw, manifest, (name,), flat=flat, sif_facts=facts.as_json())
    repository, store = new_repository(tmp_path)
    with Pipeline(store, compressor("zlib-1"), PipelineLimits()) as pipeline:
        with Transaction(repository) as transaction:
            place_images(transaction, pipeline, [prepared], NOW)
            transaction.commit()
        assert repository.reader().lookup(layout.sif_document(Digest.of(image.file))) is not None
        with Transaction(repository) as transaction:
            gone = remove_images(transaction, pipeline, [GoingImage(digest, manifest)], NOW)
            transaction.commit()
    assert gone.roots == [Digest.of(image.file)]
    assert [path for path in (layout.METADATA, layout.FLAT) for _ in repository.reader().tree(path).walk()] == []
    assert problems(repository) == []


@pytest.mark.parametrize("limit", ["entries = 5", "expanded_bytes = 30"])
async def test_limits_of_images_hold_for_sif_images(tmp_path: Path, limit: str) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(f"[limits]\n{limit}\n")
    image = SifImage(whole(squashfs(_tar("hello"), tmp_path)))
    async with FaultyRegistry() as hub, publishing(tmp_path, hub, f'policy_file = "{policy}"\n') as here:
        digest = offer(hub, "team/app", "1", image)
        async with here.publisher():
            await here.request("hub.test/team/app:1", digest)
            status = await here.reach("hub.test/team/app:1", {State.REFUSED, State.PUBLISHED})
    assert (status.state, limit.partition(" ")[0] in (status.reason or "")) == (State.REFUSED, True), status.reason


def test_unpacking_ends_when_the_publisher_stops(tmp_path: Path) -> None:
    file = tmp_path / "image.sif"
    file.write_bytes(whole(squashfs(_tar("hello"), tmp_path)))
    rules = SifRules(LayerLimits(), LayerPolicy(), PermissionPolicy())
    with Pipeline(MemoryStore(), compressor("zlib-1"), PipelineLimits()) as pipeline:
        looks = iter([False, False, True])
        with pytest.raises(Unavailable, match="the publisher is stopping"):
            flat_root(file, pipeline, rules, lambda: next(looks))
        with pytest.raises(Unavailable, match="cannot be read"):
            flat_root(tmp_path / "gone", pipeline, rules, lambda: False)
