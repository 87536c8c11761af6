"""The signed text form that manifest and whitelist share: payload, hash line, signature. Repository format, section 3.1."""

from __future__ import annotations

from dataclasses import dataclass

from mirror.errors import InvalidInput
from publisher.cvmfs.hash import ContentHash
from publisher.errors import RepositoryDamaged

_SEPARATOR = b"--\n"


@dataclass(frozen=True, slots=True)
class Letter:
    """Payload with its hash and a signature over the hash's text."""

    payload: bytes
    """All lines, the last newline included."""
    content: ContentHash
    """Hash of the payload; what is signed is its text."""
    signature: bytes

    @property
    def signed_text(self) -> bytes:
        """The bytes that the signature covers."""
        return str(self.content).encode("ascii")

    @classmethod
    def parse(cls, data: bytes, name: str) -> Letter:
        """Take a letter apart and compare its hash line. Raises RepositoryDamaged naming the file `name`."""
        position = 0 if data.startswith(_SEPARATOR) else data.find(b"\n" + _SEPARATOR) + 1
        if position == 0:
            raise RepositoryDamaged(f"{name} has no signature block", name)
        payload = data[:position]
        line, newline, signature = data[position + len(_SEPARATOR) :].partition(b"\n")
        try:
            stated = ContentHash.parse(line.decode("ascii", "replace"))
        except InvalidInput as error:
            raise RepositoryDamaged(f"{name} has no hash line: {error}", name) from error
        if not newline or ContentHash.of(payload, stated.algorithm) != stated:
            raise RepositoryDamaged(f"{name} is not what its own hash line says; it was cut or changed", name)
        return cls(payload, stated, signature)


def unsigned(payload: bytes) -> Letter:
    """A letter that still needs its signature."""
    return Letter(payload, ContentHash.of(payload), b"")


def serialise(letter: Letter, signature: bytes) -> bytes:
    """The file's bytes, which end with the signature."""
    return letter.payload + _SEPARATOR + letter.signed_text + b"\n" + signature
