"""From a pull by an unchanged client to a directory in the repository, on a real Debian image."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from publisher.cvmfs.reader import RepositoryReader
from tests.support.artifacts import artifact_problems
from tests.support.clients import Copy, Skopeo
from tests.support.comparison import differences
from tests.support.debark_process import DebarkProcess
from tests.support.hub import Hub
from tests.support.published import WebSource, flat_tree, follow, inside, open_repository, problems, public_key
from tests.support.registry_client import ACCEPT, digest_of
from tests.support.unpacked import unpack

NAME = "hub.test/library/debian"


@dataclass(frozen=True)
class Pulled:
    copy: Copy
    image: dict[str, Any]
    """The mirror's document on it, published."""

    @property
    def manifest(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.copy.manifest)
        return document


@pytest.fixture(scope="module")
def full(debark: DebarkProcess, debian: Path, tmp_path_factory: pytest.TempPathFactory) -> Pulled:
    """The image of five layers, pulled by its path in the mirror and then published: the first in its repository."""
    assert debian.exists()
    copy = Skopeo(tmp_path_factory.mktemp("first")).pull(f"{debark.address}/{NAME}:full", "full")
    return Pulled(copy, debark.wait_for(f"{NAME}:full"))


def test_the_client_gets_the_hubs_bytes(full: Pulled, hub: Hub) -> None:
    assert full.copy.differences(hub, "library/debian", "full") == []
    assert len(full.manifest["layers"]) == 5


def test_a_mirror_entry_gives_the_same_bytes_with_the_hub_away(full: Pulled, debark: DebarkProcess, skopeo: Skopeo) -> None:
    skopeo.mirror("hub.test", f"{debark.address}/hub.test")
    copy = skopeo.pull(f"{NAME}:full", "full")
    assert copy.manifest == full.copy.manifest
    assert copy.blobs == full.copy.blobs


def test_the_published_tree_is_what_umoci_unpacks(full: Pulled, debark: DebarkProcess, debian: Path) -> None:
    reference = unpack(debian, "full")
    assert len(reference) > 5000
    assert differences(reference, flat_tree(debark, full.image)) == []


def test_everything_of_the_image_is_in_one_revision(full: Pulled, debark: DebarkProcess) -> None:
    reader = open_repository(debark, full.image["fqrn"])
    assert reader.manifest.revision == full.image["revision"] == 2  # the first one is empty
    assert reader.read(b".metadata/" + inside(full.image) + b"/manifest.json") == full.copy.manifest
    config = full.manifest["config"]["digest"].removeprefix("sha256:")
    assert follow(reader, inside(full.image)) == f".flat/{config[:2]}/{config}".encode()
    for layer in full.manifest["layers"]:
        place = _layer_place(layer)
        assert reader.lookup(place + b"/layerfs"), layer
        assert reader.lookup(place + b"/.metadata/layers.json"), layer


def test_the_repository_is_sound(full: Pulled, debark: DebarkProcess) -> None:
    assert problems(debark, full.image["fqrn"]) == []


def test_layers_hold_whiteouts_in_the_form_of_overlayfs(full: Pulled, debark: DebarkProcess) -> None:
    reader = open_repository(debark, full.image["fqrn"])
    layers = [_layer_place(layer) + b"/layerfs" for layer in full.manifest["layers"]]
    removed = reader.lookup(layers[1] + b"/etc/issue")
    assert removed is not None
    assert removed.is_whiteout
    hiding = reader.lookup(layers[2] + b"/opt/zoo/opaque")
    assert hiding is not None
    assert hiding.is_opaque


def test_a_client_can_read_it_over_http(full: Pulled, debark: DebarkProcess) -> None:
    fqrn = full.image["fqrn"]
    reader = RepositoryReader(WebSource(debark, fqrn), fqrn, public_key(debark, fqrn))
    place = follow(reader, inside(full.image))
    assert reader.read(place + b"/etc/debian_version/inside") == b"a file became a directory\n"


def test_manifest_answers_carry_the_hint(full: Pulled, debark: DebarkProcess) -> None:
    digest = digest_of(full.copy.manifest)
    answers = [
        debark.client().ask(method, f"/v2/{NAME}/manifests/{reference}", {"Accept": ACCEPT})
        for method in ("HEAD", "GET")
        for reference in ("full", digest)
    ]
    for answer in answers:
        assert answer.status == 200
        assert answer.headers["Docker-Content-Digest"] == digest
        assert answer.headers["X-CVMFS-State"] == "published"
        assert answer.headers["X-CVMFS-Path"] == full.image["path"]
        assert answer.headers["X-CVMFS-Revision"] == str(full.image["revision"])
        assert re.fullmatch(r'299 - "[ -~]+"', answer.headers["Warning"])
        assert full.image["path"] in answer.headers["Warning"]
        assert 'rel="alternate"' in answer.headers["Link"]
    assert len({answer.headers["Warning"] for answer in answers}) == 1
    assert {answer.body for answer in answers} == {b"", full.copy.manifest}


def test_the_list_of_referrers_has_the_hint(full: Pulled, debark: DebarkProcess) -> None:
    subject = digest_of(full.copy.manifest)
    (listed,) = debark.get(f"/v2/{NAME}/referrers/{subject}").json()["manifests"]
    manifest = debark.client().manifest(NAME, listed["digest"])
    assert digest_of(manifest.body) == listed["digest"]
    assert artifact_problems(manifest.body) == []
    media_type = debark.client().manifest(NAME, subject).headers["Content-Type"]
    described = {"mediaType": media_type, "digest": subject, "size": len(full.copy.manifest)}
    assert manifest.json()["subject"] == described
    (layer,) = manifest.json()["layers"]
    blob = debark.client().blob(NAME, layer["digest"])
    assert digest_of(blob.body) == layer["digest"]
    assert blob.json() == {name: full.image[name] for name in ("image", "manifest", "fqrn", "path", "revision")}
    assert debark.get(f"/_debark/v1/images?ref={NAME}@{listed['digest']}").status == 404


def test_a_second_image_brings_only_the_layer_that_lacks(full: Pulled, debark: DebarkProcess, skopeo: Skopeo) -> None:
    before = open_repository(debark, full.image["fqrn"])
    copy = skopeo.pull(f"{debark.address}/{NAME}:other", "other")
    image = debark.wait_for(f"{NAME}:other")
    after = open_repository(debark, full.image["fqrn"])
    assert (image["fqrn"], image["revision"]) == (full.image["fqrn"], before.manifest.revision + 1)
    shared, own = json.loads(copy.manifest)["layers"]
    assert shared == full.manifest["layers"][0]
    assert before.lookup(_layer_place(own)) is None
    assert after.read(_layer_place(own) + b"/layerfs/opt/note") == b"an image that shares its first layer\n"
    ingested = [line for line in (debark.data / "log/publisher.log").read_text().splitlines() if "layer_ingested" in line]
    assert sum(own["digest"] in line for line in ingested) == 1
    assert sum(shared["digest"] in line for line in ingested) == 1  # that was for the first image
    assert problems(debark, image["fqrn"]) == []


def test_where_prints_the_path(full: Pulled, debark: DebarkProcess) -> None:
    done = debark.run("where", "--wait", f"docker://{NAME}:full")
    assert (done.returncode, done.stdout) == (0, full.image["path"] + "\n")
    assert debark.run("where", f"docker://{NAME}:never-pulled").returncode == 5


def test_every_request_is_in_the_access_log(full: Pulled, debark: DebarkProcess) -> None:
    digest = digest_of(full.copy.manifest)
    records = [record for record in debark.access_records() if record["agent"].startswith("skopeo")]
    first = next(record for record in records if record["kind"] == "manifest" and record["reference"] == "full")
    facts = {"upstream": "hub.test", "repository": "library/debian", "digest": digest, "status": 200, "cache": "miss"}
    assert {key: first[key] for key in facts} == facts
    assert first["bytes"] == len(full.copy.manifest)
    base = full.manifest["layers"][0]["digest"]
    fetched = [record["cache"] for record in records if record["kind"] == "blob" and record["reference"] == base]
    assert fetched[0] == "miss"
    assert "hit" in fetched[1:]


def test_the_report_sums_up_the_access_log(full: Pulled, debark: DebarkProcess) -> None:
    done = debark.run("report", str(debark.data / "log" / "access.jsonl"))
    assert done.returncode == 0, done.stderr
    assert full.image["path"].partition("/hub.test/")[2].partition(":")[0] in done.stdout


def _layer_place(layer: dict[str, Any]) -> bytes:
    digest: str = layer["digest"].removeprefix("sha256:")
    return f".layers/{digest[:2]}/{digest}".encode()
