"""The path grammar of the registry API, and how a request names its upstream.

Pure. Sources: OCI distribution specification 1.1, "API" (end-1 to end-3, end-8, end-12) and "Registry Proxying" (the query
parameter `ns`).

    /v2/<repository>/...                 the default upstream, or that of the server's name in the Host header
    /v2/<repository>/...?ns=<registry>   containerd, for any registry
    /v2/<registry>/<repository>/...      direct references, and mirrors configured with a path
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from mirror.errors import InvalidInput, NotFound
from mirror.oci.digest import Digest
from mirror.oci.reference import (
    ImageReference,
    Reference,
    RepositoryName,
    canonical_registry,
    check_tag,
    looks_like_host,
    strip_scheme,
)


class UnknownUpstream(NotFound):
    """The request names a registry that is not configured; no request makes the server dial another address."""


class BadDigest(InvalidInput):
    """What stands where a digest belongs is none."""


class BadReference(InvalidInput):
    """What stands where a tag or a digest belongs is neither."""


class Kind(Enum):
    """What a registry request asks for; the value is the path's component."""

    MANIFEST = "manifests"
    BLOB = "blobs"
    TAGS = "tags"
    REFERRERS = "referrers"


_ENDPOINTS = {kind.value: kind for kind in Kind}


@dataclass(frozen=True, slots=True)
class Route:
    """One parsed request path: what is asked for, of which repository."""

    kind: Kind
    name: RepositoryName
    reference: Reference | None
    """A tag or digest for a manifest, a digest for a blob and for the subject of referrers, none for a list of tags."""


@dataclass(frozen=True, slots=True)
class UpstreamNames:
    """The closed world of upstreams: every name and alias that leads to one, and the one that is meant where none is named."""

    canonical: Mapping[str, str]
    """Lower-case name or alias to the name of the upstream."""
    default: str
    hosts: Mapping[str, str] = field(default_factory=dict)
    """Names of this server, lower-case, with or without port, under each of which another upstream is the default one."""

    def at(self, host: str) -> UpstreamNames:
        """The same world, as it is for requests to this server under that name (the `Host` header)."""
        found = self.hosts.get(host.lower()) or self.hosts.get(host.lower().partition(":")[0])
        return replace(self, default=found) if found is not None else self

    def resolve(self, repository_path: str, namespace: str | None) -> RepositoryName:
        """Split `<registry>/<repository>` or take the registry from `ns` or the default.

        A registry in the path decides, even against `ns`: whoever configured a path wrote it there on purpose.
        Raises InvalidInput for a name that breaks the grammar, UnknownUpstream for a registry that is not configured.
        """
        first, slash, rest = repository_path.partition("/")
        if slash and (looks_like_host(first) or self.find(first) is not None):
            return RepositoryName.of(self._upstream(first), rest)
        if namespace:
            return RepositoryName.of(self._upstream(namespace), repository_path)
        return RepositoryName.of(self.default, repository_path)

    def find(self, host: str) -> str | None:
        """The upstream of that name or alias; None if none is configured."""
        return self.canonical.get(canonical_registry(host))

    def _upstream(self, host: str) -> str:
        found = self.find(host)
        if found is None:
            allowed = ", ".join(sorted(set(self.canonical.values())))
            raise UnknownUpstream(f"registry '{host[:200]}' is not an upstream of this mirror; configured are: {allowed}")
        return found


def endpoint_of(path: str) -> Kind | None:
    """What a path behind `/v2/` asks for, be the rest of it right or wrong; None if it is no endpoint of the API."""
    return _ENDPOINTS.get(path.rpartition("/")[0].rpartition("/")[2])


def parse_path(path: str, namespace: str | None, upstreams: UpstreamNames) -> Route | None:
    """Read the part of the path behind `/v2/`; None if it is no endpoint of the API.

    Raises InvalidInput (BadDigest, BadReference for the last component), UnknownUpstream.
    """
    kind = endpoint_of(path)
    if kind is None:
        return None
    before, _, last = path.rpartition("/")
    name = upstreams.resolve(before.rpartition("/")[0], namespace)
    if kind is Kind.TAGS:
        return Route(kind, name, None) if last == "list" else None
    return Route(kind, name, _reference(last) if kind is Kind.MANIFEST else Reference(digest=_digest(last)))


def parse_user_reference(text: str, own_host: str, upstreams: UpstreamNames) -> ImageReference:
    """Read a reference as a person types it: scheme, this mirror's own address, registry, tag and digest may be there or not.

    Raises InvalidInput, UnknownUpstream.
    """
    path, at, digest = strip_scheme(text).removeprefix(f"{own_host}/").partition("@")
    head, slash, last = path.rpartition("/")
    component, colon, tag = last.partition(":")
    name = upstreams.resolve(f"{head}{slash}{component}", None)
    reference = Reference(tag=check_tag(tag) if colon else "latest")
    return ImageReference(name, Reference(digest=_digest(digest)) if at else reference)


def _digest(text: str) -> Digest:
    try:
        return Digest.parse(text)
    except InvalidInput as error:
        raise BadDigest(str(error)) from error


def _reference(text: str) -> Reference:
    if ":" in text:
        return Reference(digest=_digest(text))
    try:
        return Reference.parse(text)
    except InvalidInput as error:
        raise BadReference(str(error)) from error
