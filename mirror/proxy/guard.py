"""Who may use this mirror at all, before anything else is done for a request: addresses, users, and how much each may ask for.

| path                  | address must be allowed | user must be known, if there are users |
|-----------------------|-------------------------|----------------------------------------|
| /v2/...               | yes                     | yes                                    |
| /_debark/, /metrics   | yes                     | no: what is in /cvmfs is no secret     |
| /cvmfs/               | yes                     | no: CVMFS clients have no credentials  |
| /healthz, /readyz     | no                      | no                                     |
"""

from __future__ import annotations

from dataclasses import dataclass

import structlog
from aiohttp import web

from mirror.errors import Denied, Unauthenticated
from mirror.proxy.basic import read_basic
from mirror.proxy.client_address import AddressRanges, client_address
from mirror.proxy.client_limits import ClientGate
from mirror.proxy.exchange import Exchange
from mirror.proxy.passwords import PasswordFile
from mirror.proxy.tokens import TokenVerifier

log = structlog.get_logger()

EVERYBODY = NOBODY = AddressRanges()
"""What a set without addresses means: no bound where clients are allowed, nobody where proxies are trusted."""


@dataclass(frozen=True, slots=True)
class Guard:
    """Lets requests in, or raises Denied, Unauthenticated, TooManyRequests, Unavailable."""

    gate: ClientGate
    allowed: AddressRanges = EVERYBODY
    """Addresses that may ask; empty: all."""
    proxies: AddressRanges = NOBODY
    """Whose `X-Forwarded-For` is believed."""
    passwords: PasswordFile | None = None
    tokens: TokenVerifier | None = None

    async def identify(self, request: web.BaseRequest, exchange: Exchange) -> str:
        """Note who asks, by address and, where users are known, by name; what of both its requests are counted by."""
        exchange.client = address = self._address(request)
        if self.allowed and address not in self.allowed:
            raise Denied(f"this mirror does not serve {address}; its operator can allow the address (access.allow)")
        if self._knows_users and request.path.startswith("/v2"):
            exchange.user = await self._user(request.headers.get("Authorization", ""))
        return exchange.user or address

    def _address(self, request: web.BaseRequest) -> str:
        peer = request.remote or ""
        return client_address(peer, request.headers.getall("X-Forwarded-For", ()), self.proxies) if self.proxies else peer

    @property
    def _knows_users(self) -> bool:
        return self.passwords is not None or self.tokens is not None

    async def _user(self, authorization: str) -> str:
        """The name of who asks."""
        scheme, _, value = authorization.partition(" ")
        if not scheme:
            raise Unauthenticated("this mirror wants a user name and a password or token")
        user = self._of_token(value.strip()) if scheme.lower() == "bearer" else await self._of_password(scheme, value.strip())
        if user is None:
            raise Unauthenticated("the user name and password, or the token, are not right for this mirror")
        return user

    async def _of_password(self, scheme: str, value: str) -> str | None:
        user, password = read_basic(value) if scheme.lower() == "basic" else ("", "")
        if self.passwords is not None and user and await self.passwords.verify(user, password):
            return user
        return self._of_token(password)

    def _of_token(self, token: str) -> str | None:
        return self.tokens.user(token) if self.tokens is not None and token else None
