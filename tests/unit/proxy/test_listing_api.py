"""Content discovery as clients use it: tag lists in pages, referrers, and what is answered when the hub is away."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_INDEX
from tests.support.faulty_registry import Faults
from tests.support.mirror_server import Answer, MirrorServer, add_image, mirror_server

LAYER = b"a layer"
SIGNATURE = {"mediaType": "application/x", "digest": str(Digest.of(b"1")), "size": 1, "artifactType": "application/sig"}
BILL = {"mediaType": "application/x", "digest": str(Digest.of(b"2")), "size": 1, "artifactType": "application/sbom"}


@pytest.fixture
async def remembering(tmp_path: Path) -> AsyncIterator[MirrorServer]:
    """A mirror that keeps answers for a minute."""
    async with mirror_server(tmp_path, settings={"tags": {"ttl": 60}}) as started:
        yield started


def tags_of(answer: Answer) -> list[str]:
    assert answer.status == 200, answer.body
    tags: list[str] = json.loads(answer.body)["tags"]
    return tags


def add_tags(mirror: MirrorServer, *tags: str) -> None:
    for tag in tags:
        add_image(mirror.hub, "team/app", tag, LAYER)


async def test_all_pages_of_the_hub_are_one_list_here(mirror: MirrorServer) -> None:
    add_tags(mirror, "c", "a", "B", "d", "e")
    mirror.hub.faults = Faults(tags_per_page=2)
    answer = await mirror.get("/v2/team/app/tags/list")
    assert json.loads(answer.body) == {"name": "team/app", "tags": ["B", "a", "c", "d", "e"]}
    assert "Link" not in answer.headers
    assert mirror.hub.count("GET", "/tags/list") == 3


async def test_clients_read_it_in_pages_of_their_own(remembering: MirrorServer) -> None:
    add_tags(remembering, "a", "b", "c", "d", "e")
    path, found, link = "/v2/hub.test/team/app/tags/list?n=2&ns=hub.test", [], ""
    for _ in range(3):
        answer = await remembering.get(path)
        found.append(tags_of(answer))
        link = answer.headers.get("Link", "")
        path = link.partition("<")[2].partition(">")[0]
    assert found == [["a", "b"], ["c", "d"], ["e"]]
    assert link == ""
    assert remembering.hub.count("GET", "/tags/list") == 1
    assert tags_of(await remembering.get("/v2/team/app/tags/list?last=c")) == ["d", "e"]
    assert tags_of(await remembering.get("/v2/team/app/tags/list?n=0")) == []


@pytest.mark.parametrize("count", ["many", "-1", "", "1.5", "%C2%B2", "9" * 10])
async def test_a_count_that_is_none_is_the_clients_mistake(mirror: MirrorServer, count: str) -> None:
    answer = await mirror.get(f"/v2/team/app/tags/list?n={count}")
    assert (answer.status, answer.code) == (400, "PAGINATION_NUMBER_INVALID")


async def test_a_repository_that_the_hub_does_not_have(mirror: MirrorServer) -> None:
    answer = await mirror.get("/v2/team/app/tags/list")
    assert (answer.status, answer.code) == (404, "NAME_UNKNOWN")


async def test_an_outage_is_bridged_by_the_last_list(mirror: MirrorServer) -> None:
    add_tags(mirror, "a")
    assert (await mirror.get("/v2/team/app/tags/list")).headers["X-Debark-Cache"] == "miss"
    mirror.hub.faults.status = 503
    answer = await mirror.get("/v2/team/app/tags/list")
    assert (tags_of(answer), answer.headers["X-Debark-Cache"]) == (["a"], "stale")
    asked = len(mirror.hub.seen)
    assert (await mirror.get("/v2/team/app/tags/list")).headers["X-Debark-Cache"] == "stale"
    assert len(mirror.hub.seen) == asked
    unknown = await mirror.get("/v2/team/other/tags/list")
    assert (unknown.status, unknown.code) == (503, "UNAVAILABLE")
    assert "Retry-After" in unknown.headers


@pytest.mark.parametrize(
    "faults",
    [
        Faults(tags_per_page=1, endless_tags=True),
        Faults(tags_per_page=1, next_page="http://elsewhere.test/v2/x/tags/list"),
        Faults(tags_per_page=1, next_page="/etc/passwd"),
        Faults(tags_per_page=1, next_page="http://[/"),
    ],
    ids=["endless", "another host", "another path", "no address"],
)
async def test_a_hub_that_leads_astray_is_not_followed(mirror: MirrorServer, faults: Faults) -> None:
    add_tags(mirror, "a", "b")
    mirror.hub.faults = faults
    answer = await mirror.get("/v2/team/app/tags/list")
    assert (answer.status, answer.code) == (502, "UPSTREAM_INVALID")
    assert mirror.hub.count("GET", "/tags/list") <= 3


async def test_referrers_are_the_hubs_own(remembering: MirrorServer) -> None:
    image = add_image(remembering.hub, "team/app", "1", LAYER)
    remembering.hub.referrers[str(image.digest)] = [SIGNATURE, BILL]
    answer = await remembering.get(f"/v2/team/app/referrers/{image.digest}")
    assert (answer.status, answer.headers["Content-Type"]) == (200, OCI_INDEX)
    assert json.loads(answer.body)["manifests"] == [SIGNATURE, BILL]
    assert "OCI-Filters-Applied" not in answer.headers
    selected = await remembering.get(f"/v2/team/app/referrers/{image.digest}?artifactType=application/sbom")
    assert json.loads(selected.body)["manifests"] == [BILL]
    assert selected.headers["OCI-Filters-Applied"] == "artifactType"
    assert remembering.hub.count("GET", "/referrers/") == 1


async def test_more_referrers_than_clients_read_at_once_come_in_pages(remembering: MirrorServer) -> None:
    image = add_image(remembering.hub, "team/app", "1", LAYER)
    many = [
        {**(BILL if number % 3 else SIGNATURE), "digest": str(Digest.of(str(number).encode())), "annotations": {"a": "x" * 2000}}
        for number in range(3000)
    ]
    remembering.hub.referrers[str(image.digest)] = many
    path, found = f"/v2/hub.test/team/app/referrers/{image.digest}?artifactType=application/sbom&ns=hub.test", []
    pages = 0
    while path:
        answer = await remembering.get(path)
        assert (answer.status, answer.headers["OCI-Filters-Applied"]) == (200, "artifactType")
        assert len(answer.body) <= 4_000_000
        found += [descriptor["digest"] for descriptor in json.loads(answer.body)["manifests"]]
        path = answer.headers.get("Link", "").partition("<")[2].partition(">")[0]
        pages += 1
    assert pages == 2
    assert sorted(found) == sorted(str(listed["digest"]) for listed in many if listed["artifactType"] == "application/sbom")
    assert remembering.hub.count("GET", "/referrers/") == 1


async def test_nothing_refers_to_it(mirror: MirrorServer) -> None:
    answer = await mirror.get(f"/v2/team/app/referrers/{Digest.of(b'nothing')}")
    assert (answer.status, json.loads(answer.body)["manifests"]) == (200, [])


async def test_a_hub_without_referrers_keeps_them_under_a_tag(mirror: MirrorServer) -> None:
    image = add_image(mirror.hub, "team/app", "1", LAYER)
    mirror.hub.faults.no_referrers_api = True
    path = f"/v2/team/app/referrers/{image.digest}"
    assert json.loads((await mirror.get(path)).body)["manifests"] == []
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [BILL]}).encode()
    mirror.hub.add_manifest("team/app", f"sha256-{image.digest.hex}", index, OCI_INDEX)
    assert json.loads((await mirror.get(path)).body)["manifests"] == [BILL]
    mirror.hub.add_manifest("team/app", f"sha256-{image.digest.hex}", b"no JSON", OCI_INDEX)
    assert (await mirror.get(path)).headers["X-Debark-Cache"] == "stale"


async def test_a_subject_must_be_a_digest(mirror: MirrorServer) -> None:
    answer = await mirror.get("/v2/team/app/referrers/latest")
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")


async def test_each_name_of_the_server_may_stand_for_an_upstream(tmp_path: Path) -> None:
    upstream = {"hosts": ["hub-mirror.example.org"]}
    async with mirror_server(tmp_path, upstream=upstream, settings={"default_upstream": "docker.io"}) as mirror:
        image = add_image(mirror.hub, "team/app", "1", LAYER)
        for host in ("hub-mirror.example.org", "HUB-Mirror.example.org:8585"):
            answer = await mirror.get("/v2/team/app/manifests/1", Host=host)
            assert (answer.status, answer.body) == (200, image.raw)
        assert (await mirror.get("/v2/hub.test/team/app/manifests/1", Host="other.example.org")).status == 200
