"""Client of one upstream: a method for each endpoint of pull and content discovery (OCI distribution specification 1.1).

Bodies are never decompressed and never rewritten. Whoever holds a client reads with its rights; one made with `anonymous=True`
reads what everybody may, and so proves that something is public.
"""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

import aiohttp

from mirror.errors import IntegrityError, InvalidInput
from mirror.oci.accept import EVERYTHING
from mirror.oci.digest import Digest
from mirror.oci.listing import next_page, parse_referrers, parse_tag_list
from mirror.oci.manifest import OCI_INDEX
from mirror.oci.reference import Reference
from mirror.upstream.auth import Authenticator
from mirror.upstream.blob_requests import BlobRequests, BlobStream
from mirror.upstream.body import read_limited, refuse_encoding
from mirror.upstream.budget import Budget, BudgetWatch
from mirror.upstream.gate import Gate
from mirror.upstream.manifest_requests import ManifestRequests, manifest_name
from mirror.upstream.model import (
    Credential,
    Failure,
    FetchedManifest,
    ManifestInfo,
    Upstream,
    UpstreamRequest,
    UpstreamUnavailable,
)
from mirror.upstream.pages import MAX_BYTES, Page, all_pages
from mirror.upstream.policy import SHORT_REQUESTS, RetryPolicy
from mirror.upstream.retrying import retrying
from mirror.upstream.token_cache import TokenCache
from mirror.upstream.transport import Transport

T = TypeVar("T")

_LIST_TYPES = f"application/json, {OCI_INDEX}, */*;q=0.1"
_BUDGET_SECONDS = 60.0
"""How old what is known of a budget may be where it stops work in the background: a HEAD tells, and costs none of it."""
_PAGE = 1000
"""Tags of one page that are asked for: what large registries allow at most."""


class UpstreamClient:
    """Reads from one upstream."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        upstream: Upstream,
        *,
        anonymous: bool = False,
        tokens: TokenCache | None = None,
        retry: RetryPolicy = SHORT_REQUESTS,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        on_request: Callable[[UpstreamRequest], None] = lambda _: None,
        gate: Gate | None = None,
        on_budget: Callable[[Budget], None] = lambda _: None,
        background: bool = False,
    ) -> None:
        """anonymous: never use the upstream's credential. tokens: may be shared by clients of several upstreams.

        session: of `mirror.upstream.session`, which guards the addresses that are dialled. on_request: called for each request.
        gate: shared by the clients of this upstream; None: this client has one of its own. on_budget: called with what the
        upstream says of it. background: what this client fetches can wait, so that it leaves the reserve of the budget to others.
        """
        self.upstream = upstream
        self.anonymous = anonymous or upstream.credential is None
        self._authenticator = Authenticator(session, upstream, None if anonymous else upstream.credential, tokens or TokenCache())
        self._gate = gate or Gate(upstream)
        self._retry = retry
        self._sleep = sleep
        self._background = background
        self.budget = BudgetWatch(upstream.reserve, time.monotonic, on_budget)
        self._use(Transport(session, upstream, self._authenticator, self._gate, on_request))

    def ways(self, repository: str) -> tuple[tuple[UpstreamClient, str], ...]:
        """Whom to ask for a blob of this repository, in order, and by which name; this client comes last."""
        return ((self, repository),)

    @property
    def suspension(self) -> Failure | None:
        """Why the upstream is left alone, so that requests are refused or probes: SUSPENDED or THROTTLED. None: it is not."""
        return self._gate.suspension

    @property
    def is_suspended(self) -> bool:
        """Whether it is left alone."""
        return self.suspension is not None

    @property
    def is_probe_due(self) -> bool:
        """Whether it is time to look whether a suspended upstream is back."""
        return self._gate.breaker.is_due

    def acting_as(self, credential: Credential) -> UpstreamClient:
        """The same upstream, read with somebody else's rights. Limits and connections are shared; to be closed as well."""
        authenticator = self._authenticator.acting_as(credential)
        other = copy.copy(self)
        other.anonymous = False
        other._authenticator = authenticator  # noqa: SLF001 - one of us
        other._use(self._transport.acting_as(authenticator))  # noqa: SLF001
        return other

    def _use(self, transport: Transport) -> None:
        self._transport = transport
        self._manifests = ManifestRequests(transport, self.upstream, self.budget)
        self._blobs = BlobRequests(transport, self.upstream)

    async def close(self) -> None:
        """Give up token requests that are under way; the session stays open."""
        await self._authenticator.close()

    async def head_manifest(self, repository: str, reference: Reference, accept: str = EVERYTHING) -> ManifestInfo:
        """Ask what a tag or digest stands for; most upstreams do not count it as a pull.

        accept: the header's value. Raises NotFound, Denied, UpstreamUnavailable, IntegrityError.
        """
        return await self._with_retries(repository, lambda: self._manifests.head(repository, reference, accept))

    async def get_manifest(self, repository: str, reference: Reference, accept: str = EVERYTHING) -> FetchedManifest:
        """A manifest or index, verified by the digest that was asked for or else by the one that the upstream states.

        accept: the header's value; what the upstream makes of it is up to it. Raises NotFound, also if it has nothing that is
        accepted, Denied, UpstreamUnavailable, IntegrityError, and InvalidInput for Docker's schema 1.
        """
        if self._background and self.budget.is_low:
            await self._leave_reserve(repository, reference)
        return await self._with_retries(repository, lambda: self._manifests.get(repository, reference, accept))

    async def head_blob(self, repository: str, digest: Digest) -> int | None:
        """Size in bytes of a blob, None if the upstream has it but does not say. Raises NotFound, Denied, UpstreamUnavailable."""
        return await self._with_retries(repository, lambda: self._blobs.size(repository, digest))

    async def tags(self, repository: str) -> list[str]:
        """Every tag of a repository, in the upstream's order. Raises NotFound, Denied, UpstreamUnavailable, IntegrityError."""
        pages = await self._pages(f"/v2/{repository}/tags/list?n={_PAGE}", repository, f"the tag list of {repository}")
        with _understood(self.upstream.name):
            return [tag for page in pages for tag in parse_tag_list(page)]

    async def referrers(self, repository: str, subject: Digest) -> list[dict[str, Any]]:
        """Descriptors of everything that refers to a manifest, unchanged.

        Raises NotFound if the upstream has no referrers API (nor, then, the list), Denied, UpstreamUnavailable, IntegrityError.
        """
        what = f"the list of referrers of {repository}@{subject}"
        pages = await self._pages(f"/v2/{repository}/referrers/{subject}", repository, what)
        with _understood(self.upstream.name):
            return [descriptor for page in pages for descriptor in parse_referrers(page)]

    @asynccontextmanager
    async def open_blob(
        self,
        repository: str,
        digest: Digest,
        offset: int = 0,
        length: int | None = None,
        *,
        etag: str | None = None,
        insist: bool = False,
    ) -> AsyncIterator[BlobStream]:
        """A blob from `offset` bytes on, unverified. Waits in order while too many transfers from this upstream are running.

        length: bytes to ask for, at least 1; the upstream may send more, up to the blob's end. etag: of the stream that is gone
        on with. insist: somebody is in the middle of reading it: ask also while the upstream is left alone, and before others.

        One try: going on after a failure is for the caller, who knows where. Raises NotFound, Denied, UpstreamUnavailable, and
        IntegrityError for an encoded or contradictory answer; reading the chunks raises UpstreamUnavailable.
        """
        opened = self._blobs.open(repository, digest, offset, length, etag=etag, insist=insist)
        async with self._gate.transfers.slot(repository, urgent=insist), opened as stream:
            yield stream

    async def blob_location(self, repository: str, digest: Digest) -> str | None:
        """The address that the upstream sends a client to for a blob, seen to serve it; None if it serves the blob itself.

        Raises NotFound, Denied, UpstreamUnavailable, IntegrityError.
        """
        async with self._gate.requests.slot(repository):
            return await self._blobs.location(repository, digest)

    async def _pages(self, first: str, repository: str, what: str) -> list[bytes]:
        async def ask(path: str, limit: int) -> Page:
            return await self._with_retries(repository, lambda: self._page(path, repository, what, limit))

        return await all_pages(ask, self.upstream.url, first, what)

    async def _page(self, path: str, repository: str, what: str, limit: int) -> Page:
        response = await self._transport.send("GET", path, {"Accept": _LIST_TYPES}, repository=repository, what=what)
        try:
            if response.status != 200:
                raise await self._transport.failure(response, what)
            refuse_encoding(response, self.upstream.name, what)
            with self._transport.wrapped(what):
                raw = await read_limited(response, limit)
            if raw is None:
                raise IntegrityError(f"upstream {self.upstream.name} sends more than {MAX_BYTES} bytes as {what}")
            return Page(raw, next_page(response.headers.getall("Link", [])))
        finally:
            response.close()

    async def _leave_reserve(self, repository: str, reference: Reference) -> None:
        """Raises UpstreamUnavailable if the upstream still grants too few pulls for work that can wait."""
        if self.budget.age > _BUDGET_SECONDS:
            await self.head_manifest(repository, reference)
        known = self.budget.known
        if known is not None and self.budget.is_low:
            raise UpstreamUnavailable(
                f"upstream {self.upstream.name} grants {known.remaining} of {known.limit} pulls for now; "
                f"{manifest_name(repository, reference)} waits, so that they are there for clients",
                Failure.THROTTLED,
                _BUDGET_SECONDS,
            )

    async def _with_retries(self, repository: str, attempt: Callable[[], Awaitable[T]]) -> T:
        async def in_turn() -> T:
            async with self._gate.requests.slot(repository):
                return await attempt()

        return await retrying(in_turn, self._retry, self._sleep)


@contextmanager
def _understood(upstream: str) -> Iterator[None]:
    """What an upstream sends is its mistake, not that of the one who asked."""
    try:
        yield
    except InvalidInput as error:
        raise IntegrityError(f"upstream {upstream} sends nonsense: {error}") from error
