"""Takes images out of a transaction: names, documents, root file system, and the layers that no other image needs.

The counterpart of `place`: what is left is what would be there had the image never been placed. Only catalogs are touched, and
the small documents that say whom a layer is for; content goes with the next garbage collection. Removing an image that is not
there changes nothing.
"""

from __future__ import annotations

import posixpath
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from mirror.errors import InvalidInput, NotFound
from mirror.oci.digest import Digest
from mirror.oci.manifest import Descriptor, ImageManifest, declared_media_type, parse_manifest
from mirror.oci.reference import ImageReference
from publisher.cvmfs.entry import Entry
from publisher.cvmfs.path import ROOT
from publisher.cvmfs.snapshot import Snapshot
from publisher.images import layout, metadata
from publisher.images.names import resolved
from publisher.images.podman_store import PodmanStore
from publisher.objects.pipeline import Pipeline
from publisher.transaction import Transaction

_MULTIARCH = b".multiarch"
"""The one directory with a dot that has names of images in it."""


@dataclass(frozen=True, slots=True)
class GoingImage:
    """An image that is to go."""

    digest: Digest
    """Of the manifest."""
    manifest: ImageManifest


@dataclass(slots=True)
class Gone:
    """What was removed."""

    names: dict[str, Digest | None] = field(default_factory=dict)
    """Paths below the repository's root, each with the image that it led to, if a document beside it said so."""
    roots: list[Digest] = field(default_factory=list)
    """Configs whose root file systems went."""
    layers: list[Digest] = field(default_factory=list)

    def names_of(self, image: Digest) -> list[str]:
        """The names of one image, by the digest of its manifest."""
        return [name for name, digest in self.names.items() if digest == image]


@dataclass(frozen=True, slots=True)
class _Link:
    """A name in the repository: its path, the root file system that it leads to, and the manifest beside it, if there is one."""

    path: bytes
    flat: bytes
    raw_manifest: bytes | None

    @property
    def digest(self) -> Digest | None:
        return None if self.raw_manifest is None else Digest.of(self.raw_manifest)


def remove_images(transaction: Transaction, pipeline: Pipeline, images: Sequence[GoingImage], now: float) -> Gone:
    """Take the images out, all together. now: Unix seconds.

    A root file system stays as long as a name of another image leads to it, and a layer as long as another image has it.
    Raises RepositoryDamaged, InvalidInput for documents that are not ours, StorageFull, Unavailable.
    """
    going = {image.digest: image for image in images}
    flats = {layout.flat_root(image.manifest.root): image.manifest.root for image in images}
    links = list(_links(transaction.before(), flats))
    ours = [link for link in links if link.digest in going]
    staying = [link for link in links if link.digest is not None and link.digest not in going]
    kept_flats = {link.flat for link in staying}
    # A name without a document would lead nowhere once the root file system is gone.
    ours += [link for link in links if link.digest is None and link.flat not in kept_flats]
    store = PodmanStore(transaction, pipeline, now) if PodmanStore.exists(transaction) else None
    gone = Gone()
    for link in ours:
        _forget(store, link.path)
        _remove_name(transaction, link.path)
        gone.names[link.path.decode("utf-8", "backslashreplace")] = link.digest
    for flat, config in flats.items():
        if flat not in kept_flats and transaction.exists(flat):
            if store is not None:
                store.remove(config)
            transaction.remove(flat)
            _prune(transaction, flat, layout.FLAT)
            facts = layout.sif_document(config)
            if transaction.exists(facts):
                transaction.remove(facts)
                _prune(transaction, facts, layout.METADATA)
            gone.roots.append(config)
    needed = _layers_of(staying)
    if store is not None:
        needed = needed.union(*(store.blobs_in_use(image.manifest) for image in images))
    gone.layers = _remove_layers(transaction, pipeline, images, needed, now)
    if store is not None:
        store.save()
    return gone


def remove_links(transaction: Transaction, pipeline: Pipeline, paths: Sequence[bytes], now: float) -> None:
    """Take public links away, with the documents beside them, whatever they lead to; that stays. now: Unix seconds.

    What is no link is left alone. Raises RepositoryDamaged, StorageFull, Unavailable.
    """
    store = PodmanStore(transaction, pipeline, now) if PodmanStore.exists(transaction) else None
    for path in paths:
        link = resolved(transaction, path)
        entry = transaction.lookup(link)
        if entry is not None and stat.S_ISLNK(entry.mode):
            _forget(store, link)
            _remove_name(transaction, link)
    if store is not None:
        store.save()


def manifest_in(transaction: Transaction, digest: Digest) -> bytes:
    """The manifest of an image that has a name in the repository, byte for byte. Raises NotFound; looks at every name."""
    for link in _links(transaction.before(), None):
        if link.digest == digest and link.raw_manifest is not None:
            return link.raw_manifest
    raise NotFound(f"no name in the repository has the manifest {digest}")


def _remove_layers(
    transaction: Transaction, pipeline: Pipeline, images: Sequence[GoingImage], needed: Collection[Digest], now: float
) -> list[Digest]:
    configs: dict[Digest, set[Digest]] = {}
    for image in images:
        for layer in image.manifest.layers:
            configs.setdefault(layer.digest, set()).add(image.manifest.root)
    gone = []
    for digest, users in configs.items():
        origin = layout.origin_document(digest)
        # What does not say whom it is for may be needed by somebody.
        if digest in needed or not transaction.exists(origin):
            continue
        before = transaction.read(origin)
        after = metadata.without_origins(before, users)
        if after is None:
            transaction.remove(layout.layer_directory(digest))
            _prune(transaction, layout.layer_directory(digest), layout.LAYERS)
            gone.append(digest)
        elif after != before:
            transaction.put_file(origin, _document(pipeline, after, now))
    return gone


def _layers_of(links: Sequence[_Link]) -> frozenset[Digest]:
    """Layers of the images that these names lead to."""
    found: set[Digest] = set()
    for link in links:
        if link.raw_manifest is not None:
            found.update(blob.digest for blob in _parsed(link.raw_manifest))
    return frozenset(found)


def _parsed(raw: bytes) -> Sequence[Descriptor]:
    manifest = parse_manifest(raw, declared_media_type(raw) or "")
    return manifest.layers if isinstance(manifest, ImageManifest) else ()


def _links(snapshot: Snapshot, flats: Mapping[bytes, Digest] | None) -> Iterator[_Link]:
    """Names that lead to one of these root file systems, or to any: a look at the catalogs that hold names, and at no other."""
    for top, entry in snapshot.listing(ROOT).items():
        if entry.is_directory and (not top.startswith(b".") or top == _MULTIARCH):
            for relative, below in snapshot.walk(top):
                if stat.S_ISLNK(below.mode):
                    path = top + b"/" + relative
                    flat = posixpath.normpath(posixpath.join(posixpath.dirname(path), below.symlink))
                    if flat in flats if flats is not None else flat.startswith(layout.FLAT + b"/"):
                        yield _Link(path, flat, _manifest_beside(snapshot, path))


def _manifest_beside(snapshot: Snapshot, path: bytes) -> bytes | None:
    try:
        return snapshot.read(layout.METADATA + b"/" + path + b"/manifest.json")
    except NotFound:
        return None


def _remove_name(transaction: Transaction, path: bytes) -> None:
    document = layout.METADATA + b"/" + path
    for place, top in ((path, ROOT), (document, layout.METADATA)):
        transaction.remove(place)
        _prune(transaction, place, top)


def _forget(store: PodmanStore | None, path: bytes) -> None:
    if store is not None:
        try:
            store.forget(ImageReference.parse(path.decode("utf-8", "replace")))
        except InvalidInput:
            return  # A path that is no image's name is no name in the store.


def _prune(transaction: Transaction, path: bytes, top: bytes) -> None:
    """Remove the directories above a path that became empty, up to `top`, which stays."""
    directory = posixpath.dirname(path)
    while directory not in (top, ROOT) and not transaction.names(directory):
        transaction.remove(directory)
        directory, name = posixpath.split(directory)
        if directory in (ROOT, _MULTIARCH):
            _remove_aliases(transaction, directory, name)


def _remove_aliases(transaction: Transaction, directory: bytes, name: bytes) -> None:
    """Remove the other names of a registry or platform that went: links beside it that lead to it."""
    for other in transaction.names(directory):
        path = posixpath.join(directory, other)
        entry = transaction.lookup(path)
        if entry is not None and stat.S_ISLNK(entry.mode) and entry.symlink == name:
            transaction.remove(path)


def _document(pipeline: Pipeline, content: bytes, now: float) -> Entry:
    with pipeline.intake() as intake:
        ticket = intake.add_bytes(content)
    return Entry(mode=stat.S_IFREG | 0o644, mtime=int(now), size=ticket.size, content=ticket.content, chunks=ticket.chunks)
