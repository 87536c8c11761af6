"""The If-None-Match header for content whose entity tag is its digest. Pure. Source: RFC 9110, sections 8.8.3 and 13.1.2."""

from __future__ import annotations

from mirror.oci.digest import Digest


def entity_tag(digest: Digest) -> str:
    """The value of ETag."""
    return f'"{digest}"'


def client_has(if_none_match: str | None, digest: Digest) -> bool:
    """Whether the client has this content already (status 304)."""
    if not if_none_match:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return "*" in tags or entity_tag(digest) in tags
