"""Where images are: the paths that scripts and other tools compute for themselves."""

from __future__ import annotations

import json
import posixpath

import pytest

from mirror.errors import InvalidInput
from mirror.jobs.notes import Notes
from mirror.oci.digest import Digest
from mirror.oci.reference import ImageReference
from publisher.images import layout
from publisher.images.metadata import LayerFacts, layers_json, origin_json, parse_layers_json

LAYER = Digest("sha256", "ab" + "c" * 62)
CONFIG = Digest("sha256", "0f" + "1" * 62)


def test_layers_and_roots_are_fanned_out_by_two_digits() -> None:
    assert layout.layer_root(LAYER) == b".layers/ab/" + LAYER.hex.encode() + b"/layerfs"
    assert layout.layers_document(LAYER) == b".layers/ab/" + LAYER.hex.encode() + b"/.metadata/layers.json"
    assert layout.origin_document(LAYER) == b".layers/ab/" + LAYER.hex.encode() + b"/.metadata/origin.json"
    assert layout.flat_root(CONFIG) == b".flat/0f/" + CONFIG.hex.encode()
    assert layout.layer_catalogs(LAYER) == (b".layers", b".layers/ab")
    assert layout.flat_catalogs(CONFIG) == (b".flat", b".flat/0f")


@pytest.mark.parametrize(
    ("text", "link"),
    [
        ("docker://debian", b"docker.io/library/debian:latest"),
        ("registry.hub.docker.com/library/debian:12", b"docker.io/library/debian:12"),
        ("127.0.0.1:5001/lab/full:1", b"127.0.0.1:5001/lab/full:1"),
        ("quay.io/a/b/c/d:v1", b"quay.io/a/b/c/d:v1"),
        (f"ghcr.io/x/y@sha256:{'2' * 64}", b"ghcr.io/x/y@sha256:" + b"2" * 64),
    ],
)
def test_public_links_lead_to_the_root_file_system(text: str, link: bytes) -> None:
    image = ImageReference.parse(text)
    assert layout.public_link(image) == link
    assert layout.manifest_document(image) == b".metadata/" + link + b"/manifest.json"
    target = layout.link_target(image, CONFIG)
    assert not target.startswith(b"/")
    assert posixpath.normpath(posixpath.join(posixpath.dirname(link), target)) == layout.flat_root(CONFIG)
    for catalog in layout.name_catalogs(image):
        assert any(path.startswith(catalog + b"/") for path in (link, layout.manifest_document(image)))


def test_layers_json_has_the_members_that_tools_read() -> None:
    diff_id = Digest("sha256", "d" * 64)
    (layer,) = json.loads(layers_json(LAYER, diff_id, 1234, 1_700_000_000.25, notes=Notes(devices_dropped=2)))
    assert layer == {
        "id": "d" * 64,
        "created": "2023-11-14T22:13:20.250000000Z",
        "compressed-diff-digest": str(LAYER),
        "diff-digest": str(diff_id),
        "diff-size": 1234,
        "notes": {"devices_dropped": 2},
    }


def test_layers_json_is_read_back_whoever_wrote_it() -> None:
    facts = LayerFacts(Digest("sha256", "d" * 64), 1234, Notes(setuid_kept=1, xattrs_dropped=3), "sha256:below")
    document = layers_json(LAYER, facts.diff_id, facts.size, 0, notes=facts.notes, lower=facts.lower)
    assert parse_layers_json(document) == facts
    (layer,) = json.loads(document)
    foreigns: list[object] = [None, [], {"setuid_kept": "many", "devices_dropped": -1, "later": 5}]
    for foreign in foreigns:
        layer["notes"] = foreign
        assert parse_layers_json(json.dumps([layer]).encode()).notes == Notes()
    del layer["notes"], layer["lower"]
    assert parse_layers_json(json.dumps([layer]).encode()) == LayerFacts(facts.diff_id, 1234, Notes())


def test_origins_are_collected_once_each() -> None:
    first = origin_json(CONFIG)
    assert json.loads(first) == {"origin": [str(CONFIG)]}
    both = origin_json(LAYER, first)
    assert json.loads(both) == {"origin": [str(CONFIG), str(LAYER)]}
    assert origin_json(CONFIG, both) == both


@pytest.mark.parametrize("existing", [b"", b"[]", b'{"origin": 1}', b'{"origin": [1]}', b"{", b"[" * 100_000])
def test_a_strange_origin_document_is_refused(existing: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"origin\.json"):
        origin_json(CONFIG, existing)
