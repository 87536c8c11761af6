"""Names and records of a read-only containers/storage store, as podman, CRI-O and buildah read it. Pure.

Layout reference, section 5. Source of the ids: containers/image writes such stores, and finds layers that it needs in them by
the ids that it would give them itself.

    podmanStore/overlay/<layer id>                  -> ../chains/<ab>/<layer id>
    podmanStore/overlay/l/<link id>                 -> ../../../.layers/<ab>/<hex>/layerfs
    podmanStore/overlay-layers/layers.json, layers.lock
    podmanStore/overlay-images/<image id>           -> ../images/<ab>/<image id>
    podmanStore/overlay-images/images.json, images.lock
    podmanStore/chains/<ab>/<layer id>/diff         -> /cvmfs/<fqrn>/.layers/<ab>/<hex>/layerfs
    podmanStore/chains/<ab>/<layer id>/link, lower  the layer's link id; those of the layers below, nearest first
    podmanStore/chains/<ab>/<layer id>/merged, empty  empty directories
    podmanStore/images/<ab>/<image id>/             manifest, config, and the manifest once more by its digest

A layer has one id for each stack of layers that it is on top of. Directories that list all layers or all images have only links,
one row each; the rest is in small catalogs. `diff` is absolute: readers that compare layers refuse a relative link; and they
mount at `merged`, with `empty` below a lowest layer.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime

from mirror.oci.digest import Digest
from mirror.oci.manifest import Descriptor
from publisher.images import layout
from publisher.images.records import Record

STORE = b"podmanStore"
OVERLAY = STORE + b"/overlay"
LINKS = OVERLAY + b"/l"
IMAGES = STORE + b"/overlay-images"
LAYERS = STORE + b"/overlay-layers"
CHAINS = STORE + b"/chains"
CONTENT = STORE + b"/images"
CATALOGS = (STORE, OVERLAY, LINKS, IMAGES, LAYERS, CHAINS, CONTENT)
"""Directories with catalogs of their own, upper first."""
IMAGES_FILE = IMAGES + b"/images.json"
LAYERS_FILE = LAYERS + b"/layers.json"
LOCKS = (IMAGES + b"/images.lock", LAYERS + b"/layers.lock")
"""Empty; a store on which nobody can take locks is only read if they are there."""

MANIFEST_KEY = "manifest"
USERS = "debark-users"
"""Member of a layer's record that readers pass over: layers and images directly on top of it."""

_LINK_CHARACTERS = 26
"""So that 127 of them fit into the options of one mount."""
_PLAIN_KEY = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.")
_COMPRESSIONS = {"gzip": 2, "zstd": 4}


def layer_id(parent: str | None, diff_id: Digest) -> str:
    """The id of a layer on top of another, or of none."""
    return diff_id.hex if parent is None else hashlib.sha256(f"{parent}+{diff_id.hex}".encode("ascii")).hexdigest()


def layer_ids(diff_ids: Sequence[Digest]) -> list[str]:
    """The ids of an image's layers, lowest first."""
    ids: list[str] = []
    for diff_id in diff_ids:
        ids.append(layer_id(ids[-1] if ids else None, diff_id))
    return ids


def link_id(layer: str) -> str:
    """The short name of a layer."""
    return base64.b32encode(hashlib.sha256(layer.encode("ascii")).digest())[:_LINK_CHARACTERS].decode("ascii")


def lower_text(below: Sequence[str]) -> bytes:
    """What a layer's `lower` contains; below: ids of the layers below it, lowest first."""
    return ":".join(f"l/{link_id(layer)}" for layer in reversed(below)).encode("ascii")


def overlay_link(layer: str) -> tuple[bytes, bytes]:
    """Path and target of the name under which the driver looks for a layer."""
    return OVERLAY + b"/" + layer.encode("ascii"), b"../chains/" + _fanned(layer)


def short_link(layer: str, blob: Digest) -> tuple[bytes, bytes]:
    """Path and target of a layer's short name. blob: its digest as the manifest has it."""
    return short_name(layer), b"../../../" + layout.layer_root(blob)


def short_name(layer: str) -> bytes:
    """Path of a layer's short name."""
    return LINKS + b"/" + link_id(layer).encode("ascii")


def chain_directory(layer: str) -> bytes:
    """The directory with everything of a layer."""
    return CHAINS + b"/" + _fanned(layer)


def diff_target(fqrn: str, blob: Digest) -> bytes:
    """What `diff` in it contains: the way to the unpacked layer. blob: as for `short_link`."""
    return b"/cvmfs/" + fqrn.encode("ascii") + b"/" + layout.layer_root(blob)


def image_link(image: str) -> tuple[bytes, bytes]:
    """Path and target of the name under which an image's documents are looked for."""
    return IMAGES + b"/" + image.encode("ascii"), b"../images/" + _fanned(image)


def image_directory(image: str) -> bytes:
    """The directory with an image's documents."""
    return CONTENT + b"/" + _fanned(image)


def fan_catalog(directory: bytes) -> bytes:
    """The directory of two hex digits above it, which has a catalog of its own."""
    return directory.rpartition(b"/")[0]


def file_name(key: str) -> bytes:
    """The file that holds an image's document of this key."""
    if set(key) <= _PLAIN_KEY:
        return key.encode("ascii")
    return b"=" + base64.b64encode(key.encode("utf-8"))


def manifest_key(manifest: Digest) -> str:
    """The key under which a manifest is found by its digest."""
    return f"{MANIFEST_KEY}-{manifest}"


def layer_record(layer: str, parent: str | None, descriptor: Descriptor, diff_id: Digest, *, size: int, now: float) -> Record:
    """size: bytes of the uncompressed archive; now: Unix seconds."""
    compression = next((number for name, number in _COMPRESSIONS.items() if name in descriptor.media_type), 0)
    return {
        "id": layer,
        **({} if parent is None else {"parent": parent}),
        "created": time_text(now),
        "compressed-diff-digest": str(descriptor.digest),
        "compressed-size": descriptor.size,
        "diff-digest": str(diff_id),
        "diff-size": size,
        "compression": compression,
        USERS: 0,
    }


def image_record(image: str, top: str | None, created: str) -> Record:
    """An image without names and documents yet. created: RFC 3339."""
    return {"id": image, **({} if top is None else {"layer": top}), "created": created}


def with_documents(record: Record, manifest: Digest, documents: dict[str, tuple[Digest, int]]) -> Record:
    """The record with documents by their keys: digest and bytes of each. manifest: digest of the one that counts."""
    sizes = record.get("big-data-sizes", {}) | {key: size for key, (_, size) in documents.items()}
    digests = record.get("big-data-digests", {}) | {key: str(digest) for key, (digest, _) in documents.items()}
    return record | {
        "digest": str(manifest),
        "big-data-names": sorted(sizes),
        "big-data-sizes": dict(sorted(sizes.items())),
        "big-data-digests": dict(sorted(digests.items())),
    }


def with_names(record: Record, names: Sequence[str]) -> Record:
    """The record with these names and no others. A name must not be in two records: readers refuse the whole file."""
    return {member: value for member, value in record.items() if member != "names"} | ({"names": list(names)} if names else {})


def time_text(now: float) -> str:
    """Unix seconds as RFC 3339."""
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def creation_time(text: object, now: float) -> str:
    """When an image says that it was made, as RFC 3339; or `now`, where it says nothing that readers would take."""
    if isinstance(text, str):
        try:
            moment = datetime.fromisoformat(text)
            if moment.tzinfo is not None:
                return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        except (ValueError, OverflowError):
            pass
    return time_text(now)


def _fanned(identity: str) -> bytes:
    return identity[:2].encode("ascii") + b"/" + identity.encode("ascii")
