"""Puts a prepared image into a transaction: layers that lack, flat root, manifest, public names. Layout reference, section 8.

Everything of the image is in one revision: whoever sees the public link sees all that it leads to. Placing an image again changes
nothing.
"""

from __future__ import annotations

import math
import stat
from collections.abc import Sequence
from dataclasses import dataclass

from mirror.jobs.model import PlatformName
from mirror.jobs.notes import NO_NOTES, Notes
from mirror.oci.digest import Digest
from mirror.oci.manifest import Descriptor, ImageManifest
from mirror.oci.reference import ImageReference
from publisher.cvmfs.entry import Directory, Entry
from publisher.cvmfs.path import show
from publisher.cvmfs.snapshot import Snapshot
from publisher.errors import Conflict, WrittenWrong
from publisher.images import layout, metadata
from publisher.images.names import place_name, place_platform_name, put_document
from publisher.images.podman_store import PodmanStore, StoreImage
from publisher.images.tree_digest import TreeDigest, digest_of, first_difference
from publisher.layers.marker_files import with_marker_files
from publisher.objects.pipeline import Pipeline, Ticket
from publisher.packed_layers import PackedLayer
from publisher.transaction import Transaction


@dataclass(frozen=True, slots=True)
class UnpackedLayer:
    """A layer whose content is in the repository's store."""

    descriptor: Descriptor
    """As in the manifest."""
    diff_id: Digest
    tree: Directory
    entries: int
    size: int
    """Bytes of the uncompressed archive."""
    notes: Notes = NO_NOTES
    lower: str | None = None
    """The chain of the layers below, if its tree is right over these only."""
    safe_since: float = -math.inf
    """Unix seconds at which all its objects were there (`Transaction.rely_on`)."""
    packed: PackedLayer | None = None
    """Its blob, if the repository is to have that as well."""


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """All that a transaction needs of an image."""

    digest: Digest
    """Of the manifest."""
    raw_manifest: bytes
    manifest: ImageManifest
    names: tuple[ImageReference, ...]
    layers: tuple[UnpackedLayer, ...] = ()
    """Lowest first; none if the repository has all of them."""
    flat: Directory | None = None
    """None if the repository has it."""
    flat_digest: TreeDigest | None = None
    """Of the root file system, taken when it was made."""
    notes: Notes = NO_NOTES
    """The sum over the layers."""
    raw_config: bytes = b""
    """Empty for what is no container image."""
    platforms: tuple[PlatformName, ...] = ()
    """Names for platforms."""
    safe_since: float = math.inf
    """Of a root file system that is not made of layers: as a layer's."""
    sif_facts: bytes = b""
    """The document on a SIF file, if this is its image and the repository does not have it."""

    @property
    def config(self) -> Digest:
        """What the root file system is filed under."""
        return self.manifest.root


@dataclass(frozen=True, slots=True)
class PlacePolicy:
    """What consumers of a repository are given beyond root file systems."""

    marker_files: bool = False
    """Whether layers hold deletions as files named `.wh.<name>`."""
    podman_store: bool = False
    """Whether images are added to podmanStore."""


_PLAIN = PlacePolicy()


def chain(layers: Sequence[UnpackedLayer]) -> str:
    """What names a stack of layers by its content, lowest first; empty for none. Private to us."""
    name = ""
    for layer in layers:
        name = str(Digest.of(f"{name} {layer.diff_id}".encode("ascii")))
    return name


def place_images(
    transaction: Transaction,
    pipeline: Pipeline,
    images: Sequence[PreparedImage],
    now: float,
    policy: PlacePolicy = _PLAIN,
) -> list[PreparedImage]:
    """Put the images into the transaction; those whose root file systems are new in it. now: Unix seconds.

    Where there is a podmanStore, its names follow the public links, whether or not images are added to it.
    Raises Conflict if something that was there vanished meanwhile, PublishError, StorageFull, Unavailable.
    """
    store = PodmanStore(transaction, pipeline, now) if policy.podman_store or PodmanStore.exists(transaction) else None
    new = []
    for image in images:
        transaction.rely_on(min((layer.safe_since for layer in image.layers), default=image.safe_since))
        for layer in image.layers:
            _place_layer(transaction, pipeline, layer, image.config, now=now, marker_files=policy.marker_files)
        if _place_flat(transaction, image):
            new.append(image)
        _place_sif_facts(transaction, pipeline, image, now)
        if store is not None:
            if policy.podman_store and image.raw_config:
                store.add(StoreImage(image.digest, image.raw_manifest, image.manifest, image.raw_config))
            for name in image.names:
                store.name(name, image.config)
        manifest = _stored(pipeline, image.raw_manifest, now)
        for name in image.names:
            place_name(transaction, name, image.config, manifest)
        for platform_name in image.platforms:
            place_platform_name(transaction, platform_name, image.config, manifest)
    if store is not None:
        store.save()
    return new


def check_trees(snapshot: Snapshot, images: Sequence[PreparedImage]) -> None:
    """See that a revision has the root file systems of these images as they were made, entry by entry.

    Raises WrittenWrong, naming the image and the first path that is not as it should be.
    """
    for image in images:
        found = snapshot.tree(layout.flat_root(image.config))
        digest = digest_of(found)
        if image.flat is None or image.flat_digest is None or digest == image.flat_digest:
            continue
        where = first_difference(image.flat, found)
        raise WrittenWrong(
            f"the root file system of {image.digest} was not written as it was made: {digest.entries} entries with the digest "
            f"{digest.value} in place of {image.flat_digest.entries} with {image.flat_digest.value}"
            + (f"; the first one that differs is /{show(where)}" if where is not None else "; it was changed after it was made")
        )


def _place_flat(transaction: Transaction, image: PreparedImage) -> bool:
    if transaction.exists(layout.flat_root(image.config)):
        return False
    if image.flat is None:
        raise Conflict(f"the root file system of {image.config} was removed from the repository meanwhile; it is made again")
    for path in layout.flat_catalogs(image.config):
        transaction.make_catalog(path)
    transaction.graft(layout.flat_root(image.config), image.flat)
    return True


def _place_sif_facts(transaction: Transaction, pipeline: Pipeline, image: PreparedImage, now: float) -> None:
    if image.sif_facts:
        for path in (layout.METADATA, layout.SIF):
            transaction.make_catalog(path)
        put_document(transaction, layout.sif_document(image.config), _stored(pipeline, image.sif_facts, now))


def _place_layer(
    transaction: Transaction, pipeline: Pipeline, layer: UnpackedLayer, config: Digest, *, now: float, marker_files: bool
) -> None:
    digest = layer.descriptor.digest
    if not transaction.exists(layout.layer_root(digest)):
        for path in layout.layer_catalogs(digest):
            transaction.make_catalog(path)
        tree = with_marker_files(layer.tree, _stored(pipeline, b"", now)) if marker_files else layer.tree
        transaction.graft(layout.layer_root(digest), tree)
        document = metadata.layers_json(digest, layer.diff_id, layer.size, now, notes=layer.notes, lower=layer.lower)
        put_document(transaction, layout.layers_document(digest), _stored(pipeline, document, now))
    if layer.packed is not None and not transaction.exists(layout.packed_layer(digest)):
        transaction.put_file(layout.packed_layer(digest), layer.packed.entry(now))
    origin = layout.origin_document(digest)
    before = transaction.read(origin) if transaction.exists(origin) else None
    after = metadata.origin_json(config, before)
    if after != before:
        put_document(transaction, origin, _stored(pipeline, after, now))


def _stored(pipeline: Pipeline, content: bytes, now: float) -> Entry:
    with pipeline.intake() as intake:
        ticket: Ticket = intake.add_bytes(content)
    return Entry(mode=stat.S_IFREG | 0o644, mtime=int(now), size=ticket.size, content=ticket.content, chunks=ticket.chunks)
