"""Names of objects and of the few other files of a repository's storage. Repository format, section 2. Pure."""

from __future__ import annotations

import re

from mirror.errors import InvalidInput
from publisher.cvmfs.hash import ContentHash, ObjectKind

_OBJECT = re.compile(r"([0-9a-f]{2})/([0-9a-f]{38})(-rmd160|-shake128|)([A-Z]?)", re.ASCII)
_KINDS = {kind.value: kind for kind in ObjectKind}


def parse_object_name(name: str) -> tuple[ContentHash, ObjectKind] | None:
    """What the file `name` (below `data/`, such as `0c/b816...C`) holds; None if it is no object."""
    match = _OBJECT.fullmatch(name)
    if match is None or match[4] not in _KINDS:
        return None
    return ContentHash.parse(match[1] + match[2] + match[3]), _KINDS[match[4]]


def named_file(name: str) -> str:
    """The name of a file in a repository's root, such as `.cvmfspublished`. Raises InvalidInput for what would lead elsewhere."""
    if not name or "/" in name or "\0" in name or name in (".", ".."):
        raise InvalidInput(f"'{name[:80]}' is not the name of a file in a repository's root")
    return name
