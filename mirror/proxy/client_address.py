"""Who a client is by its address, also behind proxies of the operator's. Pure.

`X-Forwarded-For` is believed only from addresses that the operator trusts, and only as far back as to the first one that is not
trusted: everything before that may be made up.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class AddressRanges:
    """A set of IP addresses."""

    networks: tuple[_Network, ...] = ()

    @classmethod
    def parse(cls, texts: Iterable[str]) -> AddressRanges:
        """Read `10.0.0.0/8`, `192.0.2.7`, `2001:db8::/32`. Raises ValueError."""
        return cls(tuple(ipaddress.ip_network(text, strict=False) for text in texts))

    def __bool__(self) -> bool:
        return bool(self.networks)

    def __contains__(self, address: str) -> bool:
        """Whether a text is an address of the set; an IPv4 address in the form of IPv6 is that IPv4 address."""
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
        return any((mapped or parsed) in network for network in self.networks)


def client_address(peer: str, forwarded_for: Iterable[str], trusted: AddressRanges) -> str:
    """The address of the client. peer: of the connection. forwarded_for: values of `X-Forwarded-For`, in their order."""
    if not trusted:
        return peer
    hops = [hop.strip() for value in forwarded_for for hop in value.split(",")]
    address = peer
    while address in trusted and hops:
        address = _without_port(hops.pop())
    return address


def _without_port(hop: str) -> str:
    """Some proxies add the port: `192.0.2.7:5000`, `[2001:db8::1]:5000`."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop
