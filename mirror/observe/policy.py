"""Which images a pull asks to be published, and under which names. Pure.

- What was pulled by tag gets that tag as its name; what was pulled by digest is known to its users by a tag, and gets all tags
  that lead to it; if there are none, its digest.
- An index stands for the first of the platforms to publish that it has: this image gets the name as it is. Every image of it that
  is published gets the name for its platform besides: those of platforms to publish, those pulled by their digests, and those for
  platforms that the name was used for before, so that a tag moves for all who use it.
- Nothing is published that is listed without being for any machine: attestations, artifacts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from mirror.jobs.model import PublishRequest
from mirror.oci.digest import Digest
from mirror.oci.manifest import IMAGE_TYPES, Descriptor
from mirror.oci.platform import Platform
from mirror.oci.reference import ImageReference, Reference, RepositoryName


@dataclass(frozen=True, slots=True)
class SeenIndex:
    """An index, with what it lists directly or in further indexes, in its order."""

    digest: Digest
    children: Sequence[Descriptor]

    @property
    def images(self) -> list[Descriptor]:
        """What may be images, for all that the index says."""
        return [child for child in self.children if _may_be_image(child)]

    @property
    def platforms(self) -> dict[Platform, Descriptor]:
        """By platform, in normal form, the first image that is for it."""
        found: dict[Platform, Descriptor] = {}
        for child in self.images:
            if child.platform is not None and child.platform.normal.is_known:
                found.setdefault(child.platform.normal, child)
        return found

    def lists_as_no_image(self, manifest: Digest) -> bool:
        """Whether the index lists this manifest, and shows that it is no image."""
        found = [child for child in self.children if child.digest == manifest]
        return bool(found) and not any(_may_be_image(child) for child in found)

    def image_for(self, platform: Platform) -> Descriptor | None:
        """The first image for exactly this platform, else for one that means the same.

        If no variant was asked for, any will do.
        """
        images = self.images
        exact = (child for child in images if child.platform == platform)
        same = (child for child in images if child.platform is not None and child.platform.normal == platform.normal)
        any_variant = (
            child
            for child in images
            if not platform.variant
            and child.platform is not None
            and (child.platform.normal.os, child.platform.normal.architecture)
            == (platform.normal.os, platform.normal.architecture)
        )
        return next(exact, None) or next(same, None) or next(any_variant, None)

    def default(self, platforms: Iterable[Platform]) -> Descriptor | None:
        """The image that the index stands for: for the first of the platforms that it has.

        Or its only one, if it does not say what for.
        """
        found = next((child for child in map(self.image_for, platforms) if child is not None), None)
        if found is None and len(self.images) == 1 and self.images[0].platform is None:
            return self.images[0]
        return found


def requests_for_image(name: RepositoryName, manifest: Digest, references: Iterable[Reference]) -> list[PublishRequest]:
    """Publish an image manifest, which needs no index to be found, under these names."""
    return [PublishRequest(ImageReference(name, reference), manifest, manifest) for reference in references]


def requests_for_index(
    name: RepositoryName,
    index: SeenIndex,
    references: Iterable[Reference],
    *,
    platforms: Sequence[Platform],
    pulled: Collection[Digest] = (),
    followed: Mapping[Reference, Collection[Platform]] | None = None,
) -> list[PublishRequest]:
    """Publish images of an index under names that lead to it.

    platforms: those to publish, the most wanted first. pulled: images of it that were pulled by their digests. followed: by name,
    platforms in normal form that it was used for before.
    """
    default = index.default(platforms)
    wanted = {child.digest for child in map(index.image_for, platforms) if child is not None} | set(pulled)
    requests: list[PublishRequest] = []
    for reference in references:
        image = ImageReference(name, reference)
        used = (followed or {}).get(reference, ())
        for platform, child in index.platforms.items():
            if child.digest in wanted or platform in used:
                requests.append(PublishRequest(image, index.digest, child.digest, platform))
        if default is not None:
            requests.append(PublishRequest(image, index.digest, default.digest))
    return requests


def _may_be_image(child: Descriptor) -> bool:
    return (
        child.media_type in IMAGE_TYPES
        and not child.artifact_type
        and not (child.platform is not None and child.platform.is_unknown)
    )
