"""The manifest `.cvmfspublished`: what the current revision is. Repository format, section 3."""

from __future__ import annotations

from dataclasses import dataclass, field

from mirror.errors import InvalidInput
from publisher.cvmfs.hash import ContentHash
from publisher.errors import RepositoryDamaged

MANIFEST_NAME = ".cvmfspublished"

_ROOT_PATH_MD5 = "d41d8cd98f00b204e9800998ecf8427e"
_KNOWN = "CBRDSGANXHTMY"


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryManifest:
    """The manifest's fields; the letters are those of the file."""

    root: ContentHash
    """C: hash of the root catalog."""
    catalog_size: int | None
    """B: bytes of the root catalog's database, uncompressed."""
    ttl: int
    """D: seconds after which clients look for a new revision; they take it from the root catalog, which says the same."""
    revision: int
    """S."""
    fqrn: str
    """N."""
    certificate: ContentHash
    """X."""
    garbage_collectable: bool = False
    """G."""
    history: ContentHash | None = None
    """H: database of named snapshots; None if there are none."""
    timestamp: int = 0
    """T: Unix seconds of publication."""
    metainfo: ContentHash | None = None
    """M."""
    reflog: ContentHash | None = None
    """Y: hash of the reference log as it was when this was published."""
    others: tuple[tuple[str, str], ...] = field(default=())
    """Fields that are not ours, kept as they came."""

    @classmethod
    def parse(cls, payload: bytes) -> RepositoryManifest:
        """Read the payload of the signed file. Raises RepositoryDamaged."""
        fields = {line[:1]: line[1:] for line in payload.decode("utf-8", "replace").splitlines() if line}
        try:
            return cls(
                root=ContentHash.parse(fields["C"]),
                catalog_size=int(fields["B"]) if "B" in fields else None,
                ttl=int(fields["D"]),
                revision=int(fields["S"]),
                fqrn=fields["N"],
                certificate=ContentHash.parse(fields["X"]),
                garbage_collectable=fields.get("G") == "yes",
                history=_optional(fields.get("H")),
                timestamp=int(fields.get("T", "0")),
                metainfo=_optional(fields.get("M")),
                reflog=_optional(fields.get("Y")),
                others=tuple((key, value) for key, value in fields.items() if key not in _KNOWN),
            )
        except (KeyError, ValueError, InvalidInput) as error:
            raise RepositoryDamaged(f"{MANIFEST_NAME} lacks a field or has a broken one: {error}") from error

    def payload(self) -> bytes:
        """The lines to be signed, in the order of the reference."""
        fields: list[tuple[str, object]] = [("C", self.root)]
        if self.catalog_size is not None:
            fields.append(("B", self.catalog_size))
        fields += [("R", _ROOT_PATH_MD5), ("D", self.ttl), ("S", self.revision)]
        fields += [("G", "yes" if self.garbage_collectable else "no"), ("A", "no"), ("N", self.fqrn), ("X", self.certificate)]
        fields += [("H", self.history)] if self.history else []
        fields.append(("T", self.timestamp))
        fields += [("M", self.metainfo)] if self.metainfo else []
        fields += [("Y", self.reflog)] if self.reflog else []
        fields += self.others
        return "".join(f"{key}{value}\n" for key, value in fields).encode()


def _optional(text: str | None) -> ContentHash | None:
    return ContentHash.parse(text) if text else None
