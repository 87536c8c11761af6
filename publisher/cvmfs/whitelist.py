"""The whitelist `.cvmfswhitelist`: which certificates may sign the manifest, until when. Repository format, section 3.2."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from publisher.cvmfs.hash import ContentHash, HashAlgorithm
from publisher.errors import RepositoryDamaged

WHITELIST_NAME = ".cvmfswhitelist"

_TIME = "%Y%m%d%H%M%S"
_FINGERPRINT = re.compile(r"((?:[0-9A-F]{2}:){19}[0-9A-F]{2})(-RMD160|-SHAKE128|)(?:[ \t#].*)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Whitelist:
    """The signed lines. Times are aware and in UTC."""

    issued: datetime
    expires: datetime
    fqrn: str
    fingerprints: tuple[ContentHash, ...]
    """Hashes of certificates in DER form."""

    @classmethod
    def parse(cls, payload: bytes) -> Whitelist:
        """Read the payload of the signed file. Raises RepositoryDamaged."""
        lines = payload.decode("utf-8", "replace").splitlines()
        try:
            issued, expiry, name, *rest = lines
            if expiry[:1] != "E" or name[:1] != "N":
                raise ValueError(f"unexpected lines {expiry!r}, {name!r}")
            fingerprints = tuple(_fingerprint(line) for line in rest if line[:1] not in {"V", "W", ""})
            return cls(_time(issued), _time(expiry[1:]), name[1:], fingerprints)
        except ValueError as error:
            raise RepositoryDamaged(f"{WHITELIST_NAME} is malformed: {error}") from error

    def payload(self) -> bytes:
        """The lines to be signed."""
        lines = [self.issued.strftime(_TIME), "E" + self.expires.strftime(_TIME), "N" + self.fqrn]
        lines += [fingerprint_text(fingerprint) for fingerprint in self.fingerprints]
        return "".join(line + "\n" for line in lines).encode("ascii")

    def is_valid_at(self, now: datetime) -> bool:
        """Whether clients accept it: they compare with the expiry rounded down to the hour."""
        return now < self.expires.replace(minute=0, second=0, microsecond=0)


def fingerprint_text(fingerprint: ContentHash) -> str:
    """Upper-case hex pairs separated by colons, as whitelists show a certificate's hash."""
    return fingerprint.value.hex(":").upper() + fingerprint.algorithm.marker.upper()


def _fingerprint(line: str) -> ContentHash:
    match = _FINGERPRINT.fullmatch(line)
    if match is None:
        raise ValueError(f"{line!r} is not a fingerprint")
    algorithms = {"": HashAlgorithm.SHA1, "-RMD160": HashAlgorithm.RIPEMD160, "-SHAKE128": HashAlgorithm.SHAKE128}
    return ContentHash(bytes.fromhex(match[1].replace(":", "")), algorithms[match[2]])


def _time(text: str) -> datetime:
    return datetime.strptime(text, _TIME).replace(tzinfo=UTC)
