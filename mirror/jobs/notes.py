"""What unpacking left out of an image or changed in it, by rule, counted: the publisher's word to the image's users. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

_WORDS = {
    "devices_dropped": "device nodes left out",
    "capabilities_dropped": "files whose capabilities were left out",
    "xattrs_dropped": "extended attributes left out",
    "names_dropped": "files left out whose names mean something to CVMFS or aufs",
    "setuid_dropped": "files that lost set-user-ID or set-group-ID",
    "setuid_kept": "files with set-user-ID or set-group-ID, as in the image",
    "capabilities_kept": "files with capabilities, as in the image",
    "access_added": "files and directories that their owner may now read and write",
}


@dataclass(frozen=True, slots=True)
class Notes:
    """Of a layer, or the sum over an image's layers, what upper layers hide included."""

    devices_dropped: int = 0
    """Character and block devices, with their hard links."""
    capabilities_dropped: int = 0
    """Files whose `security.capability` was left out."""
    capabilities_kept: int = 0
    """Files that have it still."""
    xattrs_dropped: int = 0
    """Other extended attributes: not `user.*`, or of overlay drivers, or such as do not fit a catalog."""
    names_dropped: int = 0
    """Members whose names mean something to CVMFS or to aufs, such as `.cvmfscatalog`."""
    setuid_dropped: int = 0
    """Files that lost the set-user-ID bit, the set-group-ID bit, or both."""
    setuid_kept: int = 0
    """Files that have them still."""
    access_added: int = 0
    """Files without u+rw and directories without u+rwx: in the root file system, not in the layer, they have it."""

    def __add__(self, other: Notes) -> Notes:
        mine, others = asdict(self), asdict(other)
        return Notes(**{name: mine[name] + others[name] for name in mine})

    @property
    def left_out(self) -> bool:
        """Whether something of the image is not there."""
        return any(name.endswith("_dropped") for name in self.as_dict())

    def as_dict(self) -> dict[str, int]:
        """What there is to say, by name; empty if nothing is."""
        return {name: count for name, count in asdict(self).items() if count}

    def as_json(self) -> str:
        """The same as a JSON object."""
        return json.dumps(self.as_dict())

    @classmethod
    def of(cls, document: Any) -> Notes:
        """From such an object; what a later version may have added, or somebody else wrote there, is passed over."""
        if not isinstance(document, Mapping):
            return cls()
        known = {field.name for field in fields(cls)}
        return cls(**{name: count for name, count in document.items() if name in known and _is_count(count)})

    @classmethod
    def parse(cls, text: str) -> Notes:
        """The same from a JSON text."""
        try:
            return cls.of(json.loads(text))
        except (ValueError, RecursionError):
            return cls()

    def words(self) -> str:
        """For people, one line; empty if there is nothing to say."""
        counts = self.as_dict()
        return "; ".join(f"{counts[name]} {words}" for name, words in _WORDS.items() if name in counts)


NO_NOTES = Notes()


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
