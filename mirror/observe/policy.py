"""Which images a pull asks to be published, and under which names. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from mirror.jobs.model import PublishRequest
from mirror.observe.events import Pull
from mirror.oci.digest import Digest
from mirror.oci.manifest import IMAGE_TYPES, Descriptor, ImageManifest, Index, Manifest, Platform
from mirror.oci.reference import ImageReference, Reference


def requests_of(
    pull: Pull,
    manifest: Manifest,
    *,
    platforms: Sequence[Platform],
    tags: Collection[str],
    known: Collection[PublishRequest],
) -> list[PublishRequest]:
    """The publish requests that follow from a pull; none for artifacts and for manifests of unknown types.

    manifest: what was served, parsed. platforms: those to publish of an index, the most wanted first. tags: those that
    this repository's upstream last resolved to the digest that was served. known: requests of this repository that lead to it.

    - An image that was pulled by tag gets that tag as its name.
    - Of an index that was pulled by tag, the child for the first of the platforms that it has gets that tag; children for further
      platforms get names of their own digests, for one name can lead to one image only.
    - What was pulled by digest is known to its users by a tag: it gets all tags that lead to it; if there are none, nothing new
      if it has a name already, else the digest as its name.
    """
    references = _references(pull, tags)
    if isinstance(manifest, ImageManifest):
        if not manifest.is_publishable or (references is None and any(request.manifest == pull.digest for request in known)):
            return []
        return _named(pull, references, pull.digest)
    if isinstance(manifest, Index):
        children = _children(manifest, platforms)
        requests = [_by_digest(pull, child.digest) for child in children[1:]]
        if children and not (references is None and any(request.target == pull.digest for request in known)):
            requests = _named(pull, references, children[0].digest) + requests
        return requests
    return []


def _references(pull: Pull, tags: Collection[str]) -> list[Reference] | None:
    """The references to publish under; None stands for: no tag leads to it."""
    if pull.image.reference.tag is not None:
        return [pull.image.reference]
    return [Reference(tag=tag) for tag in sorted(tags)] or None


def _named(pull: Pull, references: Iterable[Reference] | None, manifest: Digest) -> list[PublishRequest]:
    return [
        PublishRequest(ImageReference(pull.image.name, reference), pull.digest, manifest)
        for reference in references or [Reference(digest=pull.digest)]
    ]


def _by_digest(pull: Pull, manifest: Digest) -> PublishRequest:
    return PublishRequest(ImageReference(pull.image.name, Reference(digest=manifest)), manifest, manifest)


def _children(index: Index, platforms: Iterable[Platform]) -> list[Descriptor]:
    """For each platform the image that the index lists for it, without those that it does not have."""
    found = (_child(index, platform) for platform in platforms)
    different = {child.digest: child for child in found if child is not None}
    return list(different.values())


def _child(index: Index, platform: Platform) -> Descriptor | None:
    """The first image for exactly this platform, else the first one for any variant of it, if no variant was asked for."""
    images = [descriptor for descriptor in index.manifests if descriptor.media_type in IMAGE_TYPES]
    exact = (descriptor for descriptor in images if descriptor.platform == platform)
    any_variant = (
        descriptor
        for descriptor in images
        if not platform.variant
        and descriptor.platform is not None
        and (descriptor.platform.os, descriptor.platform.architecture) == (platform.os, platform.architecture)
    )
    return next(exact, None) or next(any_variant, None)
