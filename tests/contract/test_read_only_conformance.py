"""The read-only half of the OCI distribution specification 1.1, asked of the mirror in front of a real registry.

The cases are those of the specification's own conformance suite with pushing switched off (pull and content discovery, all kinds
of data), and the sentences of the specification that the suite does not try. Each is tried in every way of naming the upstream.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.support.debark_process import IMPATIENT, DebarkProcess
from tests.support.hub import Hub
from tests.support.registry_client import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, Answer, RegistryClient, digest_of

REPOSITORY = "conformance/repo"
WAYS = {
    "default upstream": "/v2/{name}/{rest}",
    "ns": "/v2/{name}/{rest}?ns=hub.test",
    "path": "/v2/hub.test/{name}/{rest}",
    "path and ns": "/v2/hub.test/{name}/{rest}?ns=hub.test",
}
ACCEPTS = (None, "*/*", OCI_MANIFEST, OCI_INDEX, "application/json", "text/html;q=0.3", "nonsense", ",;=", "")
EMPTY = b"{}"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"


@dataclass
class Data:
    """What was pushed: blobs by digest, manifests by digest, tags, and for each subject what refers to it."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    referrers: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def blob(self, data: bytes, media_type: str) -> dict[str, Any]:
        """Its descriptor."""
        self.blobs[digest_of(data)] = data
        return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}

    def manifest(self, document: Mapping[str, Any], tag: str | None = None) -> dict[str, Any]:
        """Its descriptor."""
        raw = json.dumps({"schemaVersion": 2, **document}, indent=2).encode()
        media_type: str = document["mediaType"]
        self.manifests[digest_of(raw)] = (raw, media_type)
        if tag is not None:
            self.tags[tag] = digest_of(raw)
        return {"mediaType": media_type, "digest": digest_of(raw), "size": len(raw)}

    def image(self, name: str, tag: str | None = None, **members: Any) -> dict[str, Any]:
        config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}, "x": name})
        layer = self.blob(f"layer of {name}".encode() * 1000, OCI_LAYER)
        document = {"mediaType": OCI_MANIFEST, "config": self.blob(config.encode(), OCI_CONFIG), "layers": [layer], **members}
        return self.manifest(document, tag)

    def push(self, hub: RegistryClient) -> None:
        for data in self.blobs.values():
            hub.push_blob(REPOSITORY, data)
        for digest, (raw, media_type) in self.manifests.items():
            hub.push_manifest(REPOSITORY, digest, raw, media_type)
        for tag, digest in self.tags.items():
            hub.push_manifest(REPOSITORY, tag, *self.manifests[digest])


def sample() -> Data:
    """The kinds of data that the specification's suite has; referrers under the fallback tag, as clients put them there."""
    data = Data()
    image = data.image("plain", "image")
    data.image("custom fields", "custom-fields", **{"org.example.new": {"a": [1]}, "annotations": {"key": "välue"}})
    data.image("upper", "Upper_Case.1")
    data.image("inner", "data-field", layers=[{**data.blob(b"in the manifest", OCI_LAYER), "data": "aW4gdGhlIG1hbmlmZXN0"}])
    data.image("empty blob", "empty-blob", layers=[data.blob(b"", OCI_LAYER)])
    large = {f"org.example.{number}": "x" * 1000 for number in range(3000)}
    data.image("large", "large-manifest", annotations=large)
    empty = data.blob(EMPTY, EMPTY_TYPE)
    artifact = {"mediaType": OCI_MANIFEST, "artifactType": "application/x.artifact", "config": empty, "layers": [empty]}
    data.manifest(artifact, "artifact")
    data.manifest({**artifact, "layers": []}, "no-layers")
    inner = data.manifest({"mediaType": OCI_INDEX, "manifests": [image, data.image("second")]}, "index")
    data.manifest({"mediaType": OCI_INDEX, "manifests": [inner, image]}, "index-of-indexes")
    data.manifest({"mediaType": OCI_INDEX, "artifactType": "application/x.list", "manifests": [image]}, "artifact-index")
    for kind in ("sig", "sig", "sbom"):
        annotations = {"org.example.number": str(len(data.manifests))}
        what = {"artifactType": f"application/x.{kind}", "annotations": annotations}
        descriptor = data.manifest({**artifact, **what, "subject": image})
        data.referrers.setdefault(image["digest"], []).append({**descriptor, **what})
    listed = {"mediaType": OCI_INDEX, "manifests": data.referrers[image["digest"]]}
    data.manifest(listed, image["digest"].replace(":", "-"))
    return data


DATA = sample()
LONG_NAMED = b"known by its sha512 digest" * 1000
LONG_NAME = f"sha512:{hashlib.sha512(LONG_NAMED).hexdigest()}"


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryClient]:
    """In front of a registry that has all the data."""
    root = tmp_path_factory.mktemp("conformance")
    settings = f'default_upstream = "hub.test"\n{IMPATIENT}'
    with Hub(root / "hub") as hub, DebarkProcess(root / "debark", {"hub.test": hub.url}, settings) as debark:
        DATA.push(hub.client())
        hub.client().push_blob(REPOSITORY, LONG_NAMED, LONG_NAME)
        yield debark.client()


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """How the upstream is named."""
    found: str = WAYS[request.param]
    return found


def target(way: str, rest: str, name: str = REPOSITORY, **query: str) -> str:
    path = way.format(name=name, rest=rest)
    for key, value in query.items():
        path += f"{'&' if '?' in path else '?'}{key}={value}"
    return path


def check_common(answer: Answer, way: str) -> None:
    assert answer.headers.get("OCI-Namespace") == ("hub.test" if "ns=" in way else None)
    assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"
    assert "Content-Encoding" not in answer.headers
    assert "Transfer-Encoding" not in answer.headers


def check_error(answer: Answer, status: int, code: str) -> None:
    document = answer.json()
    assert (answer.status, [error["code"] for error in document["errors"]]) == (status, [code])
    assert re.fullmatch("[A-Z_]+", code)
    assert isinstance(document["errors"][0]["message"], str)
    assert set(document["errors"][0]) <= {"code", "message", "detail"}
    assert answer.headers["Content-Type"] == "application/json"


def head_is_get(mirror: RegistryClient, path: str, headers: Mapping[str, str] | None = None) -> Answer:
    """The answer to GET, after it was compared with that to HEAD."""
    got, head = mirror.get(path, headers), mirror.head(path, headers)
    assert (head.status, head.body) == (got.status, b"")
    own = {"date", "x-request-id", "x-debark-cache", "x-cvmfs-state", "x-cvmfs-path", "x-cvmfs-revision", "warning", "link"}
    fields = [{key.lower(): value for key, value in answer.headers.items()} for answer in (got, head)]
    assert {key: value for key, value in fields[0].items() if key not in own} == {
        key: value for key, value in fields[1].items() if key not in own
    }
    return got


def test_it_says_what_it_is(mirror: RegistryClient) -> None:
    answer = head_is_get(mirror, "/v2/")
    assert (answer.status, answer.json()) == (200, {})


@pytest.mark.parametrize("tag", DATA.tags)
def test_manifests_by_tag_and_digest_are_the_pushed_bytes(mirror: RegistryClient, way: str, tag: str) -> None:
    digest = DATA.tags[tag]
    raw, media_type = DATA.manifests[digest]
    for reference in (tag, digest):
        answer = head_is_get(mirror, target(way, f"manifests/{reference}"))
        assert (answer.status, answer.body) == (200, raw)
        assert answer.headers["Content-Type"] == media_type
        assert answer.headers["Content-Length"] == str(len(raw))
        assert answer.headers["Docker-Content-Digest"] == digest
        check_common(answer, way)


@pytest.mark.parametrize("accept", ACCEPTS)
@pytest.mark.parametrize("tag", ["image", "index", "artifact"])
def test_whatever_a_client_accepts_it_gets_the_bytes_of_the_digest(mirror: RegistryClient, accept: str | None, tag: str) -> None:
    raw, media_type = DATA.manifests[DATA.tags[tag]]
    headers = {"Accept-Encoding": "zstd;q=1.0, gzip;q=0.8, deflate;q=0.5"} | ({} if accept is None else {"Accept": accept})
    for reference in (DATA.tags[tag], tag):
        answer = head_is_get(mirror, f"/v2/{REPOSITORY}/manifests/{reference}", headers)
        if reference == tag and accept in (OCI_MANIFEST, OCI_INDEX) and accept != media_type:
            # Of a tag that is something else it gets what this registry gives such a client: a no, in the registry's words.
            assert answer.status == 404
            assert re.search(
                "OCI (manifest|index) found, but accept header does not support", answer.json()["errors"][0]["message"]
            )
        else:
            assert (answer.status, answer.body, answer.headers["Content-Type"]) == (200, raw, media_type)
        assert "Content-Encoding" not in answer.headers


def test_every_manifest_by_digest(mirror: RegistryClient) -> None:
    for digest, (raw, media_type) in DATA.manifests.items():
        answer = head_is_get(mirror, f"/v2/{REPOSITORY}/manifests/{digest}")
        assert (answer.status, answer.body, answer.headers["Content-Type"]) == (200, raw, media_type)


def test_every_blob_cold_and_warm(mirror: RegistryClient, way: str) -> None:
    for digest, data in DATA.blobs.items():
        answer = head_is_get(mirror, target(way, f"blobs/{digest}"))
        assert (answer.status, answer.body) == (200, data)
        assert answer.headers["Docker-Content-Digest"] == digest
        assert answer.headers["Content-Length"] == str(len(data))
        check_common(answer, way)


def test_a_blob_known_by_its_sha512_digest(mirror: RegistryClient, way: str) -> None:
    answer = head_is_get(mirror, target(way, f"blobs/{LONG_NAME}"))
    assert (answer.status, answer.body) == (200, LONG_NAMED)
    assert answer.headers["Docker-Content-Digest"] == LONG_NAME
    part = mirror.get(target(way, f"blobs/{LONG_NAME}"), {"Range": "bytes=5-"})
    assert (part.status, part.body) == (206, LONG_NAMED[5:])


@pytest.mark.parametrize(
    ("header", "status", "part"),
    [
        ("bytes=0-", 206, slice(0, None)),
        ("bytes=0-0", 206, slice(0, 1)),
        ("bytes=100-199", 206, slice(100, 200)),
        ("bytes=100-", 206, slice(100, None)),
        ("bytes=-7", 206, slice(-7, None)),
        ("bytes=-999999999", 206, slice(0, None)),
        ("bytes=5-999999999999", 206, slice(5, None)),
        ("bytes=999999999-", 416, slice(0, 0)),
        ("bytes=-0", 416, slice(0, 0)),
        ("bytes=0-1,5-6", 200, slice(0, None)),
        ("bytes=7-3", 200, slice(0, None)),
        ("bytes=a-b", 200, slice(0, None)),
        ("lines=0-1", 200, slice(0, None)),
    ],
)
def test_ranges_of_blobs(mirror: RegistryClient, header: str, status: int, part: slice) -> None:
    digest = json.loads(DATA.manifests[DATA.tags["image"]][0])["layers"][0]["digest"]
    data = DATA.blobs[digest]
    answer = mirror.get(f"/v2/{REPOSITORY}/blobs/{digest}", {"Range": header})
    assert answer.status == status
    if status == 416:
        assert answer.headers["Content-Range"] == f"bytes */{len(data)}"
        check_error(answer, 416, "RANGE_INVALID")
        return
    assert answer.body == data[part]
    assert answer.headers["Content-Length"] == str(len(data[part]))
    start = len(data) - len(data[part]) if part.stop is None else part.start
    expected = f"bytes {start}-{start + len(data[part]) - 1}/{len(data)}" if status == 206 else None
    assert answer.headers["Content-Range"] == expected
    assert answer.headers["Accept-Ranges"] == "bytes"


@pytest.mark.parametrize("kind", ["manifests", "blobs"])
def test_what_a_client_has_is_not_sent_again(mirror: RegistryClient, way: str, kind: str) -> None:
    digest = DATA.tags["image"] if kind == "manifests" else next(iter(DATA.blobs))
    path = target(way, f"{kind}/{digest}")
    tag = mirror.get(path).headers["ETag"]
    for condition in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        answer = head_is_get(mirror, path, {"If-None-Match": condition})
        assert (answer.status, answer.body, answer.headers["ETag"]) == (304, b"", tag)
        check_common(answer, way)
    assert mirror.get(path, {"If-None-Match": '"other"'}).status == 200


def test_the_list_of_tags(mirror: RegistryClient, way: str) -> None:
    answer = head_is_get(mirror, target(way, "tags/list"))
    assert answer.json() == {"name": REPOSITORY, "tags": sorted(DATA.tags)}
    check_common(answer, way)


@pytest.mark.parametrize("count", [1, 2, 5, 100])
def test_pages_of_tags_by_link_and_by_last(mirror: RegistryClient, way: str, count: int) -> None:
    found: list[str] = []
    path = target(way, "tags/list", n=str(count))
    while path:
        answer = mirror.get(path)
        tags = answer.json()["tags"]
        found += tags
        link = re.fullmatch(r'<([^>]+)>; rel="next"', answer.headers.get("Link", ""))
        path = link[1] if link else ""
        behind = mirror.get(target(way, "tags/list", n=str(count), last=tags[-1])).json()["tags"]
        assert behind == (mirror.get(path).json()["tags"] if path else [])
        assert len(tags) == count or not path
    assert found == sorted(DATA.tags)


def test_parts_of_the_list_of_tags(mirror: RegistryClient, way: str) -> None:
    tags = sorted(DATA.tags)
    nothing = mirror.get(target(way, "tags/list", n="0"))
    assert nothing.json()["tags"] == []
    assert "Link" not in nothing.headers
    for position, last in enumerate(tags):
        assert mirror.get(target(way, "tags/list", last=last)).json()["tags"] == tags[position + 1 :]
    check_error(mirror.get(target(way, "tags/list", n="-1")), 400, "PAGINATION_NUMBER_INVALID")


def test_referrers_and_their_filter(mirror: RegistryClient, way: str) -> None:
    subject, listed = next(iter(DATA.referrers.items()))
    answer = head_is_get(mirror, target(way, f"referrers/{subject}"))
    assert (answer.status, answer.headers["Content-Type"]) == (200, OCI_INDEX)
    assert answer.json() == {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed}
    assert "OCI-Filters-Applied" not in answer.headers
    check_common(answer, way)
    for kind in ("application/x.sig", "application/x.sbom", "application/x.never"):
        selected = mirror.get(target(way, f"referrers/{subject}", artifactType=kind))
        assert selected.headers["OCI-Filters-Applied"] == "artifactType"
        assert selected.json()["manifests"] == [one for one in listed if one["artifactType"] == kind]
    fallback = mirror.get(target(way, f"manifests/{subject.replace(':', '-')}"))
    assert fallback.json()["manifests"] == listed


def test_what_nothing_refers_to_has_an_empty_list(mirror: RegistryClient, way: str) -> None:
    for subject in (DATA.tags["artifact"], digest_of(b"nobody has this"), f"sha512:{hashlib.sha512(b'').hexdigest()}"):
        answer = head_is_get(mirror, target(way, f"referrers/{subject}"))
        assert (answer.status, answer.json()["manifests"]) == (200, [])


@pytest.mark.parametrize(
    ("rest", "status", "code"),
    [
        ("manifests/never-pushed", 404, "MANIFEST_UNKNOWN"),
        (f"manifests/{digest_of(b'nobody has this')}", 404, "MANIFEST_UNKNOWN"),
        (f"blobs/{digest_of(b'nobody has this')}", 404, "BLOB_UNKNOWN"),
        ("manifests/sha256:baddigeststring", 400, "DIGEST_INVALID"),
        ("blobs/sha256:baddigeststring", 400, "DIGEST_INVALID"),
        ("referrers/sha256:baddigeststring", 400, "DIGEST_INVALID"),
        (f"manifests/{'x' * 129}", 400, "MANIFEST_INVALID"),
        ("manifests/.hidden", 400, "MANIFEST_INVALID"),
        ("uploads/1", 404, "NAME_UNKNOWN"),
    ],
)
def test_what_is_not_there_is_an_error_of_the_specification(
    mirror: RegistryClient, way: str, rest: str, status: int, code: str
) -> None:
    check_error(head_is_get(mirror, target(way, rest)), status, code)


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [("conformance/never", 404, "NAME_UNKNOWN"), ("Conformance/repo", 400, "NAME_INVALID"), ("a" * 300, 400, "NAME_INVALID")],
)
def test_names_of_no_repository(mirror: RegistryClient, way: str, name: str, status: int, code: str) -> None:
    check_error(head_is_get(mirror, target(way, "tags/list", name)), status, code)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("rest", ["manifests/image", "blobs/uploads/", f"blobs/{digest_of(EMPTY)}", "tags/list"])
def test_what_a_read_only_registry_does_not_offer(mirror: RegistryClient, method: str, rest: str) -> None:
    check_error(mirror.ask(method, f"/v2/{REPOSITORY}/{rest}", body=b"{}"), 405, "UNSUPPORTED")
    answer = mirror.get(f"/v2/{REPOSITORY}/manifests/image")
    assert digest_of(answer.body) == DATA.tags["image"]
