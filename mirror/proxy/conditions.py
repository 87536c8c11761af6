"""Conditions of requests: content whose entity tag is its digest, and answers that must be fresh. Pure.

Sources: RFC 9110, sections 8.8.3 and 13.1.2; RFC 9111, section 5.2.1.
"""

from __future__ import annotations

from collections.abc import Iterable

from mirror.oci.digest import Digest


def entity_tag(digest: Digest) -> str:
    """The value of ETag."""
    return f'"{digest}"'


def client_has(if_none_match: Iterable[str], digest: Digest) -> bool:
    """Whether the client has this content already (status 304). if_none_match: the headers' values."""
    tags = {tag.strip().removeprefix("W/") for value in if_none_match for tag in value.split(",")}
    return "*" in tags or entity_tag(digest) in tags


def wants_revalidation(cache_control: Iterable[str]) -> bool:
    """Whether a client asks for an answer that is fresh now. cache_control: the headers' values."""
    directives = {directive.strip().lower() for value in cache_control for directive in value.split(",")}
    return bool(directives & {"no-cache", "max-age=0"})
