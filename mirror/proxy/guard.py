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
from aiohttp.typedefs import Handler, Middleware

from mirror.errors import Denied, Unauthenticated
from mirror.proxy.basic import read_basic
from mirror.proxy.client_address import AddressRanges, client_address
from mirror.proxy.client_limits import ClientGate
from mirror.proxy.exchange import current_exchange
from mirror.proxy.passwords import PasswordFile
from mirror.proxy.tokens import TokenVerifier

log = structlog.get_logger()

EVERYBODY = NOBODY = AddressRanges()
"""What a set without addresses means: no bound where clients are allowed, nobody where proxies are trusted."""
_OPEN = frozenset({"/healthz", "/readyz"})


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

    def middleware(self) -> Middleware:
        """For the application, behind the one that answers errors."""

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.path in _OPEN:
                return await handler(request)
            exchange = current_exchange(request)
            exchange.client = client_address(request.remote or "", request.headers.getall("X-Forwarded-For", []), self.proxies)
            if self.allowed and exchange.client not in self.allowed:
                raise Denied(f"this mirror does not serve {exchange.client}; its operator can allow the address (access.allow)")
            if request.path.startswith("/v2"):
                exchange.user = await self._user(request.headers.get("Authorization", ""))
            client = exchange.user or exchange.client
            self.gate.enter(client)
            try:
                return await handler(request)
            finally:
                self.gate.leave(client)

        return guard

    async def _user(self, authorization: str) -> str:
        """The name of who asks; empty where this mirror knows no users. Raises Unauthenticated."""
        if self.passwords is None and self.tokens is None:
            return ""
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
