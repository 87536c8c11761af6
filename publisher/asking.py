"""Asks for images to be published that nobody has pulled: as a pull would, but with what upstreams give to everybody."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from mirror.config import wiring
from mirror.config.models import Config
from mirror.errors import InvalidInput, Unavailable
from mirror.fetch.manifests import ManifestFetcher
from mirror.fetch.result import CacheResult
from mirror.jobs.queue import Queue
from mirror.jobs.statuses import Statuses
from mirror.observe.events import Pull
from mirror.observe.intake import Intake
from mirror.observe.nested import NestedIndexes
from mirror.oci.digest import Digest
from mirror.oci.manifest import parse_manifest
from mirror.oci.platform import Platform
from mirror.oci.reference import ImageReference, Reference, RepositoryName, canonical_registry
from mirror.state.engine import Database
from mirror.store.blobs import BlobStore
from mirror.store.indexes import Indexes
from mirror.store.links import Links
from mirror.store.tags import Tags
from mirror.upstream.client import UpstreamClient
from publisher.content import Clients, open_clients
from publisher.policy_file import PolicyFile

_PATIENCE_SECONDS = 120.0
"""For an upstream that takes long to say what a tag is: there is nobody to whom an old answer would be of use."""


@dataclass(frozen=True, slots=True)
class Asked:
    """An image that was asked for.

    rows: the names, some for a platform, that are published for its sake; none if that was done before. is_new: whether asking
    changed anything. manifests: of the images behind the names.
    """

    image: ImageReference
    rows: tuple[tuple[ImageReference, Platform | None], ...]
    is_new: bool
    manifests: tuple[Digest, ...]


class UpstreamNames:
    """Which registries are upstreams, under all their names."""

    def __init__(self, canonical: Mapping[str, str]) -> None:
        """canonical: name or alias, in lower case, to the name of the upstream."""
        self._canonical = canonical

    def name(self, name: RepositoryName) -> RepositoryName:
        """The name under which the mirror knows a repository. Raises InvalidInput if its registry is no upstream."""
        found = self._canonical.get(canonical_registry(name.registry))
        if found is None:
            table = f'[upstreams."{name.registry}"]'
            raise InvalidInput(f"{name.registry} is no upstream of this mirror; to make it one, add {table} to the configuration")
        return RepositoryName.of(found, name.repository)

    def image(self, image: ImageReference) -> ImageReference:
        """The same for an image."""
        return ImageReference(self.name(image.name), image.reference)


class Asker:
    """Finds out what names stand for, and asks for it to be published."""

    def __init__(
        self,
        clients: Clients,
        manifests: ManifestFetcher,
        queue: Queue,
        statuses: Statuses,
        make_intake: Callable[[NestedIndexes], Intake],
        *,
        is_vouched_for: Callable[[RepositoryName], bool],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """manifests: which asks for tags each time. is_vouched_for: what is read with the mirror's credentials.

        clock: Unix seconds.
        """
        self._clients = clients
        self._manifests = manifests
        self._queue = queue
        self._statuses = statuses
        self._intake = make_intake(NestedIndexes(self._inner))
        self._is_vouched_for = is_vouched_for
        self._clock = clock

    async def tags(self, name: RepositoryName) -> list[str]:
        """Every tag of a repository. Raises NotFound, Denied, Unavailable, IntegrityError."""
        return await self._client(name).tags(name.repository)

    async def ask(self, image: ImageReference, *, at_once: bool = False) -> Asked:
        """Ask for what the name stands for at this moment. at_once: also if it failed and the next try is due later.

        Raises NotFound, Denied, Unavailable, IntegrityError, and InvalidInput for what cannot be published.
        """
        answer = await self._manifests.get(self._client(image.name), image.name, image.reference)
        if answer.result is CacheResult.STALE:
            raise Unavailable(f"{image.name.registry} does not say what {image} is now")
        known = await self._statuses.requests(image.name, answer.digest)
        pull = Pull(self._clock(), image, answer.digest, answer.media_type, answer.raw)
        wish = await self._intake.wish_of(pull, parse_manifest(answer.raw, answer.media_type), known)
        if not wish.is_complete:
            raise Unavailable(f"{image.name.registry} does not give the indexes that {image} lists")
        changed: bool = bool(await self._queue.enqueue_all(wish.requests, wish.gone))
        if wish.artifacts:
            changed = await self._queue.note_artifact(wish.artifacts, answer.digest, wish.reason)
        elif not wish.requests and not known:
            raise InvalidInput(f"{image} has no image for the platforms that are published (publish.platforms)")
        manifests = tuple(dict.fromkeys(request.manifest for request in wish.requests))
        if at_once:
            await self._queue.hasten(manifests)
        rows = [(request.image, request.platform) for request in wish.requests] + [(name, None) for name in wish.artifacts]
        return Asked(image, tuple(dict.fromkeys(rows)), changed, manifests)

    async def _inner(self, name: RepositoryName, digest: Digest) -> tuple[bytes, str]:
        answer = await self._manifests.get(self._client(name), name, Reference(digest=digest))
        return answer.raw, answer.media_type

    def _client(self, name: RepositoryName) -> UpstreamClient:
        trusted = self._clients.trusted.get(name.registry) if self._is_vouched_for(name) else None
        return trusted or self._clients.anonymous[name.registry]


async def open_asker(config: Config, database: Database, stack: AsyncExitStack, *, judge_again: bool = False) -> Asker:
    """With what a mirror of the same settings knows. judge_again: refused images are tried once more, however soon it is.

    Raises InvalidInput for a policy that cannot be used, ConfigError.
    """
    tags = Tags(database)
    limits = replace(wiring.manifest_limits(config), tag_seconds=0.0, patience_seconds=_PATIENCE_SECONDS)
    manifests = ManifestFetcher(BlobStore(config.data, config.store.min_free), tags, Links(database), limits)
    clients = open_clients(config, stack)
    stack.push_async_callback(manifests.close)
    statuses = Statuses(database)
    retry = wiring.publish_retry(config)
    policy = PolicyFile(Path(config.publish.policy_file) if config.publish.policy_file else None)
    return Asker(
        clients,
        manifests,
        Queue(database, policy=replace(retry, refused_pause=0.0) if judge_again else retry),
        statuses,
        lambda nested: Intake(statuses, tags, Indexes(database), nested, wiring.platforms(config)),
        is_vouched_for=policy.is_vouched_for,
    )
