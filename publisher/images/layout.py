"""Where everything of an image is in a CVMFS repository. Pure. Layout reference, sections 1 to 3 and 8.

    .layers/<ab>/<hex>/layerfs                            a layer as its archive has it, with overlayfs's own whiteouts
    .layers/<ab>/<hex>/blob                               its blob as registries serve it, if packed layers are kept
    .layers/<ab>/<hex>/.metadata/layers.json              its sizes and digests
    .layers/<ab>/<hex>/.metadata/origin.json              the images that it was unpacked for
    .flat/<ab>/<hex>                                      a whole root file system
    .metadata/<image>/manifest.json                       the manifest, byte for byte
    .metadata/.sif/<ab>/<hex>/sif.json                    what is known of a SIF file beside its root file system
    <image>                                               symbolic link to the root file system
    .multiarch/<arch>/<image>                             the same for one platform, be it the one that <image> is for or another
    .multiarch/<uname -m>                                 symbolic link to .multiarch/<arch>
    .metadata/.multiarch/<arch>/<image>/manifest.json     its manifest

<hex> is, for a layer, of the digest of its blob as the manifest names it; for a root file system, of the image config's. <ab> are
its first two digits. <image> is `<registry>/<repository>:<tag>` or `<registry>/<repository>@<digest>`, in canonical form.

<arch> is Go's name of the architecture, with `:<variant>` where that matters, as DUCC has it: `amd64`, `arm:v7`. DUCC has
both of the directories `arm64` and `arm64:v8` for what is the same; here the second one is a link to the first.

All paths are relative to the repository's root, without a leading slash, as ASCII bytes. The grammar of names lets none begin
with a dot or have `..` in it, so no image can reach the directories above, and no two images one path.
"""

from __future__ import annotations

from mirror.jobs.model import PlatformName
from mirror.oci.digest import Digest
from mirror.oci.platform import Platform
from mirror.oci.reference import DOCKER_HUB, ImageReference

LAYERS = b".layers"
FLAT = b".flat"
METADATA = b".metadata"
SIF = METADATA + b"/.sif"
MULTIARCH = b".multiarch"

_MACHINES = {
    "386": ("i386", "i486", "i586", "i686"),
    "amd64": ("x86_64", "x86-64"),
    "arm64": ("aarch64", "arm64:v8"),
    "arm:v5": ("armv5tel",),
    "arm:v6": ("armv6l", "armel"),
    "arm:v7": ("armv7l", "armv8l", "armhf", "arm"),
    "loong64": ("loongarch64",),
}
"""Other names of directories for platforms: what `uname -m` says there (kernel), what Debian calls it, what DUCC does."""


def layer_directory(layer: Digest) -> bytes:
    """Everything of one layer."""
    return _fanned(LAYERS, layer)


def layer_root(layer: Digest) -> bytes:
    """The tree of one layer. It is complete if it exists; a nested catalog of its own."""
    return layer_directory(layer) + b"/layerfs"


def packed_layer(layer: Digest) -> bytes:
    """The layer's blob, byte for byte (`publisher.packed_layers`); not every layer has it."""
    return layer_directory(layer) + b"/blob"


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
    return target_from(public_link(image), config)


def target_from(link: bytes, config: Digest) -> bytes:
    """The way from the directory that has this link to a root file system."""
    return b"../" * link.count(b"/") + flat_root(config)


def platform_directory(platform: Platform) -> bytes:
    """Links to images for one platform, in normal form; those for other systems than Linux are apart."""
    system = "" if platform.os == "linux" else f"{platform.os}-"
    return MULTIARCH + b"/" + f"{system}{_with_variant(platform)}".encode("ascii")


def platform_aliases(platform: Platform) -> tuple[bytes, ...]:
    """Other names of that directory, beside it, so that scripts can use what `uname -m` says."""
    names = _MACHINES.get(_with_variant(platform), ()) if platform.os == "linux" else ()
    return tuple(MULTIARCH + b"/" + name.encode("ascii") for name in names)


def platform_link(name: PlatformName) -> bytes:
    """The path of an image for one platform."""
    return platform_directory(name.platform) + b"/" + public_link(name.image)


def registry_alias(registry: str) -> str | None:
    """Another name under which tools look for images of this registry: DUCC files Docker Hub under its API's host."""
    return "registry.hub.docker.com" if registry == DOCKER_HUB else None


def manifest_document(image: ImageReference) -> bytes:
    """The manifest's bytes."""
    return document_beside(public_link(image))


def document_beside(link: bytes) -> bytes:
    """The bytes of the manifest of the image that this public link leads to."""
    return METADATA + b"/" + link + b"/manifest.json"


def sif_document(file: Digest) -> bytes:
    """What was found out about a SIF file (`publisher.sif.facts`)."""
    return _fanned(SIF, file) + b"/sif.json"


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


def platform_catalogs(platform: Platform) -> tuple[bytes, bytes, bytes]:
    """The same for names of one platform. They are for all registries together: each would cost every publication a catalog."""
    return (METADATA, METADATA + b"/" + MULTIARCH, platform_directory(platform))


def _with_variant(platform: Platform) -> str:
    return f"{platform.architecture}:{platform.variant}" if platform.variant else platform.architecture


def _fanned(top: bytes, digest: Digest) -> bytes:
    return b"/".join((top, digest.hex[:2].encode("ascii"), digest.hex.encode("ascii")))
