"""Tags that move, between images, platforms and repositories: what is readable at each path while they do."""

from __future__ import annotations

import asyncio
import json
import posixpath
from pathlib import Path

from mirror.jobs.model import ImageStatus, PublishRequest, State
from mirror.jobs.repositories import Repositories
from mirror.jobs.schedule import RepositoryState
from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_INDEX
from mirror.oci.platform import Platform
from mirror.oci.reference import ImageReference
from mirror.state.engine import Database, DatabaseSettings, sqlite_url
from publisher.cvmfs.reader import RepositoryReader
from publisher.images import layout
from publisher.keys import load_public_key
from publisher.objects.local import LocalObjectStore
from tests.support.faulty_registry import FaultyRegistry, until
from tests.support.publishing import FQRN, Publishing, offer, publishing
from tests.support.small_images import Image, Layer, directory, file, many_platforms, tiny

APP = ImageReference.parse("hub.test/team/app:1")
AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
OTHER = "other.debark.example"


def _reader(here: Publishing, fqrn: str = FQRN) -> RepositoryReader:
    key = load_public_key((here.config.data / "keys" / f"{fqrn}.pub").read_bytes())
    return RepositoryReader(LocalObjectStore(here.config.data / "cvmfs" / fqrn), fqrn, key)


def _leads_to(reader: RepositoryReader, link: str) -> bytes | None:
    entry = reader.lookup(link.encode())
    return None if entry is None else posixpath.normpath(posixpath.join(posixpath.dirname(link.encode()), entry.symlink))


async def _published(here: Publishing, manifest: Digest, platform: Platform | None = None) -> ImageStatus:
    status = None
    async with asyncio.timeout(20):
        while status is None or status.state is not State.PUBLISHED or status.manifest != manifest:
            await asyncio.sleep(0.01)
            status = await here.statuses.status(APP, platform)
    return status


async def test_an_image_is_at_the_path_of_its_tag_and_at_that_of_its_platform_in_one_revision(tmp_path: Path) -> None:
    image = many_platforms()[0]
    async with FaultyRegistry() as hub, publishing(tmp_path, hub) as here, here.publisher():
        digest = offer(hub, "team/app", "1", image)
        await here.request(str(APP), digest)
        status = await _published(here, digest)
        [platform] = await here.statuses.platforms(APP)
    assert status.publication is not None
    assert platform.publication is not None
    assert platform.platform == ARM64
    assert platform.publication.path == f"/cvmfs/{FQRN}/.multiarch/arm64/{APP}"
    assert platform.publication.revision == status.publication.revision == 2
    for link in (str(APP), f".multiarch/arm64/{APP}"):
        assert _leads_to(here.reader(), link) == layout.flat_root(Digest.of(image.config))
    assert here.problems() == []


async def test_a_tag_that_becomes_an_image_of_another_platform_moves_in_one_revision_and_leaves_nothing(tmp_path: Path) -> None:
    arm, amd = many_platforms()[0], tiny("amd64")
    async with FaultyRegistry() as hub, publishing(tmp_path, hub) as here, here.publisher():
        digest = offer(hub, "team/app", "1", arm)
        await here.request(str(APP), digest)
        await _published(here, digest)
        digest = offer(hub, "team/app", "1", amd)
        await here.request(str(APP), digest)
        await _published(here, digest)
        await until(lambda: _leads_to(here.reader(), f".multiarch/arm64/{APP}") is None, 20)
    reader = here.reader()
    for link in (str(APP), f".multiarch/amd64/{APP}"):
        assert _leads_to(reader, link) == layout.flat_root(Digest.of(amd.config))
    assert reader.lookup(layout.flat_root(Digest.of(arm.config))) is not None, "the image stays until it expires"
    assert reader.lookup(f".metadata/.multiarch/arm64/{APP}".encode()) is None
    assert here.problems() == []


async def test_images_of_one_tag_come_into_one_repository_however_much_of_them_is_elsewhere(tmp_path: Path) -> None:
    arm, amd, _ = many_platforms()
    async with FaultyRegistry() as hub, publishing(tmp_path, hub, repositories=(FQRN, OTHER)) as here, here.publisher():
        index = Digest.of(b"index")
        digests = [offer(hub, "team/app", "x", image) for image in (amd, arm)]
        requests = [PublishRequest(APP, index, digests[0])]
        requests += [PublishRequest(APP, index, digest, of) for digest, of in zip(digests, (AMD64, ARM64), strict=True)]
        await here.queue.enqueue_all(requests)
        own, for_arm = await _published(here, digests[0]), await _published(here, digests[1], ARM64)
    assert own.publication is not None
    assert for_arm.publication is not None
    assert own.publication.fqrn == for_arm.publication.fqrn


async def test_a_tag_that_moves_to_the_other_repository_is_readable_there_and_nowhere_else(tmp_path: Path) -> None:
    async with FaultyRegistry() as hub, publishing(tmp_path, hub, repositories=(FQRN, OTHER)) as here, here.publisher():
        first = offer(hub, "team/app", "1", tiny("old"))
        await here.request(str(APP), first)
        before = await _published(here, first)
        assert before.publication is not None
        database = Database(DatabaseSettings(sqlite_url(here.config.data / "state.sqlite")))
        await Repositories(database).set_state(before.publication.fqrn, RepositoryState.FULL)
        await database.close()
        second = offer(hub, "team/app", "1", Image((Layer.of(directory("etc"), file("etc/motd", b"new")),)))
        await here.request(str(APP), second)
        after = await _published(here, second)
        assert after.publication is not None
        assert after.publication.fqrn != before.publication.fqrn
        old = before.publication.fqrn
        await until(lambda: _leads_to(_reader(here, old), str(APP)) is None, 20)
        await until(lambda: _leads_to(_reader(here, old), f".multiarch/amd64/{APP}") is None, 20)
        assert _leads_to(_reader(here, after.publication.fqrn), str(APP)) is not None
        flat = layout.flat_root(Digest.of(tiny("old").config))
        assert _reader(here, old).lookup(flat) is not None


async def test_an_attestation_that_got_so_far_is_said_to_be_no_image(tmp_path: Path) -> None:
    attestation = many_platforms()[2]
    async with FaultyRegistry() as hub, publishing(tmp_path, hub) as here, here.publisher():
        await here.request(str(APP), offer(hub, "team/app", "1", attestation))
        status = await here.reach(str(APP), {State.NOT_AN_IMAGE, State.REFUSED, State.FAILED})
        await here.request("hub.test/team/index:1", hub.add_manifest("team/index", "1", _EMPTY_INDEX, OCI_INDEX))
        other = await here.reach("hub.test/team/index:1", {State.NOT_AN_IMAGE, State.REFUSED, State.FAILED})
    assert status.state is other.state is State.NOT_AN_IMAGE
    assert "for no machine" in (status.reason or "")
    assert here.reader().manifest.revision == 1


_EMPTY_INDEX = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}).encode()
