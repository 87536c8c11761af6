"""Content hashes of CVMFS objects: always of the stored (compressed) bytes, never of the content.

Format reference: repository format, sections 1 and 2. All hashes are 20 bytes; the algorithm is a marker behind the hex text, the
kind of object a letter behind that.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from enum import Enum, IntEnum

from mirror.errors import InvalidInput

HASH_SIZE = 20


class HashAlgorithm(IntEnum):
    """The value is what catalog flags hold in bits 8 to 10."""

    SHA1 = 0
    RIPEMD160 = 1
    SHAKE128 = 2

    @property
    def marker(self) -> str:
        """The suffix of the textual form; empty for SHA-1."""
        return _MARKERS[self]


_MARKERS = {HashAlgorithm.SHA1: "", HashAlgorithm.RIPEMD160: "-rmd160", HashAlgorithm.SHAKE128: "-shake128"}
_ALGORITHMS = {marker: algorithm for algorithm, marker in _MARKERS.items()}
_LIBRARY_NAMES = {HashAlgorithm.SHA1: "sha1", HashAlgorithm.RIPEMD160: "ripemd160", HashAlgorithm.SHAKE128: "shake_128"}
_TEXT = re.compile(r"([0-9a-f]{40})(-rmd160|-shake128|)", re.ASCII)


class ObjectKind(Enum):
    """The letter that ends an object's file name; it is neither hashed nor stored in manifest, tags or reflog."""

    DATA = ""
    CHUNK = "P"
    CATALOG = "C"
    HISTORY = "H"
    CERTIFICATE = "X"
    METAINFO = "M"


@dataclass(frozen=True, slots=True)
class ContentHash:
    """Hash of an object as it is stored: 20 bytes and their algorithm."""

    value: bytes
    algorithm: HashAlgorithm = HashAlgorithm.SHA1

    @classmethod
    def of(cls, stored: bytes | memoryview, algorithm: HashAlgorithm = HashAlgorithm.SHA1) -> ContentHash:
        """Hash the stored form of an object."""
        if algorithm is HashAlgorithm.SHA1:
            return cls(hashlib.sha1(stored, usedforsecurity=False).digest())
        if algorithm is HashAlgorithm.SHAKE128:
            return cls(hashlib.shake_128(stored, usedforsecurity=False).digest(HASH_SIZE), algorithm)
        return cls(hashlib.new("ripemd160", stored, usedforsecurity=False).digest(), algorithm)

    @classmethod
    def parse(cls, text: str) -> ContentHash:
        """Read 40 lower-case hex digits with an optional algorithm marker. Raises InvalidInput."""
        match = _TEXT.fullmatch(text)
        if match is None:
            raise InvalidInput(f"'{text[:80]}' is not a CVMFS content hash")
        return cls(bytes.fromhex(match[1]), _ALGORITHMS[match[2]])

    def object_path(self, kind: ObjectKind) -> str:
        """Path of the object below the repository's root, such as `data/0c/b816...C`."""
        text = str(self)
        return f"data/{text[:2]}/{text[2:]}{kind.value}"

    def __str__(self) -> str:
        return self.value.hex() + self.algorithm.marker


class ContentHasher:
    """The hash of an object whose stored form comes in pieces."""

    def __init__(self, algorithm: HashAlgorithm) -> None:
        self._algorithm = algorithm
        self._state = hashlib.new(_LIBRARY_NAMES[algorithm], usedforsecurity=False)

    def update(self, piece: bytes | memoryview) -> None:
        """Take the next bytes."""
        self._state.update(piece)

    def result(self) -> ContentHash:
        """The hash of all bytes so far."""
        # SHAKE has a digest of any length, and takes it as an argument that the others do not have.
        length = (HASH_SIZE,) if self._algorithm is HashAlgorithm.SHAKE128 else ()
        return ContentHash(self._state.digest(*length), self._algorithm)
