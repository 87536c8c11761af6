"""Lists that a registry gives in pages: tags of a repository, and referrers of a manifest. Pure.

Sources: OCI distribution specification 1.1, "Listing Tags" (end-8) and "Listing Referrers" (end-12); RFC 8288 for `Link`.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from mirror.errors import InvalidInput
from mirror.oci.digest import Digest, is_digest
from mirror.oci.document import json_object
from mirror.oci.manifest import OCI_INDEX
from mirror.oci.reference import check_tag

_LINK = re.compile(r"<([^>]*)>((?:\s*;\s*[\w!#$&+.^`|~-]+\s*(?:=\s*(?:\"[^\"]*\"|[^\s\",;]+))?)*)", re.ASCII)
_NEXT = re.compile(r";\s*rel\s*=\s*(?:\"(?:[^\"]*\s)?next(?:\s[^\"]*)?\"|next)(?=\s*(?:;|$))", re.ASCII | re.IGNORECASE)


INDEX_BYTES = 4_000_000
"""Size up to which a list of referrers comes in one answer: clients need not take larger manifests ("Pushing Manifests")."""


class BadCount(InvalidInput):
    """What should say how many tags are wanted is no number."""


@dataclass(frozen=True, slots=True)
class TagPage:
    """One page of a tag list, and whether there is more behind it."""

    tags: tuple[str, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class ReferrersPage:
    """One page of referrers as an image index, and the digest behind which the next one begins; None after the last one."""

    index: bytes
    last: str | None


def next_page(links: Iterable[str]) -> str | None:
    """The target, absolute or relative, of `Link: <...>; rel="next"`; None if there is none.

    links: values of the `Link` headers.
    """
    for value in links:
        for target, parameters in _LINK.findall(value):
            if _NEXT.search(parameters):
                return str(target)
    return None


def link_to_next(path: str, query: Mapping[str, str]) -> str:
    """The value of a `Link` header to the next page. path: of the list, as the client asked for it, percent-encoded."""
    return f'<{path}?{urlencode(query)}>; rel="next"'


def parse_tag_list(raw: bytes) -> list[str]:
    """The tags that an upstream lists; what breaks the grammar of tags is left out, for nobody could pull it.

    Raises InvalidInput if it is no tag list.
    """
    tags = json_object(raw, "tag list").get("tags")
    # A repository without tags has null here, with some registries.
    if tags is None:
        return []
    if not isinstance(tags, list):
        raise InvalidInput("the tag list's 'tags' is not a list")
    return [tag for tag in tags if isinstance(tag, str) and _is_tag(tag)]


def in_order(tags: Iterable[str]) -> tuple[str, ...]:
    """Each tag once, in the one of the specification's two orders that registries have and clients count on: that of ASCII."""
    return tuple(sorted(set(tags)))


def page_of(tags: Sequence[str], count: int | None, last: str | None) -> TagPage:
    """The page of a list `in_order` behind the tag `last`, which need not be in it; all that is left if `count` is None."""
    start = bisect_right(tags, last) if last is not None else 0
    end = len(tags) if count is None else min(start + count, len(tags))
    # An empty page with a link to itself would never end.
    return TagPage(tuple(tags[start:end]), more=start < end < len(tags))


def parse_count(text: str | None) -> int | None:
    """The query parameter `n`; None if it was not given. Raises BadCount."""
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 9:
        raise BadCount(f"n={text[:40]!r} is not a number of tags")
    return int(text)


def parse_referrers(raw: bytes) -> list[dict[str, Any]]:
    """The descriptors of an index of referrers, as the upstream has them. Raises InvalidInput."""
    manifests = json_object(raw, "list of referrers").get("manifests")
    if manifests is None:
        return []
    if not isinstance(manifests, list) or not all(isinstance(descriptor, dict) for descriptor in manifests):
        raise InvalidInput("the list of referrers has no list of descriptors in 'manifests'")
    return manifests


def referrers_page(
    descriptors: Iterable[dict[str, Any]], artifact_type: str | None, last: str | None, largest: int = INDEX_BYTES
) -> ReferrersPage:
    """One page of the referrers, each once: all of them in the upstream's order, if no more than `largest` bytes come of it.

    Else they come in the order of their digests, as many as fit, and at least one. artifact_type: only those of it; None or
    empty: all of them. last: the digest behind which this page begins; it need not be in the list.
    """
    found: dict[str, dict[str, Any]] = {}
    for descriptor in descriptors:
        if not artifact_type or descriptor.get("artifactType") == artifact_type:
            found.setdefault(str(descriptor.get("digest")), descriptor)
    whole = _index(found.values())
    if last is None and len(whole) <= largest:
        return ReferrersPage(whole, None)
    behind = sorted(digest for digest in found if _is_digest(digest) and (last is None or digest > last))
    taken, size = 0, len(_index([]))
    for digest in behind:
        size += len(json.dumps(found[digest])) + len(", ")
        if taken and size > largest:
            break
        taken += 1
    page = _index(found[digest] for digest in behind[:taken])
    return ReferrersPage(page, behind[taken - 1] if taken < len(behind) else None)


def fallback_tag(subject: Digest) -> str:
    """The tag under which registries without the referrers API keep the list ("Referrers Tag Schema")."""
    return f"{subject.algorithm[:32]}-{subject.hex[:64]}"


def _index(descriptors: Iterable[dict[str, Any]]) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(descriptors)}).encode()


def _is_digest(text: str) -> bool:
    algorithm, _, digits = text.partition(":")
    return is_digest(algorithm, digits)


def _is_tag(text: str) -> bool:
    try:
        check_tag(text)
    except InvalidInput:
        return False
    return True
