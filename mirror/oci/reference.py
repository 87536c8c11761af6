"""Names of things in registries, and their grammar (OCI distribution specification, "Pulling manifests").

    [docker://] registry / repository [:tag] [@digest]

`registry` is the name under which an upstream is configured (`docker.io`, `hub.example.org`), never an address to dial.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mirror.errors import InvalidInput
from mirror.oci.digest import Digest

DOCKER_HUB = "docker.io"
_DOCKER_HUB_ALIASES = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"})

MAX_REPOSITORY_LENGTH = 255
_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*", re.ASCII)
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", re.ASCII)
_REGISTRY = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?(?::[0-9]{1,5})?", re.ASCII)
_SCHEMES = ("docker://", "oras://", "https://", "http://")


def check_repository(name: str) -> str:
    """Return the repository name as it is, or raise InvalidInput where it breaks the grammar."""
    if len(name) > MAX_REPOSITORY_LENGTH or not _REPOSITORY.fullmatch(name):
        raise InvalidInput(
            f"'{name[:300]}' is not a repository name: lower-case letters, digits and single . _ - between them, "
            f"in components separated by '/', {MAX_REPOSITORY_LENGTH} characters at most"
        )
    return name


def check_tag(tag: str) -> str:
    """Return the tag as it is, or raise InvalidInput where it breaks the grammar."""
    if not _TAG.fullmatch(tag):
        raise InvalidInput(f"'{tag[:200]}' is not a tag: letters, digits, _ . and -, 128 at most, not beginning with . or -")
    return tag


def canonical_registry(host: str) -> str:
    """The one name of a registry that has several: Docker Hub's API hosts are all `docker.io`."""
    lowered = host.lower()
    return DOCKER_HUB if lowered in _DOCKER_HUB_ALIASES else lowered


def canonical_repository(registry: str, repository: str) -> str:
    """On Docker Hub `debian` means `library/debian`; elsewhere a name is what it is."""
    if registry == DOCKER_HUB and "/" not in repository:
        return f"library/{repository}"
    return repository


def strip_scheme(text: str) -> str:
    """A reference without the transport that tools write in front of it, such as `docker://`."""
    for scheme in _SCHEMES:
        text = text.removeprefix(scheme)
    return text


def looks_like_host(component: str) -> bool:
    """Whether a first path component can only be a registry host: it has a dot or a port, or is localhost."""
    return "." in component or ":" in component or component == "localhost"


@dataclass(frozen=True, slots=True)
class Reference:
    """What follows the repository in a manifest request: a tag, or a digest."""

    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read a tag or a digest; a colon can only be a digest's. Raises InvalidInput."""
        if ":" in text:
            return cls(digest=Digest.parse(text))
        return cls(tag=check_tag(text))

    def __str__(self) -> str:
        return self.tag if self.tag is not None else str(self.digest)


@dataclass(frozen=True, slots=True)
class RepositoryName:
    """A repository of one upstream: canonical registry name and canonical repository name."""

    registry: str
    repository: str

    @classmethod
    def of(cls, registry: str, repository: str) -> RepositoryName:
        """Canonicalise and check. Raises InvalidInput."""
        if not _REGISTRY.fullmatch(registry):
            raise InvalidInput(f"'{registry[:200]}' is not a registry host name")
        canonical = canonical_registry(registry)
        return cls(canonical, check_repository(canonical_repository(canonical, repository)))

    def __str__(self) -> str:
        return f"{self.registry}/{self.repository}"


@dataclass(frozen=True, slots=True)
class ImageReference:
    """A complete name of an image or artifact, as a user types it."""

    name: RepositoryName
    reference: Reference

    @classmethod
    def parse(cls, text: str, default_registry: str = DOCKER_HUB) -> ImageReference:
        """Read `[docker://][registry/]repository[:tag][@digest]`; without tag and digest the tag is `latest`.

        With both, the digest decides, as in every client. Raises InvalidInput.
        """
        rest = strip_scheme(text)
        first, slash, remainder = rest.partition("/")
        registry, path = (first, remainder) if slash and looks_like_host(first) else (default_registry, rest)
        path, at, digest_text = path.partition("@")
        repository, colon, tag = path.partition(":")
        name = RepositoryName.of(registry, repository)
        if colon:
            check_tag(tag)
        if at:
            return cls(name, Reference(digest=Digest.parse(digest_text)))
        return cls(name, Reference(tag=tag if colon else "latest"))

    def __str__(self) -> str:
        separator = "@" if self.reference.digest is not None else ":"
        return f"{self.name}{separator}{self.reference}"
