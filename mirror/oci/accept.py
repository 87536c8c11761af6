"""Which media types a client takes, as the header `Accept` says it. Pure.

Sources: RFC 9110, sections 5.6.1, 5.6.6 and 12.5.1; OCI distribution specification 1.1, "Pulling manifests" ("The client SHOULD
include an Accept header indicating which manifest content types it supports"). Clients send one line or one for each type.

What registries make of it differs: distribution gives who does not take Docker's lists a list's image for linux/amd64, and 404 to
who does not take OCI's types; others give what there is. So the upstream itself has to be asked, with one of a few values.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from mirror.oci.manifest import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST

MANIFEST_TYPES = (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST)
"""Of which an upstream can be asked for some, most wanted first."""
EVERYTHING = ", ".join((*MANIFEST_TYPES, "*/*;q=0.1"))
"""What an upstream is asked for on behalf of all clients."""

LONGEST = 2048
"""Characters of a header that is read; what real clients send has a quarter of that."""
MOST_RANGES = 50

_MEMBER = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*"?)+', re.DOTALL)
_PARAMETER = re.compile(r';((?:[^;"]|"(?:[^"\\]|\\.)*"?)*)', re.DOTALL)
_WORD = r"[!#$%&'*+.^_`|~0-9a-z-]+"
_RANGE = re.compile(rf"({_WORD})/({_WORD})", re.ASCII)
_WEIGHT = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Accept:
    """What a client takes."""

    ranges: Mapping[str, bool]
    """Media types, `type/*` and `*/*`, in lower case: whether each is taken, or with a weight of zero refused."""
    asks_for: str
    """The value to ask an upstream with, if what is known will not do: those of MANIFEST_TYPES that are taken."""

    def takes(self, media_type: str) -> bool:
        """Whether a manifest of this type is taken: what the most specific range says (RFC 9110, section 12.5.1)."""
        ranges = self.ranges
        for media_range in (media_type, f"{media_type.partition('/')[0]}/*", "*/*"):
            taken = ranges.get(media_range)
            if taken is not None:
                return taken
        return False


ANYTHING = Accept({"*/*": True}, EVERYTHING)
"""Of clients that send no such header, or one that is of no use: they take what there is."""


def parse_accept(lines: Iterable[str]) -> Accept:
    """What a client takes. lines: values of the header.

    Nothing is refused: a header that is too long, or takes none of MANIFEST_TYPES, is as good as none (RFC 9110, section 12.4.1:
    it may be disregarded), and members that make no sense are passed over.
    """
    text = ",".join(lines)
    return _parsed(text) if text and len(text) <= LONGEST else ANYTHING


@lru_cache(maxsize=1024)
def _parsed(text: str) -> Accept:
    ranges: dict[str, bool] = {}
    for member in _MEMBER.findall(text):
        media_range, taken = _read(member)
        if media_range:
            # Where one is named twice, the kinder one counts: with other parameters it may mean something else.
            ranges[media_range] = taken or ranges.get(media_range, False)
    if not 0 < len(ranges) <= MOST_RANGES:
        return ANYTHING
    accept = Accept(ranges, "")
    taken_types = [media_type for media_type in MANIFEST_TYPES if accept.takes(media_type)]
    return Accept(ranges, ", ".join(taken_types)) if taken_types else ANYTHING


def _read(member: str) -> tuple[str, bool]:
    """A media range, empty if it is none, and whether it has a weight above zero. A weight that makes no sense is none."""
    media_range = member.partition(";")[0].strip().lower()
    match = _RANGE.fullmatch(media_range)
    if match is None or (match[1] == "*" and match[2] != "*"):
        return "", False
    weight = 1.0
    for parameter in _PARAMETER.findall(member):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q" and _WEIGHT.fullmatch(value.strip()):
            weight = float(value)
    return media_range, weight > 0
