"""What follows from a pull, with all that is known of its repository: the look-ups around `mirror.observe.policy`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from mirror.jobs.model import PublishRequest
from mirror.jobs.statuses import Statuses
from mirror.observe.events import Pull
from mirror.observe.nested import NestedIndexes
from mirror.observe.policy import SeenIndex, requests_for_image, requests_for_index
from mirror.oci.digest import Digest
from mirror.oci.manifest import ImageManifest, Index, Manifest
from mirror.oci.platform import Platform
from mirror.oci.reference import ImageReference, Reference, RepositoryName
from mirror.store.indexes import Indexes
from mirror.store.tags import Tags


@dataclass(frozen=True, slots=True)
class Wish:
    """What a pull asks for.

    gone: names that no longer stand for anything, for platforms or without one. artifacts: names of what is no image, and reason:
    what it is. is_complete: False if a later pull of the same may tell more.
    """

    requests: Sequence[PublishRequest] = ()
    gone: Sequence[tuple[ImageReference, Platform | None]] = ()
    artifacts: Sequence[ImageReference] = ()
    reason: str = ""
    is_complete: bool = True


class Intake:
    """Judges pulls. Raises Unavailable when the state database cannot be reached."""

    def __init__(
        self, statuses: Statuses, tags: Tags, indexes: Indexes, nested: NestedIndexes, platforms: Sequence[Platform]
    ) -> None:
        """platforms: those to publish of an index, the most wanted first."""
        self._statuses = statuses
        self._tags = tags
        self._indexes = indexes
        self._nested = nested
        self._platforms = tuple(platforms)

    async def wish_of(self, pull: Pull, manifest: Manifest, known: Collection[PublishRequest]) -> Wish:
        """What the pull asks for. manifest: what was served, parsed. known: requests of its repository that lead to it."""
        if isinstance(manifest, Index):
            return await self._of_index(pull, manifest, known)
        if isinstance(manifest, ImageManifest) and manifest.is_publishable:
            return await self._of_image(pull, known)
        kind = manifest.content_type if isinstance(manifest, ImageManifest) else manifest.media_type
        return await self._of_artifact(pull, kind)

    async def _of_artifact(self, pull: Pull, kind: str) -> Wish:
        references = await self._references(pull) or [Reference(digest=pull.digest)]
        names = [ImageReference(pull.image.name, reference) for reference in references]
        return Wish(artifacts=names, reason=f"it is no container image but {kind}: it is mirrored, and not unpacked")

    async def _of_image(self, pull: Pull, known: Collection[PublishRequest]) -> Wish:
        name = pull.image.name
        references = await self._references(pull)
        requests = requests_for_image(name, pull.digest, references)
        if pull.image.reference.digest is None:
            return Wish(requests)
        for digest in await self._indexes.listing(pull.digest):
            index = SeenIndex(digest, await self._indexes.children(digest))
            if index.lists_as_no_image(pull.digest):
                return await self._of_artifact(pull, "what an index lists as being for no machine, such as an attestation")
            names = await self._names_of_index(name, digest)
            requests += requests_for_index(name, index, names, platforms=self._platforms, pulled=[pull.digest])
        mine = any(request.manifest == pull.digest for request in [*requests, *known])
        return Wish(requests if mine else [*requests, *requests_for_image(name, pull.digest, [Reference(digest=pull.digest)])])

    async def _of_index(self, pull: Pull, manifest: Index, known: Collection[PublishRequest]) -> Wish:
        name = pull.image.name
        flat = await self._nested.flatten(name, manifest)
        index = SeenIndex(pull.digest, flat.children)
        if flat.is_complete:
            await self._indexes.add(pull.digest, flat.children)
            if not index.images:
                return await self._of_artifact(pull, manifest.artifact_type or "an index that lists no image")
        references = await self._references(pull)
        if not references and not any(request.target == pull.digest for request in known):
            references = [Reference(digest=pull.digest)]
        followed = {reference: await self._used_platforms(name, reference) for reference in references}
        requests = requests_for_index(name, index, references, platforms=self._platforms, followed=followed)
        gone = await self._gone(name, references, pull.digest, requests) if flat.is_complete else []
        return Wish(requests, gone, is_complete=flat.is_complete)

    async def _references(self, pull: Pull) -> list[Reference]:
        """The tag that was pulled, or all that lead to what was pulled by digest."""
        if pull.image.reference.tag is not None:
            return [pull.image.reference]
        return [Reference(tag=tag) for tag in await self._tags.pointing_at(pull.image.name, pull.digest)]

    async def _names_of_index(self, name: RepositoryName, index: Digest) -> list[Reference]:
        """The tags that lead to an index, as far as this mirror has seen, and its digest if it was pulled by that."""
        references = [Reference(tag=tag) for tag in await self._tags.pointing_at(name, index)]
        by_digest = Reference(digest=index)
        if any(request.image.reference == by_digest for request in await self._statuses.requests(name, index)):
            references.append(by_digest)
        return references

    async def _used_platforms(self, name: RepositoryName, reference: Reference) -> list[Platform]:
        found = await self._statuses.platforms(ImageReference(name, reference))
        return [status.platform for status in found if status.platform is not None]

    async def _gone(
        self, name: RepositoryName, references: Sequence[Reference], index: Digest, requests: Sequence[PublishRequest]
    ) -> list[tuple[ImageReference, Platform | None]]:
        """What these names stood for before, and the index has nothing for."""
        wanted = {(request.image, request.platform) for request in requests}
        gone: list[tuple[ImageReference, Platform | None]] = []
        for reference in references:
            image = ImageReference(name, reference)
            own = await self._statuses.status(image)
            statuses = await self._statuses.platforms(image)
            if own is not None and reference.tag is not None:
                statuses.append(own)
            gone += [
                (image, status.platform)
                for status in statuses
                if (image, status.platform) not in wanted and status.target != index
            ]
        return gone
