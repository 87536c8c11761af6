"""What is known of a SIF file that was unpacked, as the small document that a repository keeps of it."""

from __future__ import annotations

import json
from dataclasses import dataclass

from mirror.errors import InvalidInput
from mirror.jobs.notes import Notes
from mirror.oci.platform import Platform


@dataclass(frozen=True, slots=True)
class SifFacts:
    """Beside the root file system, which cannot tell these."""

    architecture: str
    """In Go's words; empty where the file does not say."""
    size: int
    """Bytes of content, each file counted once."""
    entries: int
    """Names in the tree."""
    notes: Notes
    """What was left out of it or changed in it, by rule."""

    @property
    def platform(self) -> Platform | None:
        """What the image is for; None where the file does not say."""
        return Platform("linux", self.architecture) if self.architecture else None

    def as_json(self) -> bytes:
        """The document."""
        content = {"architecture": self.architecture, "size": self.size, "entries": self.entries, "notes": self.notes.as_dict()}
        return json.dumps(content, indent=2).encode("ascii") + b"\n"

    @classmethod
    def parse(cls, document: bytes) -> SifFacts:
        """What `as_json` wrote. Raises InvalidInput."""
        try:
            content = json.loads(document)
            notes = Notes.of(content.get("notes"))
            return cls(str(content["architecture"]), int(content["size"]), int(content["entries"]), notes)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise InvalidInput(f"the repository's document on a SIF image is damaged: {error}") from error
