"""Which addresses an upstream may send us to. Pure but for the list of public suffixes, which comes with its library.

An upstream answers with redirects (to its object store) and with the address of its token service. Both are only followed to its
own host, to a host of the same registrable site, or to one that the operator listed; and only by TLS, unless the upstream itself
has none. Addresses that a name resolves to are checked where connections are made (`mirror.upstream.session`).
"""

from __future__ import annotations

import ipaddress
from fnmatch import fnmatchcase
from functools import lru_cache

from publicsuffixlist import PublicSuffixList
from yarl import URL

from mirror.errors import Denied
from mirror.upstream.model import Upstream

_CARRYING_IPV4 = (ipaddress.IPv6Network("::/96"), ipaddress.IPv6Network("64:ff9b::/96"))
"""IPv4-compatible addresses and those of translators (RFC 4291, section 2.5.5.1; RFC 6052): in the last 32 bits."""
_LOCAL_TRANSLATION = ipaddress.IPv6Network("64:ff9b:1::/48")
"""Of translators into a private network (RFC 8215)."""


def check_redirect(upstream: Upstream, target: URL) -> None:
    """Raise Denied unless the upstream may redirect a request to this address."""
    _check(upstream, target, "redirects to", plain_elsewhere=True)


def check_realm(upstream: Upstream, realm: URL) -> None:
    """Raise Denied unless the upstream's token service may be at this address: credentials go there."""
    _check(upstream, realm, "keeps its token service at", plain_elsewhere=False)


def matches(pattern: str, url: URL) -> bool:
    """Whether a pattern of trusted hosts covers the host (and port, if the pattern has one) of the URL."""
    host = (url.host or "").lower()
    wanted = pattern.lower()
    return fnmatchcase(host, wanted) or fnmatchcase(f"{host}:{url.port}", wanted)


def is_public_address(text: str) -> bool:
    """Whether an IP address is one of the public Internet: not loopback, link-local, private, shared, multicast or reserved."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        if address in _LOCAL_TRANSLATION:
            return False
        embedded = address.ipv4_mapped or address.sixtofour
        if embedded is None and any(address in network for network in _CARRYING_IPV4):
            embedded = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if embedded is not None:
            return embedded.is_global and not embedded.is_multicast
    return address.is_global and not address.is_multicast


def _check(upstream: Upstream, target: URL, does: str, *, plain_elsewhere: bool) -> None:
    own = upstream.url
    shown = f"{target.scheme}://{target.host}:{target.port}"
    if target.scheme not in ("http", "https") or not target.host:
        raise Denied(f"upstream {upstream.name} {does} something that is no web address")
    same_host = target.host == own.host
    if target.user is not None or target.password is not None:
        raise Denied(f"upstream {upstream.name} {does} {shown} with a user name of its own")
    if target.scheme == "http" and not (own.scheme == "http" and (same_host or plain_elsewhere)):
        raise Denied(f"upstream {upstream.name} {does} {shown}, which is not encrypted")
    if same_host:
        return
    if not (any(matches(pattern, target) for pattern in upstream.trusted_hosts) or _same_site(own.host or "", target.host)):
        raise Denied(
            f"upstream {upstream.name} {does} {shown}, which is not one of its trusted hosts; "
            f"if it is right, add '{target.host}' to the trusted_hosts of {upstream.name}"
        )
    if _is_address(target.host) and not is_public_address(target.host) and not upstream.allow_private_addresses:
        raise Denied(
            f"upstream {upstream.name} {does} {shown}, which is not a public address; "
            f"if it is right, set allow_private_addresses for {upstream.name}"
        )


def _same_site(one: str, other: str) -> bool:
    if _is_address(one) or _is_address(other):
        return False
    site = _suffixes().privatesuffix(one.lower())
    return site is not None and site == _suffixes().privatesuffix(other.lower())


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


@lru_cache(maxsize=1)
def _suffixes() -> PublicSuffixList:
    return PublicSuffixList()
