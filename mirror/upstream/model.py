"""What is known of a remote registry, and what it answers, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from yarl import URL

from mirror.errors import Denied, Unavailable
from mirror.oci.digest import Digest


@dataclass(frozen=True, slots=True)
class Credential:
    """A user name and password (or token used as one) for one upstream."""

    username: str
    password: str = field(repr=False)
    is_identity_token: bool = False
    """Whether the password is a token that the token service exchanges for others (a "refresh token"), without a user name."""

    async def credential_for(self, repository: str) -> Credential:  # noqa: ARG002 - the same for all of them
        """Itself, whatever the repository: the simplest `CredentialSource`."""
        return self


class CredentialSource(Protocol):
    """Which credential is for which repository of an upstream, at this time."""

    async def credential_for(self, repository: str) -> Credential | None:
        """None to read it as nobody. Raises UpstreamUnavailable if that cannot be told now."""


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When an upstream is left alone, and for how long; times in seconds."""

    failures: int = 5
    """In a row, after which it is not asked for a while."""
    pause: float = 2.0
    """The first one; each probe that fails doubles it."""
    longest_pause: float = 60.0
    longest_retry_after: float = 900.0
    """The upstream's own Retry-After is kept up to this."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """A remote registry that the operator allows."""

    name: str
    """Under which it is asked for and published: `docker.io`."""
    base_url: str
    """What to dial: scheme, host and port, such as `https://registry-1.docker.io`; a path goes in front of `/v2/`."""
    trusted_hosts: tuple[str, ...] = ()
    """Other hosts that it may redirect to or keep its token service on; `*` stands for any characters, `:port` for one port."""
    credential: CredentialSource | None = None
    connect_timeout: float = 5.0
    """Seconds to resolve and connect."""
    read_timeout: float = 30.0
    """Seconds without a byte before an answer is given up."""
    max_transfers: int = 16
    """Blobs that are fetched at the same time; further ones wait, repositories in turn."""
    max_requests: int = 32
    """Other requests at the same time; the same holds for them."""
    max_manifest_bytes: int = 4 << 20
    allow_private_addresses: bool = False
    """Whether a trusted host may be at a loopback, link-local or private address. The upstream's own host always may."""
    breaker: BreakerPolicy = BreakerPolicy()
    reserve: float = 0.2
    """The share of the pulls that it grants below which nothing is done in the background."""

    @property
    def url(self) -> URL:
        """The base URL without a trailing slash."""
        return URL(self.base_url.rstrip("/"))


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """A request that was made of an upstream, for those who count."""

    upstream: str
    method: str
    kind: str
    """manifest, blob, tags or referrers."""
    status: int
    """Of the answer, behind all redirects; 0 if there was none."""


@dataclass(frozen=True, slots=True)
class ManifestInfo:
    """What an upstream says of a manifest without giving it: each may be missing."""

    digest: Digest | None
    media_type: str | None
    size: int | None


@dataclass(frozen=True, slots=True)
class FetchedManifest:
    """A manifest as it came, byte for byte, its digest verified."""

    raw: bytes
    media_type: str
    digest: Digest


class Failure(Enum):
    """Why an upstream could not be used."""

    UNREACHABLE = "unreachable"
    """No connection: refused, unknown host, TLS, or no answer to the attempt within the connect time-out."""
    LOST = "lost"
    """The connection broke."""
    TIMEOUT = "timeout"
    """It was silent for longer than the read time-out."""
    ERROR = "error"
    """It answered with a server error."""
    THROTTLED = "throttled"
    """It answered 429."""
    PROTOCOL = "protocol"
    """It answered something that makes no sense."""
    SUSPENDED = "suspended"
    """It failed again and again, and is not asked for a while."""


class UpstreamUnavailable(Unavailable):
    """An upstream cannot be used now, with the reason as a value."""

    def __init__(self, message: str, failure: Failure, retry_after: float | None = None) -> None:
        super().__init__(message, retry_after)
        self.failure = failure


class CredentialRefused(Denied):
    """The upstream, or its token service, does not take a user name and password, or a token, at all."""
