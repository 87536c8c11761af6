"""Where everything of an image is in a CVMFS repository. Pure. Layout reference, sections 1 to 3 and 8.

    .layers/<ab>/<hex>/layerfs                            a layer as its archive has it, with overlayfs's own whiteouts
    .layers/<ab>/<hex>/.metadata/layers.json              its sizes and digests
    .layers/<ab>/<hex>/.metadata/origin.json              the images that it was unpacked for
    .flat/<ab>/<hex>                                      a whole root file system
    .metadata/<image>/manifest.json                       the manifest, byte for byte
    <image>                                               symbolic link to the root file system

<hex> is, for a layer, of the digest of its blob as the manifest names it; for a root file system, of the image config's. <ab> are
its first two digits. <image> is `<registry>/<repository>:<tag>` or `<registry>/<repository>@<digest>`, in canonical form.

All paths are relative to the repository's root, without a leading slash, as ASCII bytes. The grammar of names lets none begin
with a dot or have `..` in it, so no image can reach the directories above, and no two images one path.
"""

from __future__ import annotations

from mirror.oci.digest import Digest
from mirror.oci.reference import ImageReference

LAYERS = b".layers"
FLAT = b".flat"
METADATA = b".metadata"


def layer_directory(layer: Digest) -> bytes:
    """Everything of one layer."""
    return _fanned(LAYERS, layer)


def layer_root(layer: Digest) -> bytes:
    """The tree of one layer. It is complete if it exists; a nested catalog of its own."""
    return layer_directory(layer) + b"/layerfs"


def layers_document(layer: Digest) -> bytes:
    """The layer's sizes and digests (`metadata.layers_json`)."""
    return layer_directory(layer) + b"/.metadata/layers.json"


def origin_document(layer: Digest) -> bytes:
    """The images that the layer was unpacked for (`metadata.origin_json`)."""
    return layer_directory(layer) + b"/.metadata/origin.json"


def flat_root(config: Digest) -> bytes:
    """The root file system of all images with this config; a nested catalog of its own."""
    return _fanned(FLAT, config)


def public_link(image: ImageReference) -> bytes:
    """The path that users type behind /cvmfs/<fqrn>/."""
    return str(image).encode("ascii")


def link_target(image: ImageReference, config: Digest) -> bytes:
    """What the public link contains: the way from its directory to the root file system."""
    return b"../" * public_link(image).count(b"/") + flat_root(config)


def manifest_document(image: ImageReference) -> bytes:
    """The manifest's bytes."""
    return METADATA + b"/" + public_link(image) + b"/manifest.json"


def layer_catalogs(layer: Digest) -> tuple[bytes, bytes]:
    """Directories above a layer that have nested catalogs, so that adding one touches small catalogs only; upper first."""
    return (LAYERS, layer_directory(layer).rpartition(b"/")[0])


def flat_catalogs(config: Digest) -> tuple[bytes, bytes]:
    """The same for a root file system."""
    return (FLAT, flat_root(config).rpartition(b"/")[0])


def name_catalogs(image: ImageReference) -> tuple[bytes, bytes, bytes]:
    """The same for an image's names: all documents, those of its registry, and the registry's links.

    Where those of a registry become many, transactions split their catalogs further.
    """
    registry = image.name.registry.encode("ascii")
    return (METADATA, METADATA + b"/" + registry, registry)


def _fanned(top: bytes, digest: Digest) -> bytes:
    return b"/".join((top, digest.hex[:2].encode("ascii"), digest.hex.encode("ascii")))
