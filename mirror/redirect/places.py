"""Places that clients can be sent to, and which of them a client is sent to first. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from mirror.jobs.packed_layers import PackedCopy
from mirror.oci.digest import Digest


class Addresses(Protocol):
    """A set of IP addresses."""

    def __contains__(self, address: str, /) -> bool:
        """Whether a text is an address of the set."""


@dataclass(frozen=True, slots=True)
class Place:
    """A web server, or a bucket, that holds CVMFS repositories.

    name: in logs. url: a repository's files are below `<url>/<fqrn>/`. clients: addresses that it is for; None: all.
    """

    name: str
    url: str
    clients: Addresses | None = None

    def address(self, fqrn: str, file: str) -> str:
        """The URL of a repository's file."""
        return f"{self.url}/{fqrn}/{file}"

    def address_of(self, copy: PackedCopy) -> str:
        """The URL of a blob."""
        return self.address(copy.fqrn, copy.object)


def in_order(places: Iterable[Place], client: str, digest: Digest) -> list[Place]:
    """Places for a client, the best first: those that are for its address, then those for everybody.

    Among equals the order comes from the client and the blob (rendezvous hashing): the load is spread, a client that asks again
    is sent to the same place, and where a place is lost only its own clients move. client: an IP address.
    """

    def rank(place: Place) -> tuple[bool, bytes]:
        weight = hashlib.blake2b(f"{place.name} {client} {digest}".encode(), digest_size=8)
        return place.clients is None, weight.digest()

    return sorted((place for place in places if place.clients is None or client in place.clients), key=rank)
