"""How the content of an upstream is read for a request: what everybody may see, and what needs a client's own credential.

The two never meet: what is private has caches, memories and a store of its own, one of each for an upstream. So nothing that was
read with a credential can reach anybody through a digest, a tag, a transfer under way or a manifest of another repository.
"""

from __future__ import annotations

from dataclasses import dataclass

from mirror.fetch.blobs import BlobFetcher
from mirror.fetch.listings import Listings
from mirror.fetch.manifests import ManifestFetcher
from mirror.upstream.client import UpstreamClient


@dataclass(frozen=True, slots=True)
class Way:
    """To one upstream."""

    client: UpstreamClient
    """With the rights that are used."""
    manifests: ManifestFetcher
    blobs: BlobFetcher
    listings: Listings
    is_private: bool = False
    """What comes this way is for nobody else: not for hints, memories of answers, or the publisher."""
