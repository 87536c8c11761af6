"""Documents of foreign servers: read where they are right, refused by the member that is wrong, never a surprise."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.errors import InvalidInput
from mirror.oci.digest import Digest
from mirror.oci.manifest import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    ImageManifest,
    Index,
    UnknownManifest,
    declared_media_type,
    parse_config,
    parse_manifest,
)
from mirror.oci.platform import Platform

CONFIG = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": str(Digest.of(b"config")), "size": 6}
LAYER = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": str(Digest.of(b"layer")), "size": 5}
CHILD = {**LAYER, "mediaType": OCI_MANIFEST, "platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}}
TYPES = (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST, "application/unheard.of")


def document(**members: Any) -> bytes:
    return json.dumps({"schemaVersion": 2, "config": CONFIG, "layers": [LAYER], **members}).encode()


def test_an_image_names_its_config_and_layers() -> None:
    image = parse_manifest(document(annotations={"a": 1}), f"{OCI_MANIFEST}; charset=utf-8")
    assert isinstance(image, ImageManifest)
    assert image.is_runnable
    assert image.is_publishable
    assert image.sif is None
    assert image.root == image.config.digest
    assert [str(descriptor.digest) for descriptor in image.references] == [CONFIG["digest"], LAYER["digest"]]
    assert image.layers[0].size == 5


@pytest.mark.parametrize("layer_type", ["application/vnd.sylabs.sif.layer.v1.sif", "appliciation/vnd.sylabs.sif.layer.tar"])
@pytest.mark.parametrize("config_type", ["application/vnd.sylabs.sif.config.v1+json", CONFIG["mediaType"]])
def test_a_sif_image_is_known_by_its_only_layer(layer_type: str, config_type: str) -> None:
    layer, config = {**LAYER, "mediaType": layer_type}, {**CONFIG, "mediaType": config_type}
    image = parse_manifest(document(config=config, layers=[layer]), OCI_MANIFEST)
    assert isinstance(image, ImageManifest)
    assert (image.is_publishable, image.is_runnable) == (True, False)
    assert image.sif == image.layers[0]
    assert image.root == image.layers[0].digest, "all SIF images have the same config"
    several = parse_manifest(document(config=config, layers=[layer, layer]), OCI_MANIFEST)
    assert isinstance(several, ImageManifest)
    assert not several.is_publishable


def test_an_index_names_its_manifests_with_their_platforms() -> None:
    index = parse_manifest(json.dumps({"manifests": [CHILD]}).encode(), DOCKER_LIST)
    assert isinstance(index, Index)
    assert index.manifests[0].platform == Platform("linux", "arm64", "v8")


def test_what_is_not_known_names_nothing() -> None:
    assert parse_manifest(b"not even JSON", "application/unheard.of") == UnknownManifest("application/unheard.of")


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"mediaType": OCI_INDEX}, "says it is"),
        ({"config": None}, "'config' is not a descriptor"),
        ({"layers": {}}, "'layers' is not a list"),
        ({"layers": [{**LAYER, "size": -1}]}, r"layers\[0\].size"),
        ({"layers": [{**LAYER, "size": 1 << 63}]}, r"layers\[0\].size"),  # No database can hold it.
        ({"layers": [{**LAYER, "size": True}]}, r"layers\[0\].size"),
        ({"layers": [{**LAYER, "size": "5"}]}, r"layers\[0\].size"),
        ({"layers": [{**LAYER, "digest": "sha256:../../x"}]}, "is not a digest"),
        ({"layers": [{**LAYER, "mediaType": None}]}, "lacks"),
        ({"layers": [{**LAYER, "mediaType": "a\ud800"}]}, "mediaType' is not a media type"),
        ({"layers": [{**LAYER, "mediaType": "a\r\nSet-Cookie: x"}]}, "mediaType' is not a media type"),
        ({"layers": [{**LAYER, "mediaType": "a" * 256}]}, "mediaType' is not a media type"),
        ({"layers": [{**LAYER, "platform": "linux"}]}, "platform' is not an object"),
    ],
)
def test_what_is_wrong_is_named(members: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        parse_manifest(document(**members), OCI_MANIFEST)


@pytest.mark.parametrize("raw", [b"", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"a": 1'])
def test_what_is_no_document_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidInput):
        parse_manifest(raw, OCI_MANIFEST)
    assert declared_media_type(raw) is None


@pytest.mark.parametrize(
    ("raw", "declared"),
    [
        (document(mediaType=DOCKER_MANIFEST), DOCKER_MANIFEST),
        (document(), OCI_MANIFEST),
        (b'{"manifests": []}', OCI_INDEX),
        (b'{"mediaType": "a\\nb", "manifests": []}', OCI_INDEX),
        (b'{"signatures": []}', None),
    ],
)
def test_a_document_tells_its_own_type(raw: bytes, declared: str | None) -> None:
    assert declared_media_type(raw) == declared


def test_a_config_tells_what_unpacking_needs() -> None:
    diff_id = str(Digest.of(b"diff"))
    execution = {"Env": ["A=b"], "Entrypoint": None, "Cmd": ["sh"], "Labels": {"a": 1}}
    raw = {"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": [diff_id]}, "config": execution}
    config = parse_config(json.dumps(raw).encode())
    assert (config.platform, config.environment, config.entrypoint) == (Platform("linux", "amd64"), ("A=b",), ())
    assert (config.command, config.labels, [str(digest) for digest in config.diff_ids]) == (("sh",), {"a": "1"}, [diff_id])


@pytest.mark.parametrize(
    "raw",
    [{}, {"rootfs": []}, {"rootfs": {"diff_ids": ["x"]}}, {"rootfs": {}, "config": [1]}, {"rootfs": {}, "config": {"Env": [1]}}],
)
def test_a_broken_config_is_refused(raw: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        parse_config(json.dumps(raw).encode())


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from((*CHILD, "config", "layers", "manifests")), inner)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(("mediaType", "config", "layers", "manifests", "rootfs")), _JSON), st.sampled_from(TYPES))
def test_any_document_is_understood_or_refused(tree: dict[str, Any], media_type: str) -> None:
    raw = json.dumps(tree).encode()
    try:
        references = parse_manifest(raw, media_type).references
    except InvalidInput:
        references = ()
    for descriptor in references:
        assert 0 <= descriptor.size < 1 << 63
        descriptor.media_type.encode("ascii")
    with contextlib.suppress(InvalidInput):
        parse_config(raw)
