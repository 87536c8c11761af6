"""What scripts ask the mirror itself."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from urllib.parse import quote

import pytest

from mirror.config.models import Config
from mirror.jobs.model import PlatformName, Publication, PublishRequest
from mirror.jobs.notes import Notes
from mirror.jobs.queue import Queue
from mirror.jobs.repositories import Repositories, RepositoryFacts
from mirror.oci.digest import Digest
from mirror.oci.platform import Platform
from mirror.oci.reference import ImageReference
from mirror.proxy import status
from mirror.state.engine import Database, DatabaseSettings, sqlite_url
from tests.support.mirror_server import MirrorServer, mirror_server

FQRN = "unpacked-1.debark.local"
FACTS = RepositoryFacts(FQRN, 7, "a" * 40, "-----BEGIN PUBLIC KEY-----\n", f"/cvmfs/{FQRN}", 1000)
IMAGE = ImageReference.parse("hub.test/team/app:1")
DIGEST = Digest.of(b"manifest")
NOTES = Notes(devices_dropped=4)
PATH = f"/cvmfs/{FQRN}/hub.test/team/app:1"
INDEX_DIGEST, ARM64_DIGEST = Digest.of(b"index"), Digest.of(b"arm64")
AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
AMD64_PATH, ARM64_PATH = (f"/cvmfs/{FQRN}/.multiarch/{name}/hub.test/team/app:1" for name in ("amd64", "arm64"))


@pytest.fixture
async def published(mirror: MirrorServer) -> MirrorServer:
    """With one image published for two platforms, as a publisher would have reported it."""
    database = Database(DatabaseSettings(sqlite_url(mirror.data / "state.sqlite")))
    await Repositories(database).put(FACTS)
    queue = Queue(database)
    await queue.enqueue_all(
        [
            PublishRequest(IMAGE, INDEX_DIGEST, DIGEST),
            PublishRequest(IMAGE, INDEX_DIGEST, DIGEST, AMD64),
            PublishRequest(IMAGE, INDEX_DIGEST, ARM64_DIGEST, ARM64),
        ]
    )
    await queue.claim("publisher", 2, 60)
    amd64 = {PlatformName(IMAGE, AMD64): Publication(FQRN, AMD64_PATH, 7)}
    await queue.published("publisher", DIGEST, FQRN, {IMAGE: Publication(FQRN, PATH, 7)}, [], platforms=amd64, notes=NOTES)
    arm64 = {PlatformName(IMAGE, ARM64): Publication(FQRN, ARM64_PATH, 7)}
    await queue.published("publisher", ARM64_DIGEST, FQRN, {}, [], platforms=arm64)
    await database.close()
    return mirror


@pytest.mark.parametrize(
    "reference",
    [
        "docker://hub.test/team/app:1",
        "hub.test/team/app:1",
        "team/app:1",
        "docker://{own}/hub.test/team/app:1",
        "hub.test/team/app@{digest}",
    ],
)
async def test_where_an_image_is(published: MirrorServer, reference: str) -> None:
    text = reference.format(own=f"127.0.0.1:{published.port}", digest=DIGEST)
    answer = await published.get(f"/_debark/v1/images?ref={quote(text)}")
    document = json.loads(answer.body)
    assert answer.headers["Cache-Control"] == "no-store"
    assert (document["state"], document["path"], document["fqrn"], document["revision"]) == ("published", PATH, FQRN, 7)
    assert (document["image"], document["manifest"], document["reason"]) == (str(IMAGE), str(DIGEST), None)
    assert document["notes"] == {"devices_dropped": 4}
    assert document["times"].keys() == {"queued", "fetching", "published"}
    assert document["times"]["published"] == document["published"] >= document["times"]["queued"]


@pytest.mark.parametrize("platform", ["linux/arm64", "arm64", "aarch64", "linux/arm64/v8"])
async def test_where_the_image_for_a_platform_is(published: MirrorServer, platform: str) -> None:
    document = json.loads((await published.get(f"/_debark/v1/images?ref=team/app:1&platform={quote(platform)}")).body)
    assert (document["platform"], document["path"], document["manifest"]) == ("linux/arm64", ARM64_PATH, str(ARM64_DIGEST))
    plain = json.loads((await published.get("/_debark/v1/images?ref=team/app:1")).body)
    assert (plain["platform"], plain["path"]) == (None, PATH)
    for answer in (document, plain):
        assert [(found["platform"], found["path"], found["state"]) for found in answer["platforms"]] == [
            ("linux/amd64", AMD64_PATH, "published"),
            ("linux/arm64", ARM64_PATH, "published"),
        ]


async def test_platforms_that_are_not_there_are_told_from_those_that_are(published: MirrorServer) -> None:
    answer = await published.get("/_debark/v1/images?ref=team/app:1&platform=s390x")
    assert answer.status == 404
    assert "it knows those for linux/amd64, linux/arm64" in answer.message
    assert (await published.get("/_debark/v1/images?ref=team/app:1&platform=a/b/c/d")).status == 400


async def test_a_child_of_an_index_has_the_path_of_its_platform(published: MirrorServer) -> None:
    for digest, path in ((DIGEST, PATH), (ARM64_DIGEST, ARM64_PATH), (INDEX_DIGEST, PATH)):
        document = json.loads((await published.get(f"/_debark/v1/images?ref=team/app@{digest}")).body)
        assert document["path"] == path


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ("", 400, "ref=docker://"),
        ("?ref=", 400, "ref=docker://"),
        ("?ref=docker://hub.test/team/app:never", 404, "not pulled through this mirror yet"),
        ("?ref=docker://elsewhere.example.org/app", 400, "configured are: "),
        ("?ref=docker://hub.test/Team/app", 400, "is not a repository name"),
        ("?ref=docker://hub.test/team/app:-", 400, "is not a tag"),
        ("?ref=docker://hub.test/team/app@sha256:1", 400, "is not a digest"),
    ],
)
async def test_what_cannot_be_told_is_said_in_words(mirror: MirrorServer, query: str, status: int, words: str) -> None:
    answer = await mirror.get(f"/_debark/v1/images{query}")
    assert answer.status == status
    assert words in answer.message


async def test_repositories_with_what_clients_need_to_mount_them(published: MirrorServer) -> None:
    (found,) = json.loads((await published.get("/_debark/v1/repositories")).body)["repositories"]
    assert (found["fqrn"], found["revision"]) == (FQRN, 7)
    assert found["server_url"] == f"{published.url}/cvmfs/{FQRN}"
    key = await published.get(f"/_debark/v1/repositories/{FQRN}.pub")
    assert (key.status, key.body.decode()) == (200, FACTS.public_key)
    assert (await published.get("/_debark/v1/repositories/other.pub")).status == 404


async def test_a_clients_settings_name_the_mirror_as_the_client_does(published: MirrorServer) -> None:
    settings = await published.get(f"/_debark/v1/repositories/{FQRN}.conf", Host="mirror.example.org:80")
    lines = [line for line in settings.body.decode().splitlines() if not line.startswith("#")]
    assert lines == [
        'CVMFS_SERVER_URL="http://mirror.example.org:80/cvmfs/@fqrn@"',
        f"CVMFS_PUBLIC_KEY=/etc/cvmfs/keys/{FQRN}.pub",
        "CVMFS_HTTP_PROXY=DIRECT",
    ]
    assert (await published.get("/_debark/v1/repositories/other.conf")).status == 404
    for host in ("x$(reboot)", 'x";reboot', "x y"):
        assert (await published.get(f"/_debark/v1/repositories/{FQRN}.conf", Host=host)).status == 400


@pytest.mark.parametrize(
    ("server", "lines"),
    [
        (
            {"public_url": "https://mirror.example.org"},
            ['CVMFS_SERVER_URL="https://mirror.example.org/cvmfs/@fqrn@"', "CVMFS_USE_SSL_SYSTEM_CA=true"],
        ),
        (
            {"public_url": "https://mirror.example.org", "cvmfs_url": "http://stratum0.example.org:8000/"},
            ['CVMFS_SERVER_URL="http://stratum0.example.org:8000/cvmfs/@fqrn@"'],
        ),
    ],
)
async def test_cvmfs_clients_are_told_where_the_operator_has_the_repositories_served(
    tmp_path: Path, server: dict[str, str], lines: list[str]
) -> None:
    async with mirror_server(tmp_path, settings={"server": server}) as mirror:
        database = Database(DatabaseSettings(sqlite_url(mirror.data / "state.sqlite")))
        await Repositories(database).put(FACTS)
        await database.close()
        text = (await mirror.get(f"/_debark/v1/repositories/{FQRN}.conf")).body.decode()
        listed = json.loads((await mirror.get("/_debark/v1/repositories")).body)["repositories"]
    said = [line for line in text.splitlines() if line.startswith(("CVMFS_SERVER", "CVMFS_USE"))]
    assert said == lines
    assert f'"{listed[0]["server_url"]}"' == said[0].partition("=")[2].replace("@fqrn@", FQRN)


async def test_health_names_what_does_not_work(tmp_path: Path) -> None:
    async with mirror_server(tmp_path, settings={"store": {"min_free": "100 TiB"}}) as mirror:
        answer = await mirror.get("/healthz")
        document = json.loads(answer.body)
        assert (answer.status, document["status"], document["parts"]["state"]) == (200, "degraded", "ok")
        assert "free" in document["parts"]["store"]


async def test_a_server_is_ready_while_it_can_read_its_store(mirror: MirrorServer) -> None:
    ready = await mirror.get("/readyz")
    assert (ready.status, json.loads(ready.body)["status"]) == (200, "ready")
    (mirror.data / "blobs").rename(mirror.data / "away")

    gone = await mirror.get("/readyz")

    assert (gone.status, json.loads(gone.body)["status"]) == (503, "not ready")
    assert "the store cannot read" in json.loads(gone.body)["parts"]["store"]
    (mirror.data / "away").rename(mirror.data / "blobs")


async def test_a_part_that_does_not_answer_is_said_not_to(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent() -> str | None:
        await asyncio.Event().wait()
        return None

    async def well() -> str | None:
        return None

    monkeypatch.setattr(status, "_PROBE_SECONDS", 0.01)
    assert await status.gathered({"a": silent, "b": well}) == {"a": "no answer within 0.01 s", "b": None}


async def test_health_and_metrics_when_all_is_well(mirror: MirrorServer) -> None:
    found = json.loads((await mirror.get("/healthz")).body)
    assert found["status"] == "ok"
    assert {"store", "state", "publisher_disk", "publisher_policy"} <= set(found["parts"])
    assert set(found["parts"].values()) == {"ok"}
    metrics = await mirror.get("/metrics")
    assert metrics.headers["Content-Type"].startswith("text/plain")
    assert b"debark_disk_free_bytes " in metrics.body


async def test_metrics_can_be_switched_off(tmp_path: Path) -> None:
    assert Config().metrics.enabled
    async with mirror_server(tmp_path, settings={"metrics": {"enabled": False}}) as mirror:
        assert (await mirror.get("/metrics")).status == 404
