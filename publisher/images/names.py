"""Public names in a transaction: links to root file systems, manifests beside them, other spellings of their directories."""

from __future__ import annotations

import stat
from collections.abc import Sequence

from mirror.jobs.model import PlatformName, PublishRequest
from mirror.oci.digest import Digest
from mirror.oci.platform import Platform
from mirror.oci.reference import ImageReference
from publisher.cvmfs.entry import Entry
from publisher.images import layout
from publisher.transaction import Transaction


def own_names(requests: Sequence[PublishRequest]) -> tuple[ImageReference, ...]:
    """The names without a platform among those that are to lead to an image."""
    return tuple(request.image for request in requests if request.platform is None)


def platform_names(requests: Sequence[PublishRequest], platform: Platform | None) -> tuple[PlatformName, ...]:
    """The names for platforms: those asked for, and one for each name that nobody has asked a platform for.

    platform: what the image's config says it is for; an index, which may say it better, is believed first.
    """
    asked = [PlatformName(request.image, request.platform) for request in requests if request.platform is not None]
    if platform is None or not platform.normal.is_known:
        return tuple(asked)
    with_platform = {name.image for name in asked}
    return (*asked, *(PlatformName(image, platform.normal) for image in own_names(requests) if image not in with_platform))


def place_name(transaction: Transaction, name: ImageReference, config: Digest, manifest: Entry) -> None:
    """Let the public link lead to the root file system of this config. manifest: a stored document."""
    for path in layout.name_catalogs(name):
        transaction.make_catalog(path)
    _place(transaction, layout.public_link(name), config, manifest)
    _place_registry_alias(transaction, b"", name.name.registry)


def place_platform_name(transaction: Transaction, name: PlatformName, config: Digest, manifest: Entry) -> None:
    """The same for an image's link for one platform."""
    directory = layout.platform_directory(name.platform)
    for path in layout.platform_catalogs(name.platform):
        transaction.make_catalog(resolved(transaction, path))
    for alias in layout.platform_aliases(name.platform):
        _put_alias(transaction, alias, directory.rpartition(b"/")[2])
    _place(transaction, resolved(transaction, layout.platform_link(name)), config, manifest)
    _place_registry_alias(transaction, resolved(transaction, directory) + b"/", name.image.name.registry)


def resolved(transaction: Transaction, path: bytes) -> bytes:
    """The path with a directory for a platform that is a link to another one replaced by that: DUCC made some that way."""
    top, _, rest = path.partition(b"/")
    directory, slash, below = rest.partition(b"/")
    if top != layout.MULTIARCH or not directory:
        return path
    entry = transaction.lookup(top + b"/" + directory)
    if entry is None or not stat.S_ISLNK(entry.mode) or b"/" in entry.symlink:
        return path
    return top + b"/" + entry.symlink + slash + below


def put_document(transaction: Transaction, path: bytes, entry: Entry) -> None:
    """Put a document, unless the same content is there already."""
    present = transaction.lookup(path)
    if present is None or (present.content, present.chunks) != (entry.content, entry.chunks):
        transaction.put_file(path, entry)


def _place(transaction: Transaction, link: bytes, config: Digest, manifest: Entry) -> None:
    put_document(transaction, layout.document_beside(link), manifest)
    transaction.put_symlink(link, layout.target_from(link, config))


def _place_registry_alias(transaction: Transaction, prefix: bytes, registry: str) -> None:
    alias = layout.registry_alias(registry)
    if alias is not None:
        _put_alias(transaction, prefix + alias.encode("ascii"), registry.encode("ascii"))


def _put_alias(transaction: Transaction, path: bytes, target: bytes) -> None:
    """Let another name lead to a directory beside it, unless there is something of that name: DUCC's own may be."""
    if not transaction.exists(path):
        transaction.put_symlink(path, target)
