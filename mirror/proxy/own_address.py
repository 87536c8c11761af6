"""How clients reach this mirror, and whether anybody on the way can read what they send."""

from __future__ import annotations

import ipaddress
import re

from aiohttp import web

from mirror.errors import InvalidInput
from mirror.proxy.client_address import AddressRanges

_HOST = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?", re.ASCII)


def own_url(request: web.Request, public_url: str, proxies: AddressRanges | None = None) -> str:
    """Of this mirror, without a slash at the end. public_url: as configured; empty where the address that was used is good.

    proxies: which say truly whether the client came by TLS; None if that does not matter. What a request says of itself ends in
    files that shells read, and in headers: nothing but a host and a port, or InvalidInput.
    """
    if public_url:
        return public_url
    if not _HOST.fullmatch(request.host):
        raise InvalidInput("the Host header is not a host name with or without port")
    scheme = _forwarded_scheme(request, proxies) if proxies is not None else None
    return f"{scheme or request.scheme}://{request.host}"


def is_confidential(request: web.Request, proxies: AddressRanges) -> bool:
    """Whether passwords may come with this request: by TLS, through a proxy that has it by TLS, or from this machine.

    A proxy is believed if it is among those, or on this machine: what it says wrongly harms who sent the password.
    """
    forwarded = _forwarded_scheme(request, proxies)
    return forwarded == "https" if forwarded is not None else request.secure or _is_loopback(request.remote or "")


def _forwarded_scheme(request: web.Request, proxies: AddressRanges) -> str | None:
    """The scheme, http or https, as a proxy says, http if it says nothing; None if the request came through none."""
    peer = request.remote or ""
    stated = request.headers.getall("X-Forwarded-Proto", [])
    if not (peer in proxies or _is_loopback(peer)) or not (stated or "X-Forwarded-For" in request.headers):
        return None
    return "https" if stated and stated[-1].rpartition(",")[2].strip().lower() == "https" else "http"


def _is_loopback(peer: str) -> bool:
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
