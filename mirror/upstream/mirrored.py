"""A client of an upstream of which there are mirrors: they are asked first, in order, and the upstream itself where none helps.

That is the order of containerd's hosts.toml and of containers-registries.conf(5). Only manifests and blobs come from mirrors.
What is not there, what may be read, which tags and referrers there are: that only the upstream itself can say. A mirror gets none
of the upstream's credentials.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import aiohttp
import structlog

from mirror.errors import MirrorError, NotFound
from mirror.oci.accept import EVERYTHING
from mirror.oci.reference import Reference
from mirror.upstream.budget import Budget
from mirror.upstream.client import UpstreamClient
from mirror.upstream.gate import Gate
from mirror.upstream.model import Failure, FetchedManifest, ManifestInfo, Upstream, UpstreamRequest
from mirror.upstream.policy import RetryPolicy
from mirror.upstream.token_cache import TokenCache

log = structlog.get_logger()

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class UpstreamMirror:
    """Another place that has an upstream's content. prefix: what its repositories have in front of their names there."""

    client: UpstreamClient
    prefix: str = ""

    def repository(self, repository: str) -> str:
        """What the mirror calls it."""
        return f"{self.prefix}/{repository}" if self.prefix else repository


class MirroredClient(UpstreamClient):
    """Reads from mirrors of an upstream, and from the upstream."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        upstream: Upstream,
        mirrors: Sequence[UpstreamMirror],
        *,
        tokens: TokenCache,
        retry: RetryPolicy,
        gate: Gate,
        on_request: Callable[[UpstreamRequest], None] = lambda _: None,
        on_budget: Callable[[Budget], None] = lambda _: None,
    ) -> None:
        """mirrors: in order; their clients are closed by whoever opened them. For the rest see UpstreamClient."""
        super().__init__(session, upstream, tokens=tokens, retry=retry, gate=gate, on_request=on_request, on_budget=on_budget)
        self._mirrors = tuple(mirrors)

    @property
    def suspension(self) -> Failure | None:
        """Why neither the upstream nor a mirror is to be asked; None if one is. Who throttles still gives blobs."""
        reasons = {super().suspension, *(mirror.client.suspension for mirror in self._mirrors)}
        if None in reasons:
            return None
        return Failure.THROTTLED if Failure.THROTTLED in reasons else Failure.SUSPENDED

    @property
    def is_probe_due(self) -> bool:
        """Whether it is time to look whether one of them is back."""
        return super().is_probe_due or any(mirror.client.is_probe_due for mirror in self._mirrors)

    def ways(self, repository: str) -> tuple[tuple[UpstreamClient, str], ...]:
        """See UpstreamClient."""
        return (*((mirror.client, mirror.repository(repository)) for mirror in self._mirrors), (self, repository))

    async def head_manifest(self, repository: str, reference: Reference, accept: str = EVERYTHING) -> ManifestInfo:
        """See UpstreamClient. That a repository has a digest is a proof: only the upstream itself is asked for that."""
        if reference.digest is None:
            found = await self._first(repository, lambda client, there: client.head_manifest(there, reference, accept))
            if found is not None:
                return found
        return await super().head_manifest(repository, reference, accept)

    async def get_manifest(self, repository: str, reference: Reference, accept: str = EVERYTHING) -> FetchedManifest:
        """See UpstreamClient."""
        found = await self._first(repository, lambda client, there: client.get_manifest(there, reference, accept))
        return found or await super().get_manifest(repository, reference, accept)

    async def _first(self, repository: str, ask: Callable[[UpstreamClient, str], Awaitable[T]]) -> T | None:
        """The answer of the first mirror that has one."""
        for mirror in self._mirrors:
            client = mirror.client
            if client.is_suspended and not client.is_probe_due:
                continue
            try:
                return await ask(client, mirror.repository(repository))
            except NotFound:
                continue
            except MirrorError as error:
                log.info("mirror_passed_over", upstream=self.upstream.name, mirror=client.upstream.name, reason=str(error))
        return None
