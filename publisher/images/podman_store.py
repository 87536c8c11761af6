"""The read-only containers/storage store in a repository: images come, names move, images go. Layout reference, section 5.

A store is what `additionalimagestores` in podman's storage.conf may name. All changes are in the transaction of the caller.
Foreign records, in a repository that another tool wrote, are kept as they are.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from mirror.oci.digest import Digest
from mirror.oci.manifest import ImageManifest, parse_config
from mirror.oci.reference import ImageReference
from publisher.cvmfs.entry import Directory, Entry
from publisher.images import layout, metadata, podman
from publisher.images.record_file import RecordFile
from publisher.objects.pipeline import Pipeline, Ticket
from publisher.transaction import Transaction

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class StoreImage:
    """What the store needs of an image whose layers are in the repository, or in the transaction."""

    digest: Digest
    """Of the manifest."""
    raw_manifest: bytes
    manifest: ImageManifest
    raw_config: bytes


class PodmanStore:
    """The store as it will be after the transaction; `save` at the end. Raises RepositoryDamaged, StorageFull, Unavailable."""

    def __init__(self, transaction: Transaction, pipeline: Pipeline, now: float) -> None:
        """now: Unix seconds."""
        self._transaction = transaction
        self._pipeline = pipeline
        self._now = now
        self._images = RecordFile(transaction, pipeline, podman.IMAGES_FILE)
        self._layers = RecordFile(transaction, pipeline, podman.LAYERS_FILE)

    @staticmethod
    def exists(transaction: Transaction) -> bool:
        """Whether the repository has a store."""
        return transaction.exists(podman.IMAGES_FILE)

    def save(self) -> None:
        """Put the two lists, if they changed."""
        self._images.save(self._now)
        self._layers.save(self._now)

    def add(self, image: StoreImage) -> None:
        """Add an image, or another manifest of it; not one of whose layers some are not in the repository.

        Raises InvalidInput for a config that is none.
        """
        for descriptor in image.manifest.layers:
            if not self._transaction.exists(layout.layers_document(descriptor.digest)):
                log.info("image_not_in_podman_store", image=str(image.digest), lacks=str(descriptor.digest))
                return
        self._prepare()
        config = parse_config(image.raw_config)
        ids = podman.layer_ids(config.diff_ids)
        for height, (layer, diff_id) in enumerate(zip(ids, config.diff_ids, strict=True)):
            if self._layers.get(layer) is None:
                self._add_layer(image, height, ids, diff_id)
        identity = image.manifest.config.digest.hex
        record = self._images.get(identity)
        if record is None:
            created = podman.creation_time(json.loads(image.raw_config).get("created"), self._now)
            record = podman.image_record(identity, ids[-1] if ids else None, created)
            self._count_user(ids[-1] if ids else None, 1)
        elif podman.manifest_key(image.digest) in record.get("big-data-names", ()):
            return
        self._images.put(podman.with_documents(record, image.digest, self._put_documents(image)))

    def name(self, image: ImageReference, config: Digest) -> None:
        """Let a name lead to the image with this config, as its public link does from now on; call it before the link is put.

        Whatever the link led to until now loses the name.
        """
        self.forget(image)
        record = self._images.get(config.hex)
        if record is not None:
            self._images.put(podman.with_names(record, sorted({*record.get("names", ()), str(image)})))

    def forget(self, image: ImageReference) -> None:
        """Take a name away from the image that its public link leads to; call it before the link is removed."""
        link = self._transaction.lookup(layout.public_link(image))
        if link is None or not stat.S_ISLNK(link.mode):
            return
        identity = link.symlink.rpartition(b"/")[2].decode("ascii", "replace")
        record = self._images.get(identity)
        if record is not None and str(image) in record.get("names", ()):
            self._images.put(podman.with_names(record, [name for name in record["names"] if name != str(image)]))

    def remove(self, config: Digest) -> None:
        """Remove the image with this config, and its layers as far as no other image of the store needs them."""
        record = self._images.get(config.hex)
        if record is None:
            return
        self._images.remove(config.hex)
        self._transaction.remove(podman.image_link(config.hex)[0])
        self._remove_directory(podman.image_directory(config.hex))
        layer = record.get("layer")
        while layer is not None and self._count_user(layer, -1) == 0:
            parent = self._layers.get(layer)
            self._layers.remove(layer)
            for path in (podman.short_name(layer), podman.overlay_link(layer)[0]):
                self._transaction.remove(path)
            self._remove_directory(podman.chain_directory(layer))
            layer = parent.get("parent") if parent else None

    def blobs_in_use(self, manifest: ImageManifest) -> set[Digest]:
        """Layers that the store still points to where a removed image had layers of the same content; to be asked after `remove`.

        Images that differ in nothing but the compression of a layer share its entry in the store, which points to one of the two.
        """
        documents = [layout.layers_document(layer.digest) for layer in manifest.layers]
        if not all(map(self._transaction.exists, documents)):
            return set()
        diff_ids = [metadata.parse_layers_json(self._transaction.read(document)).diff_id for document in documents]
        records = map(self._layers.get, podman.layer_ids(diff_ids))
        return {Digest.parse(record["compressed-diff-digest"]) for record in records if record is not None}

    def _prepare(self) -> None:
        if self._transaction.exists(podman.LOCKS[-1]):
            return
        for path in podman.CATALOGS:
            self._transaction.make_catalog(path)
        empty = self._stored([b""])[0]
        for path in podman.LOCKS:
            self._transaction.put_file(path, _file(empty, self._now))

    def _add_layer(self, image: StoreImage, height: int, ids: Sequence[str], diff_id: Digest) -> None:
        layer, below = ids[height], ids[:height]
        parent = below[-1] if below else None
        descriptor = image.manifest.layers[height]
        size = metadata.parse_layers_json(self._transaction.read(layout.layers_document(descriptor.digest))).size
        link, lower = self._stored([podman.link_id(layer).encode("ascii"), podman.lower_text(below)])
        children: dict[bytes, Directory | Entry] = {
            b"diff": self._link(podman.diff_target(self._transaction.fqrn, descriptor.digest)),
            b"link": _file(link, self._now),
        }
        children[b"merged"] = self._directory()
        if below:
            children[b"lower"] = _file(lower, self._now)
        else:
            children[b"empty"] = self._directory()
        self._put_directory(podman.chain_directory(layer), children)
        for path, target in (podman.overlay_link(layer), podman.short_link(layer, descriptor.digest)):
            self._transaction.put_symlink(path, target)
        self._layers.put(podman.layer_record(layer, parent, descriptor, diff_id, size=size, now=self._now))
        self._count_user(parent, 1)

    def _put_documents(self, image: StoreImage) -> dict[str, tuple[Digest, int]]:
        """Put manifest and config where readers look for them; digest and bytes of each by its key."""
        config = image.manifest.config.digest
        manifest, config_blob = self._stored([image.raw_manifest, image.raw_config])
        contents = {
            podman.MANIFEST_KEY: (image.digest, manifest),
            podman.manifest_key(image.digest): (image.digest, manifest),
            str(config): (config, config_blob),
        }
        directory = podman.image_directory(config.hex)
        files = {podman.file_name(key): _file(ticket, self._now) for key, (_, ticket) in contents.items()}
        if self._transaction.exists(directory):
            self._transaction.put_files(directory, files)
        else:
            self._put_directory(directory, files)
        self._transaction.put_symlink(*podman.image_link(config.hex))
        return {key: (digest, ticket.size) for key, (digest, ticket) in contents.items()}

    def _put_directory(self, path: bytes, children: dict[bytes, Directory | Entry] | dict[bytes, Entry]) -> None:
        self._transaction.make_catalog(podman.fan_catalog(path))
        self._transaction.remove(path)
        directory = self._directory()
        directory.children.update(children)
        self._transaction.put_tree(path, directory)

    def _remove_directory(self, path: bytes) -> None:
        self._transaction.remove(path)
        if not self._transaction.names(podman.fan_catalog(path)):
            self._transaction.remove(podman.fan_catalog(path))

    def _count_user(self, layer: str | None, change: int) -> int | None:
        """Change how many use a layer, and return that; None where it is not known, of layers that another tool listed."""
        record = self._layers.get(layer) if layer is not None else None
        users = record.get(podman.USERS) if record else None
        if record is None or not isinstance(users, int):
            return None
        self._layers.put(record | {podman.USERS: users + change})
        return users + change

    def _stored(self, contents: Sequence[bytes]) -> list[Ticket]:
        with self._pipeline.intake() as intake:
            return [intake.add_bytes(content) for content in contents]

    def _directory(self) -> Directory:
        return Directory(Entry(mode=stat.S_IFDIR | 0o755, mtime=int(self._now)))

    def _link(self, target: bytes) -> Entry:
        return Entry(mode=stat.S_IFLNK | 0o777, mtime=int(self._now), symlink=target)


def _file(ticket: Ticket, now: float) -> Entry:
    mode = stat.S_IFREG | 0o644
    return Entry(mode=mode, mtime=int(now), size=ticket.size, content=ticket.content, chunks=ticket.chunks)
