"""What the hub of a soak test has: images that stay, images that are pulled while they are new, and tags that move."""

from __future__ import annotations

import json
import random
from collections import deque
from dataclasses import dataclass, field

from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_MANIFEST
from tests.support.faulty_registry import FaultyRegistry

CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
_KIB = 1024


@dataclass(frozen=True)
class Image:
    repository: str
    tag: str
    manifest: bytes
    blobs: tuple[Digest, ...]

    @property
    def digest(self) -> Digest:
        return Digest.of(self.manifest)


@dataclass
class Content:
    """Puts images into a hub, and remembers all that was ever right."""

    hub: FaultyRegistry
    dice: random.Random
    fresh_bytes: int
    """How much may be made anew in all; what a disk of the mirror's has room for."""
    lasting: list[Image] = field(default_factory=list)
    fresh: deque[Image] = field(default_factory=lambda: deque(maxlen=8))
    ever: dict[tuple[str, str], set[bytes]] = field(default_factory=dict)
    """All manifests that a tag ever led to, by repository and tag."""
    every: list[Image] = field(default_factory=list)
    made: int = 0

    def add_lasting(self, count: int) -> None:
        for number in range(count):
            self.lasting.append(
                self._image(f"team/app-{number % 5}", f"v{number}", [self.dice.choice((7, 300, 1500)) * _KIB, 5000])
            )

    def make_fresh(self) -> Image | None:
        """A new image, or None when there have been enough."""
        size = self.dice.choice((20, 200, 600)) * _KIB
        if self.made + size > self.fresh_bytes:
            return None
        self.made += size
        image = self._image("fresh/app", f"f{self.made}", [size])
        self.fresh.append(image)
        return image

    def move_a_tag(self) -> None:
        """One of the lasting images has other content from now on."""
        place = self.dice.randrange(len(self.lasting))
        old = self.lasting[place]
        self.lasting[place] = self._image(old.repository, old.tag, [9 * _KIB])

    def data(self, digest: Digest) -> bytes:
        return self.hub.blobs[str(digest)]

    def _image(self, repository: str, tag: str, sizes: list[int]) -> Image:
        config = json.dumps({"os": "linux", "architecture": "amd64", "number": self.dice.random()}).encode()
        parts = [(CONFIG_TYPE, config), *((LAYER_TYPE, self.dice.randbytes(size)) for size in sizes)]
        first, *rest = (
            {"mediaType": media_type, "digest": str(self.hub.add_blob(data)), "size": len(data)} for media_type, data in parts
        )
        document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": first, "layers": rest}
        raw = json.dumps(document, indent=1).encode()
        self.hub.add_manifest(repository, tag, raw)
        self.ever.setdefault((repository, tag), set()).add(raw)
        image = Image(repository, tag, raw, tuple(Digest.of(data) for _, data in parts))
        self.every.append(image)
        return image
