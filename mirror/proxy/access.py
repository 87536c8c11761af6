"""Who may read what through the mirror (design, rules of safety 1 and 2).

A mirror that has a credential for an upstream can read more than its clients may. Unless the operator said that everybody may
read what the credential can (`private = "serve"`), a repository is served only if the upstream gives it to an anonymous client;
or, with `private = "client"`, to a client whose own credential the upstream takes for it, by a way of its own.
And a blob is served under a repository's name only if a manifest of that repository names it, or the upstream itself says so; of
what is private only the latter counts.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import structlog
from cachetools import TTLCache

from mirror.errors import Denied, NotFound, Unauthenticated, Unavailable
from mirror.oci.digest import Digest
from mirror.oci.manifest import Descriptor
from mirror.oci.reference import Reference, RepositoryName
from mirror.proxy.public import Ask, PublicRepositories
from mirror.proxy.rights import Rights
from mirror.proxy.visitor import ANYBODY, Visitor
from mirror.proxy.ways import Way
from mirror.upstream.model import Credential

log = structlog.get_logger()


class Links(Protocol):
    """Which repository names which content."""

    async def find(self, name: RepositoryName, digest: Digest) -> Descriptor | None:
        """The content as the repository's manifests describe it; None if none of them names it. Raises Unavailable."""


class Access:
    """Decides, remembering each answer for a while. What may be read comes with the way to read it."""

    def __init__(
        self,
        links: Links,
        ways: Mapping[str, Way],
        public: PublicRepositories,
        rights: Rights | None = None,
        *,
        remembered: int = 50_000,
        seconds: float = 600.0,
        longest: float = 86_400.0,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        """ways: by registry, with the mirror's rights. public: which repositories anybody may read, where that has to be shown.

        rights: of clients with credentials of their own. remembered, seconds: how many answers of upstreams about blobs are kept,
        and for how long; longest: those of private blobs, whose repositories are looked at each time.
        """
        self._links = links
        self._ways = ways
        self._public = public
        self._rights = rights or Rights({})
        self._confirmed: TTLCache[tuple[RepositoryName, Digest], int | None] = TTLCache(remembered, seconds, timer)
        # The right to the repository is looked at each time, and a blob's place does not change: so that an outage is survived.
        self._confirmed_private: TTLCache[tuple[RepositoryName, Digest], int | None] = TTLCache(remembered, longest, timer)

    def has_shown_right(self, name: RepositoryName, visitor: Visitor) -> bool:
        """Whether the visitor has shown lately that the repository is theirs to read, and so reads it as a private one."""
        return self._shown(name, visitor) is not None

    async def check_manifest(self, name: RepositoryName, reference: Reference, visitor: Visitor = ANYBODY) -> Way:
        """Raise Denied or NotFound if the visitor must not read it; Unauthenticated if a credential may help; Unavailable."""
        return await self._way(name, visitor, lambda client: client.head_manifest(name.repository, reference))

    async def check_listing(self, name: RepositoryName, visitor: Visitor = ANYBODY) -> Way:
        """The same for what is in the repository at all."""
        return await self._way(name, visitor, lambda client: client.tags(name.repository))

    async def check_blob(self, name: RepositoryName, digest: Digest, visitor: Visitor = ANYBODY) -> tuple[Way, int | None]:
        """The same for a blob, with its size in bytes, None if nobody says. Raises NotFound, too, if the repository has none."""
        way = await self._way(name, visitor, lambda client: client.head_blob(name.repository, digest))
        if not way.is_private:
            linked = None
            with contextlib.suppress(Unavailable):  # Without the state database: the upstream knows as well.
                linked = await self._links.find(name, digest)
            if linked is not None:
                return way, linked.size
        key = (name, digest)
        confirmed = self._confirmed_private if way.is_private else self._confirmed
        with contextlib.suppress(KeyError):
            return way, confirmed[key]
        size = await way.client.head_blob(name.repository, digest)
        confirmed[key] = size
        return way, size

    async def _way(self, name: RepositoryName, visitor: Visitor, ask: Ask) -> Way:
        """ask: for anything of the repository."""
        way = self._ways[name.registry]
        if not self._public.are_asked_of(name.registry):
            return way
        shown = self._shown(name, visitor)
        if shown is not None:
            return shown
        credential = self._credential(name, visitor)
        try:
            await self._check_public(name, ask)
        except (Denied, NotFound) as error:
            if credential is not None:
                return await self._show(name, visitor, credential, ask)
            if isinstance(error, Denied) and visitor.challenge is not None:
                raise Unauthenticated(
                    f"{name} is not public: log in with an account of {name.registry}", visitor.challenge
                ) from error
            raise
        except Unavailable:
            shown = self._rights.shown(name, credential, long_ago=True) if credential is not None else None
            if shown is None:
                raise
            return shown
        return way

    def _credential(self, name: RepositoryName, visitor: Visitor) -> Credential | None:
        return visitor.credential if self._rights.are_passed_to(name.registry) else None

    def _shown(self, name: RepositoryName, visitor: Visitor) -> Way | None:
        credential = self._credential(name, visitor)
        return self._rights.shown(name, credential) if credential is not None else None

    async def _show(self, name: RepositoryName, visitor: Visitor, credential: Credential, ask: Ask) -> Way:
        try:
            return await self._rights.show(name, visitor, ask)
        except Unavailable as error:
            shown = self._rights.shown(name, credential, long_ago=True)
            if shown is None:
                raise
            log.warning("right_taken_for_granted", name=str(name), reason=str(error))
            return shown

    async def _check_public(self, name: RepositoryName, ask: Ask) -> None:
        try:
            await self._public.check(name, ask)
        except Denied as error:
            raise self._private(name) from error

    def _private(self, name: RepositoryName) -> Denied:
        if self._rights.are_passed_to(name.registry):
            return Denied(f"{name} is not public, and a user name and password are taken over TLS only")
        return Denied(
            f"{name} is not public: only this mirror's own credential can read it, and the operator does not share that "
            f'(setting private of upstream "{name.registry}")'
        )
