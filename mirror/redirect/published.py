"""What a web server says of a repository in `.cvmfspublished`: as much as it takes to tell whether it lags behind. Pure.

Repository format, section 3: lines of a key letter and its value, up to a line of two dashes, behind which the signature is. The
signature is not verified here: a client that is sent for a blob verifies what it gets by the blob's digest.
"""

from __future__ import annotations

from dataclasses import dataclass

from mirror.errors import InvalidInput

FILE = ".cvmfspublished"
LONGEST = 64 << 10
"""Bytes; a real one has below one thousand."""


@dataclass(frozen=True, slots=True)
class Published:
    """Name and revision of a repository, as a server has it."""

    fqrn: str
    revision: int


def parse_published(data: bytes) -> Published:
    """Read the file. Raises InvalidInput."""
    fields: dict[str, str] = {}
    for line in data[:LONGEST].partition(b"\n--")[0].split(b"\n"):
        text = line.decode("ascii", "replace")
        fields[text[:1]] = text[1:]
    revision = fields.get("S", "")
    if not fields.get("N") or not (revision.isascii() and revision.isdigit() and len(revision) <= 20):
        raise InvalidInput(f"{FILE} names no repository or no revision")
    return Published(fields["N"], int(revision))
