"""The hint as a referrer: listed beside what the hub lists, served to who may read the image, and nowhere else to be found."""

from __future__ import annotations

import asyncio
import json
import shutil
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from mirror.jobs.blocks import Blocks
from mirror.jobs.change import Change
from mirror.jobs.model import Publication, PublishRequest
from mirror.jobs.queue import Queue
from mirror.jobs.statuses import Statuses
from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_INDEX, OCI_MANIFEST
from mirror.oci.reference import ImageReference
from mirror.state.engine import Database, DatabaseSettings, sqlite_url
from tests.support.artifacts import artifact_problems
from tests.support.mirror_server import Answer, Image, MirrorServer, add_image, mirror_server

TYPE = "application/vnd.debark.cvmfs.v1+json"
NAME = "team/app"
IMAGE = ImageReference.parse(f"hub.test/{NAME}:1")
FQRN = "unpacked-1.debark.local"
PATH = f"/cvmfs/{FQRN}/{IMAGE}"
LAYER = b"a layer"
SIGNATURE = {"mediaType": OCI_MANIFEST, "digest": str(Digest.of(b"1")), "size": 1, "artifactType": "application/sig"}


@dataclass
class Site:
    mirror: MirrorServer
    image: Image
    index: Digest
    """Lists the image, and has the tag."""

    def database(self) -> Database:
        return Database(DatabaseSettings(sqlite_url(self.mirror.data / "state.sqlite")))

    async def listed(self, query: str = "", subject: Digest | None = None) -> list[dict[str, Any]]:
        answer = await self.mirror.get(f"/v2/{NAME}/referrers/{subject or self.image.digest}{query}")
        assert (answer.status, answer.headers["Content-Type"]) == (200, OCI_INDEX), answer.body
        descriptors: list[dict[str, Any]] = json.loads(answer.body)["manifests"]
        return descriptors

    async def hint(self, subject: Digest | None = None) -> dict[str, Any]:
        """How the one artifact of the mirror's own is listed."""
        (found,) = await self.listed(f"?artifactType={quote(TYPE)}", subject)
        return found

    async def ask(self, kind: str, digest: object, method: str = "GET", **headers: str) -> Answer:
        return await self.mirror.ask(method, f"/v2/{NAME}/{kind}/{digest}", **headers)

    async def layer(self, hint: Mapping[str, Any]) -> tuple[str, bytes]:
        """Digest and bytes of the artifact's layer."""
        manifest = await self.ask("manifests", hint["digest"])
        assert manifest.status == 200, manifest.body
        digest: str = json.loads(manifest.body)["layers"][0]["digest"]
        blob = await self.ask("blobs", digest)
        assert blob.status == 200, blob.body
        return digest, blob.body

    async def known(self, revision: str | None) -> None:
        """Return when the mirror has seen what was published; it looks once a second."""
        found: str | None = "not asked"
        async with asyncio.timeout(20):
            while found != revision:
                found = (await self.ask("manifests", self.image.digest)).headers.get("X-CVMFS-Revision")
                await asyncio.sleep(0.05)


@asynccontextmanager
async def state(mirror: MirrorServer) -> AsyncIterator[Database]:
    """What the publisher writes into."""
    database = Database(DatabaseSettings(sqlite_url(mirror.data / "state.sqlite")))
    try:
        yield database
    finally:
        await database.close()


@asynccontextmanager
async def site(root: Path, settings: Mapping[str, Any] | None = None, **upstream: Any) -> AsyncIterator[Site]:
    """A mirror through which an image, and the index that lists it, were pulled, and then published in revision 2."""
    async with mirror_server(root, upstream=upstream, settings={"tags": {"ttl": 0, "absent": 0}, **(settings or {})}) as mirror:
        image = add_image(mirror.hub, NAME, "plain", LAYER)
        listed = {"mediaType": OCI_MANIFEST, "digest": str(image.digest), "size": len(image.raw)}
        index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [listed]}).encode()
        here = Site(mirror, image, mirror.hub.add_manifest(NAME, "1", index, OCI_INDEX))
        for reference in ("1", str(image.digest)):
            assert (await here.ask("manifests", reference)).status == 200
        await publish(here)
        yield here


async def publish(here: Site) -> None:
    async with state(here.mirror) as database:
        queue = Queue(database)
        await queue.enqueue(PublishRequest(IMAGE, here.index, here.image.digest))
        for job in await queue.claim("p1", 100, 60.0):
            publications = {request.image: Publication(FQRN, f"/cvmfs/{FQRN}/{request.image}", 2) for request in job.requests}
            await queue.published("p1", job.manifest, FQRN, publications, [])
    await here.known("2")


async def move(here: Site, revision: int) -> None:
    """The image is published anew."""
    async with state(here.mirror) as database, Change.begin(database, 1.0) as change:
        await change.update_name(IMAGE, revision=revision)
    await here.known(str(revision))


async def take_down(here: Site) -> None:
    async with state(here.mirror) as database:
        await Blocks(database).add([here.image.digest], IMAGE, "for a test", "the test")
    await here.known(None)


@asynccontextmanager
async def with_an_account(root: Path, image: Image, readers: dict[str, dict[str, str]]) -> AsyncIterator[MirrorServer]:
    """A mirror started again with an account of its own, which it does not share. readers: of what is private, by repository."""
    (root / "password").write_text("word")
    account = {"username": "mirror", "password_file": str(root / "password")}
    async with mirror_server(root, upstream=account) as mirror:
        mirror.hub.faults.auth = "bearer"
        mirror.hub.faults.readers = readers
        mirror.hub.add_manifest(NAME, "plain", image.raw)
        yield mirror


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path) as started:
        yield started


async def test_the_hubs_referrers_come_first_and_unchanged(here: Site) -> None:
    here.mirror.hub.referrers[str(here.image.digest)] = [SIGNATURE]
    first, own = await here.listed()
    assert first == SIGNATURE
    assert (own["artifactType"], own["mediaType"]) == (TYPE, OCI_MANIFEST)
    assert own["annotations"] == {
        "org.debark.cvmfs.image": str(IMAGE),
        "org.debark.cvmfs.manifest": str(here.image.digest),
        "org.debark.cvmfs.fqrn": FQRN,
        "org.debark.cvmfs.path": PATH,
        "org.debark.cvmfs.revision": "2",
    }


async def test_the_filter_counts_for_it_too(here: Site) -> None:
    here.mirror.hub.referrers[str(here.image.digest)] = [SIGNATURE]
    assert await here.listed("?artifactType=application/sig") == [SIGNATURE]
    for written in (quote(TYPE), TYPE):  # Not everybody knows that a plus is a space in a query.
        answer = await here.mirror.get(f"/v2/{NAME}/referrers/{here.image.digest}?artifactType={written}")
        assert answer.headers["OCI-Filters-Applied"] == "artifactType"
        assert [one["artifactType"] for one in json.loads(answer.body)["manifests"]] == [TYPE]


async def test_an_index_has_one_of_its_own(here: Site) -> None:
    of_image, of_index = await here.hint(), await here.hint(here.index)
    assert of_image["digest"] != of_index["digest"]
    for hint, subject in ((of_image, here.image.digest), (of_index, here.index)):
        raw = (await here.ask("manifests", hint["digest"])).body
        assert artifact_problems(raw) == []
        described = json.loads(raw)["subject"]
        assert described["digest"] == str(subject)
        served = await here.ask("manifests", subject)
        assert (described["mediaType"], described["size"]) == (served.headers["Content-Type"], len(served.body))
    assert of_index["annotations"] == of_image["annotations"]


async def test_clients_get_what_is_listed_by_digest_and_the_hub_is_not_asked(here: Site) -> None:
    hint = await here.hint()
    asked = len(here.mirror.hub.seen)
    manifest = await here.ask("manifests", hint["digest"])
    assert (manifest.status, manifest.headers["Content-Type"], len(manifest.body)) == (200, OCI_MANIFEST, hint["size"])
    assert str(Digest.of(manifest.body)) == hint["digest"] == manifest.headers["Docker-Content-Digest"]
    for descriptor in (json.loads(manifest.body)["config"], *json.loads(manifest.body)["layers"]):
        blob = await here.ask("blobs", descriptor["digest"])
        assert (blob.status, len(blob.body)) == (200, descriptor["size"])
        assert str(Digest.of(blob.body)) == descriptor["digest"] == blob.headers["Docker-Content-Digest"]
    assert json.loads((await here.layer(hint))[1])["path"] == PATH
    assert len(here.mirror.hub.seen) == asked


@pytest.mark.parametrize("kind", ["manifests", "blobs"])
async def test_it_is_answered_as_everything_else_is(here: Site, kind: str) -> None:
    hint = await here.hint()
    digest = hint["digest"] if kind == "manifests" else (await here.layer(hint))[0]
    got, head = await here.ask(kind, digest), await here.ask(kind, digest, "HEAD")
    fields = ("Content-Length", "Content-Type", "Docker-Content-Digest", "ETag", "X-Debark-Cache", "Accept-Ranges")
    assert [head.headers.get(name) for name in fields] == [got.headers.get(name) for name in fields]
    assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", str(len(got.body)))
    same = await here.ask(kind, digest, If_None_Match=got.headers["ETag"])
    assert (same.status, same.body, same.headers["ETag"]) == (304, b"", got.headers["ETag"])
    named = await here.mirror.get(f"/v2/hub.test/{NAME}/{kind}/{digest}?ns=hub.test")
    assert (named.body, named.headers["OCI-Namespace"]) == (got.body, "hub.test")


async def test_parts_of_its_layer(here: Site) -> None:
    digest, layer = await here.layer(await here.hint())
    part = await here.ask("blobs", digest, Range="bytes=3-9")
    assert (part.status, part.body) == (206, layer[3:10])
    assert part.headers["Content-Range"] == f"bytes 3-9/{len(layer)}"
    beyond = await here.ask("blobs", digest, Range="bytes=100000-")
    assert (beyond.status, beyond.code, beyond.headers["Content-Range"]) == (416, "RANGE_INVALID", f"bytes */{len(layer)}")


async def test_each_endpoint_has_what_belongs_to_it(here: Site) -> None:
    hint = await here.hint()
    layer, _ = await here.layer(hint)
    assert (await here.ask("manifests", layer)).status == 404
    assert (await here.ask("blobs", hint["digest"])).status == 404


async def test_another_repository_does_not_have_it(here: Site) -> None:
    hint = await here.hint()
    layer, _ = await here.layer(hint)
    add_image(here.mirror.hub, "team/other", "1", b"other")
    for path in (f"manifests/{hint['digest']}", f"blobs/{layer}"):
        answer = await here.mirror.get(f"/v2/team/other/{path}")
        assert answer.status == 404, path


async def test_nothing_is_said_to_refer_to_it(here: Site) -> None:
    hint = await here.hint()
    asked = len(here.mirror.hub.seen)
    assert await here.listed(subject=Digest.parse(hint["digest"])) == []
    assert len(here.mirror.hub.seen) == asked


async def test_pulling_it_leaves_no_trace_but_in_the_access_log(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        stored = {path for path in (here.mirror.data / "blobs").rglob("*") if path.is_file()}
        hint = await here.hint()
        layer, _ = await here.layer(hint)
        await here.ask("manifests", here.image.digest)
        assert {path for path in (here.mirror.data / "blobs").rglob("*") if path.is_file()} == stored
        data = here.mirror.data
    async with mirror_server(tmp_path) as restarted:  # Whatever was waiting to be recorded has been.
        assert restarted.data == data
        async with state(restarted) as database:
            by_digest = ImageReference.parse(f"hub.test/{NAME}@{hint['digest']}")
            assert await Statuses(database).status(by_digest) is None
    kinds = {line["digest"]: line["kind"] for line in here.mirror.access_lines() if line["digest"] in (hint["digest"], layer)}
    assert kinds == {hint["digest"]: "referrers", layer: "referrers"}


async def test_a_process_that_has_listed_nothing_serves_it_too(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        hint = await here.hint()
        layer = await here.layer(hint)
    async with mirror_server(tmp_path) as other:
        again = Site(other, here.image, here.index)
        for digest, kind in ((hint["digest"], "manifests"), (layer[0], "blobs"), (str(Digest.of(b"{}")), "blobs")):
            answer = await again.ask(kind, digest)
            assert (answer.status, str(Digest.of(answer.body))) == (200, digest)
        assert await again.layer(hint) == layer
        assert other.hub.seen == []


async def test_what_was_listed_is_served_for_a_while_after_the_image_moved(here: Site) -> None:
    before = await here.hint()
    await move(here, 3)
    after = await here.hint()
    assert after["annotations"]["org.debark.cvmfs.revision"] == "3"
    assert after["digest"] != before["digest"]
    for hint, revision in ((before, 2), (after, 3)):
        assert json.loads((await here.layer(hint))[1])["revision"] == revision


async def test_what_is_taken_down_is_not_listed_any_more(here: Site) -> None:
    here.mirror.hub.referrers[str(here.image.digest)] = [SIGNATURE]
    assert len(await here.listed()) == 2
    await take_down(here)
    assert await here.listed() == [SIGNATURE]


async def test_of_what_is_not_published_there_is_none(here: Site) -> None:
    other = add_image(here.mirror.hub, NAME, "2", b"another layer")
    await here.ask("manifests", "2")
    assert await here.listed(subject=other.digest) == []


@pytest.mark.parametrize("publish", [{"hint_artifacts": False}, {"enabled": False}], ids=["no artifacts", "no publishing"])
async def test_it_can_be_switched_off(tmp_path: Path, publish: Mapping[str, Any]) -> None:
    async with site(tmp_path) as here:
        hint = await here.hint()
    async with mirror_server(tmp_path, settings={"publish": publish}) as plain:
        without = Site(plain, here.image, here.index)
        assert await without.listed() == []
        assert (await without.ask("manifests", hint["digest"])).status == 404


async def test_a_hub_without_the_referrers_api(here: Site) -> None:
    here.mirror.hub.faults.no_referrers_api = True
    assert [one["artifactType"] for one in await here.listed()] == [TYPE]
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [SIGNATURE]}, indent=1).encode()
    tag = f"sha256-{here.image.digest.hex}"
    here.mirror.hub.add_manifest(NAME, tag, index, OCI_INDEX)
    assert [one["artifactType"] for one in await here.listed()] == ["application/sig", TYPE]
    assert (await here.ask("manifests", tag)).body == index


@pytest.mark.parametrize("status", [500, 503, 429, 403])
async def test_it_never_stands_for_a_list_that_the_hub_does_not_give(here: Site, status: int) -> None:
    here.mirror.hub.faults.status = status
    answer = await here.mirror.get(f"/v2/{NAME}/referrers/{here.image.digest}")
    assert answer.status == (403 if status == 403 else 503)


async def test_in_an_outage_it_comes_behind_the_last_list(here: Site) -> None:
    here.mirror.hub.referrers[str(here.image.digest)] = [SIGNATURE]
    hint = (await here.listed())[1]
    here.mirror.hub.faults.status = 503
    await move(here, 3)
    answer = await here.mirror.get(f"/v2/{NAME}/referrers/{here.image.digest}")
    assert (answer.status, answer.headers["X-Debark-Cache"]) == (200, "stale")
    first, own = json.loads(answer.body)["manifests"]
    assert (first, own["annotations"]["org.debark.cvmfs.revision"]) == (SIGNATURE, "3")
    for listed in (hint, own):
        await here.layer(listed)


async def test_it_is_on_one_of_the_pages(here: Site) -> None:
    many = [
        {**SIGNATURE, "digest": str(Digest.of(str(number).encode())), "annotations": {"a": "x" * 2000}} for number in range(3000)
    ]
    here.mirror.hub.referrers[str(here.image.digest)] = many
    path, found = f"/v2/{NAME}/referrers/{here.image.digest}", []
    while path:
        answer = await here.mirror.get(path)
        found += json.loads(answer.body)["manifests"]
        path = answer.headers.get("Link", "").partition("<")[2].partition(">")[0]
    assert len(found) == 3001
    assert [one["artifactType"] for one in found if one not in many] == [TYPE]


async def test_that_the_repository_is_public_is_asked_by_the_image(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        hint = await here.hint()
        layer, _ = await here.layer(hint)
    for number, path in enumerate((f"manifests/{hint['digest']}", f"blobs/{layer}", f"referrers/{hint['digest']}")):
        root = tmp_path / str(number)  # What the upstream has said is kept: one that was not told yet has to ask.
        shutil.copytree(tmp_path / "data", root / "data")
        async with with_an_account(root, here.image, {}) as mirror:
            assert (await mirror.get(f"/v2/{NAME}/{path}")).status == 200, path
            assert {seen.path for seen in mirror.hub.seen} == {"/token", f"/v2/{NAME}/manifests/{here.image.digest}"}


async def test_who_may_not_read_the_image_gets_nothing_of_it(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        hint = await here.hint()
        layer, _ = await here.layer(hint)
    # The repository has become private meanwhile.
    async with with_an_account(tmp_path, here.image, {NAME: {"mirror": "word"}}) as mirror:
        for path in (f"referrers/{here.image.digest}", f"manifests/{hint['digest']}", f"blobs/{layer}"):
            answer = await mirror.get(f"/v2/{NAME}/{path}")
            assert (answer.status, answer.code) == (403, "DENIED"), path
            assert FQRN.encode() not in answer.body


async def test_what_is_read_with_a_clients_own_account_has_none(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        hint = await here.hint()
        layer, _ = await here.layer(hint)
    ada = f"Basic {b64encode(b'ada:word').decode()}"
    async with mirror_server(tmp_path, upstream={"private": "client"}) as mirror:
        mirror.hub.faults.auth = "bearer"
        mirror.hub.faults.readers = {NAME: {"ada": "word"}}
        mirror.hub.add_manifest(NAME, "plain", here.image.raw)
        listed = await mirror.get(f"/v2/{NAME}/referrers/{here.image.digest}", Authorization=ada)
        assert (listed.status, json.loads(listed.body)["manifests"]) == (200, [])
        for path in (f"manifests/{hint['digest']}", f"blobs/{layer}"):
            assert (await mirror.get(f"/v2/{NAME}/{path}", Authorization=ada)).status == 404, path
