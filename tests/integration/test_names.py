"""Which names lead to which image, and which images are unpacked."""

from __future__ import annotations

import json

from tests.support.clients import Skopeo
from tests.support.debark_process import DebarkProcess
from tests.support.hub import Hub
from tests.support.published import follow, inside, open_repository
from tests.support.small_images import many_platforms, push_index, tiny


def test_an_index_leads_to_the_linux_amd64_image(hub: Hub, debark: DebarkProcess, skopeo: Skopeo) -> None:
    index = push_index(hub.client(), "names/many", "1", many_platforms())
    skopeo.pull(f"{debark.address}/hub.test/names/many:1", "many")
    image = debark.wait_for("hub.test/names/many:1")
    amd64 = many_platforms()[1]
    assert (image["target"], image["manifest"]) == (index, amd64.digest)
    reader = open_repository(debark, image["fqrn"])
    assert reader.read(follow(reader, inside(image)) + b"/etc/motd") == b"amd64 of several"
    other = many_platforms()[0]
    assert debark.image(f"hub.test/names/many@{other.digest}") is None
    answer = debark.client().manifest("hub.test/names/many", amd64.digest)
    assert answer.headers["X-CVMFS-Path"] == image["path"]


def test_a_tag_that_moves_takes_its_path_along(hub: Hub, debark: DebarkProcess, skopeo: Skopeo) -> None:
    for number, text in enumerate(("old", "new")):
        wanted = tiny(text).push(hub.client(), "names/moving", "1")
        skopeo.pull(f"{debark.address}/hub.test/names/moving:1", f"moving-{number}")
        image = debark.wait_for("hub.test/names/moving:1", manifest=wanted)
        reader = open_repository(debark, image["fqrn"])
        assert reader.read(follow(reader, inside(image)) + b"/etc/motd") == text.encode()


def test_a_second_name_of_a_published_image_is_only_a_link(hub: Hub, debark: DebarkProcess, skopeo: Skopeo) -> None:
    for tag in ("a", "b"):
        tiny("two names").push(hub.client(), "names/two", tag)
        skopeo.pull(f"{debark.address}/hub.test/names/two:{tag}", tag)
        debark.wait_for(f"hub.test/names/two:{tag}")
    images = [debark.wait_for(f"hub.test/names/two:{tag}") for tag in ("a", "b")]
    reader = open_repository(debark, images[0]["fqrn"])
    assert len({follow(reader, inside(image)) for image in images}) == 1
    assert json.loads(reader.read(b".metadata/hub.test/names/two:b/manifest.json"))["layers"]


def test_a_pull_by_digest_alone_is_published_under_the_digest(hub: Hub, debark: DebarkProcess, skopeo: Skopeo) -> None:
    digest = tiny("by digest").push(hub.client(), "names/digest")
    name = f"hub.test/names/digest@{digest}"
    skopeo.pull(f"{debark.address}/{name}", "digest")
    image = debark.wait_for(name)
    assert image["path"] == f"/cvmfs/{image['fqrn']}/{name}"
    reader = open_repository(debark, image["fqrn"])
    assert reader.read(follow(reader, inside(image)) + b"/etc/motd") == b"by digest"


def test_the_namespace_parameter_names_the_upstream(hub: Hub, debark: DebarkProcess) -> None:
    digest = tiny("containerd").push(hub.client(), "names/ns", "1")
    answer = debark.get("/v2/names/ns/manifests/1?ns=hub.test", {"Accept": "*/*"})
    assert (answer.status, answer.headers["Docker-Content-Digest"]) == (200, digest)
