"""Documents of foreign origin, valid ones with something wrong in them: read, or refused by an error of ours, and nothing else.

What finds faults is not noise but a document that is right up to one place; noise is tried as well.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.errors import InvalidInput, MirrorError
from mirror.oci.listing import parse_referrers, parse_tag_list
from mirror.oci.manifest import DOCKER_LIST, OCI_INDEX, OCI_MANIFEST, declared_media_type, parse_config, parse_manifest
from mirror.oci.reference import ImageReference
from publisher.images.metadata import origin_json, parse_layers_json
from publisher.layers.limits import LayerLimits
from publisher.recipe import parse_recipe
from tests.support.layers import ingest
from tests.support.small_images import directory, file, link, pack

DIGEST = "sha256:" + "ab" * 32
DESCRIPTOR = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": DIGEST, "size": 7, "urls": ["https://x/y"]}
MANIFEST = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": DESCRIPTOR, "layers": [DESCRIPTOR], "artifactType": "a/b"}
PLATFORM = {"os": "linux", "architecture": "arm", "variant": "v7"}
INDEX = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [{**DESCRIPTOR, "platform": PLATFORM}]}
CONFIG = {
    **PLATFORM,
    "config": {"Env": ["A=b"], "Entrypoint": ["/x"], "Cmd": None, "Labels": {"a": "b"}},
    "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
}
LAYERS = [
    {"id": "ab" * 32, "created": "2026-01-01T00:00:00Z", "diff-digest": DIGEST, "diff-size": 5, "notes": {"setuid_kept": 1}}
]
ORIGIN = {"origin": [DIGEST]}
TAGS = {"name": "a", "tags": ["1", "latest"]}
RECIPE = b"""version: 1
user: someone
cvmfs_repo: unpacked.example.org
input:
  - 'https://registry.hub.docker.com/library/debian:12'
  - 'docker.io/library/alpine:3.*'
  - ghcr.io/team/app@sha256:0000000000000000000000000000000000000000000000000000000000000000
"""

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["sha256:", "sha512:" + "0" * 128, "\ud800", "a" * 300, "-1", "../..", "\0"]),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


@st.composite
def spoilt(draw: st.DrawFn, document: Any) -> bytes:
    """The document with some of its values replaced, removed or added to."""

    def change(value: Any, depth: int = 0) -> Any:
        if draw(st.integers(0, 7)) == 0:
            return draw(ODD)
        if isinstance(value, dict):
            changed = {key: change(inner, depth + 1) for key, inner in value.items() if draw(st.integers(0, 9))}
            return {**changed, **draw(st.dictionaries(st.sampled_from(["x", "", *value]), ODD, max_size=1))}
        if isinstance(value, list):
            return [change(inner, depth + 1) for inner in value] * draw(st.integers(0, 2))
        return value

    return json.dumps(change(document)).encode()


@st.composite
def bent(draw: st.DrawFn, raw: bytes) -> bytes:
    """Bytes, some of which are others, lost, or twice there."""
    data = bytearray(raw)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(data) - 1, 0)))
        match draw(st.integers(0, 3)):
            case 0:
                data[place : place + 1] = draw(st.binary(min_size=1, max_size=4))
            case 1:
                del data[place : place + draw(st.integers(1, 600))]
            case 2:
                data[place:place] = data[place : place + draw(st.integers(1, 600))]
            case _:
                data = data[:place]
    return bytes(data)


READERS: dict[str, tuple[Any, Callable[[bytes], object]]] = {
    "manifest": (MANIFEST, lambda raw: parse_manifest(raw, OCI_MANIFEST)),
    "index": (INDEX, lambda raw: parse_manifest(raw, OCI_INDEX)),
    "list": ({**INDEX, "mediaType": DOCKER_LIST}, lambda raw: parse_manifest(raw, DOCKER_LIST)),
    "type": (MANIFEST, declared_media_type),
    "config": (CONFIG, parse_config),
    "layers.json": (LAYERS, parse_layers_json),
    "origin.json": (ORIGIN, lambda raw: origin_json(ImageReference.parse(f"a/b@{DIGEST}").reference.digest, raw)),  # type: ignore[arg-type]
    "tags": (TAGS, parse_tag_list),
    "referrers": (INDEX, parse_referrers),
}


def reads_or_refuses(read: Callable[[bytes], object], raw: bytes) -> None:
    try:
        read(raw)
    except MirrorError as error:
        # Any error of ours will do, as long as it says something that can be written down.
        assert 0 < len(str(error).encode()) < 50_000  # noqa: PT017


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=150)
@given(data=st.data())
def test_documents(name: str, data: st.DataObject) -> None:
    document, read = READERS[name]
    right = json.dumps(document).encode()
    read(right)
    reads_or_refuses(read, data.draw(st.one_of(spoilt(document), bent(right), st.binary(max_size=60))))


@settings(max_examples=200)
@given(st.one_of(bent(RECIPE), st.binary(max_size=80), st.text("-:[]{}&*!|>'\"% \n\tab1", max_size=60).map(str.encode)))
def test_recipes(raw: bytes) -> None:
    assert len(parse_recipe(RECIPE).wishes) == 3
    reads_or_refuses(parse_recipe, raw)


@pytest.mark.parametrize("raw", [b"&a [*a, *a]", b"[" * 100_000, b"{" * 100_000, b"- " * 100_000, b"a: " * 50_000])
def test_recipes_that_would_grow_or_nest_without_end(raw: bytes) -> None:
    with pytest.raises(InvalidInput):
        parse_recipe(raw)


ARCHIVE = pack(
    [
        directory("etc", mode=0o755),
        file("etc/motd", b"hello" * 200),
        link("etc/link", "../motd"),
        link("etc/hard", "etc/motd", kind=b"1"),
        file("n" * 180, b"long name"),
        file("etc/.wh.gone"),
    ]
)
LIMITS = LayerLimits(entries=1000, expanded_bytes=1 << 20, file_bytes=1 << 20, header_bytes=1 << 16)


@settings(max_examples=300)
@given(bent(ARCHIVE))
def test_archives(raw: bytes) -> None:
    reads_or_refuses(lambda data: ingest(data, limits=LIMITS), raw)
