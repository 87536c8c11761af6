"""Content digests: `algorithm:hex` (OCI image specification, descriptor.md, section "Digests")."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mirror.errors import InvalidInput

if TYPE_CHECKING:
    from hashlib import _Hash

_HEX_LENGTH = {"sha256": 64, "sha512": 128}
_LOWER_HEX = re.compile(r"[0-9a-f]+", re.ASCII)


ALGORITHMS = tuple(_HEX_LENGTH)
"""Those that are understood."""


def is_digest(algorithm: str, digits: str) -> bool:
    """Whether the two are the halves of a digest."""
    return len(digits) == _HEX_LENGTH.get(algorithm) and _LOWER_HEX.fullmatch(digits) is not None


@dataclass(frozen=True, slots=True)
class Digest:
    """A registered content digest, sha256 or sha512, with lower-case hexadecimal digits."""

    algorithm: str
    hex: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read `sha256:<64 hex>` or `sha512:<128 hex>`. Raises InvalidInput for anything else."""
        algorithm, colon, digits = text.partition(":")
        length = _HEX_LENGTH.get(algorithm)
        if not colon or length is None:
            raise InvalidInput(f"'{text[:200]}' is not a digest: expected sha256:<64 hex digits> or sha512:<128 hex digits>")
        if not is_digest(algorithm, digits):
            raise InvalidInput(f"'{text[:200]}' is not a digest: {algorithm} takes {length} lower-case hex digits")
        return cls(algorithm, digits)

    @classmethod
    def of(cls, data: bytes, algorithm: str = "sha256") -> Digest:
        """The digest of these bytes."""
        return cls(algorithm, hashlib.new(algorithm, data, usedforsecurity=False).hexdigest())

    def hasher(self) -> _Hash:
        """A fresh hash object of this digest's algorithm, to be fed with the content."""
        return hashlib.new(self.algorithm, usedforsecurity=False)

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"
