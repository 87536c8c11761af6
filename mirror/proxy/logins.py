"""Clients' own credentials: how they are asked for, taken, and bound to what they are for.

    GET  /v2/               401, Bearer realm="<mirror>/_debark/v1/token",service="debark/<upstream>"
    GET  /_debark/v1/token  without credentials a token that stands for nobody; with Basic the credential, sealed
    POST /_debark/v1/token  the same by grant_type=password, or refresh_token for an identity token

Sources: the distribution project's "Token Authentication Specification" and "Oauth2 Token Authentication"; RFC 6749, 4.3 and 6.
A credential is only ever used at the upstream that the request names, and, from a token, only for repositories that were named
when the token was asked for. A user name may be written `<upstream>/<user>`: then it is good for that upstream and no other.
The mirror cannot tell by itself whether a password is right: the upstream says so at the first pull.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from aiohttp import web

from mirror.errors import Denied, InvalidInput, NotFound, Unauthenticated
from mirror.oci.reference import RepositoryName, canonical_registry
from mirror.proxy.basic import read_basic
from mirror.proxy.client_address import AddressRanges
from mirror.proxy.exchange import current_exchange
from mirror.proxy.own_address import is_confidential, own_url
from mirror.proxy.routes import UpstreamNames
from mirror.proxy.seal import Seal
from mirror.proxy.visitor import ANYBODY, Visitor
from mirror.report.accesslog import RequestKind
from mirror.upstream.credentials import as_credential
from mirror.upstream.model import Credential

TOKEN_PATH = "/_debark/v1/token"  # noqa: S105 - a path
ANONYMOUS_TOKEN = "anonymous"  # noqa: S105 - it is no secret
ANONYMOUS = f"Bearer {ANONYMOUS_TOKEN}"
"""The `Authorization` of clients that asked for a token without a credential."""

_SERVICE = "debark"
_FORM_SECONDS = 10.0
_MAX_USER, _MAX_SECRET, _MAX_SCOPES = 255, 4096, 16
"""Characters, so that a token fits into a header."""


@dataclass(frozen=True, slots=True)
class _Given:
    """A credential, and the only upstream that it is for, if its owner said so."""

    credential: Credential
    upstream: str | None


@dataclass(frozen=True, slots=True)
class Logins:
    """For upstreams that clients' credentials are passed to."""

    upstreams: UpstreamNames
    passing: frozenset[str]
    """Names of those upstreams."""
    seal: Seal
    seconds: int
    """How long a token is good."""
    public_url: str = ""
    """Where clients find this mirror; empty where the address that they used is good."""
    proxies: AddressRanges = field(default_factory=AddressRanges)
    """Which say truly whether a client came by TLS."""

    def routes(self) -> list[web.RouteDef]:
        """To be mounted at the server's root."""
        return [web.get(TOKEN_PATH, self.token), web.post(TOKEN_PATH, self.token)]

    def greet(self, request: web.Request) -> None:
        """`GET /v2/`, by which clients learn how to log in. Raises Unauthenticated for who has not, or not rightly."""
        if not is_confidential(request, self.proxies):
            return
        scheme, value = _authorization(request)
        is_known = (scheme == "bearer" and (value == ANONYMOUS_TOKEN or self.seal.open(value) is not None)) or (
            scheme == "basic" and read_basic(value)[0]
        )
        if not is_known:
            challenge = self._challenge(request, self.upstreams.at(request.host).default, "")
            raise Unauthenticated("get a token first, with or without a user name and password", challenge)

    def visitor(self, request: web.Request, name: RepositoryName) -> Visitor:
        """Who asks for something of this repository. Raises Denied for a password that others could read on its way."""
        if name.registry not in self.passing:
            return ANYBODY
        address = current_exchange(request).client
        if not is_confidential(request, self.proxies):
            if _authorization(request)[0] == "basic":
                raise Denied("this mirror takes user names and passwords over TLS only")
            return Visitor(address)
        challenge = self._challenge(request, name.registry, _path_of(request))
        return Visitor(address, self._credential(request, name), challenge)

    async def token(self, request: web.Request) -> web.Response:
        """A token for the credential that comes with the request, or for nobody."""
        current_exchange(request).kind = RequestKind.STATUS
        form = await _form(request) if request.method == "POST" else None
        given = self._given_by_form(form) if form is not None else self._given_by_header(request)
        if given is not None and not is_confidential(request, self.proxies):
            raise Denied("this mirror takes user names and passwords over TLS only")
        asked = form or {key: " ".join(request.query.getall(key)) for key in request.query}
        token = ANONYMOUS_TOKEN
        if given is not None:
            names = self._names(request, asked.get("service", ""), asked.get("scope", "").split())
            wanted = {str(name) for name in names if name.registry in self.passing and given.upstream in (None, name.registry)}
            token = self.seal.close(given.credential, wanted)
        document = {"token": token, "access_token": token, "expires_in": self.seconds}
        return web.json_response(document, headers={"Cache-Control": "no-store"})

    def _credential(self, request: web.Request, name: RepositoryName) -> Credential | None:
        scheme, value = _authorization(request)
        if scheme == "basic":
            given = self._given_by_header(request)
            return given.credential if given is not None and given.upstream in (None, name.registry) else None
        sealed = self.seal.open(value) if scheme == "bearer" and value != ANONYMOUS_TOKEN else None
        return sealed.credential if sealed is not None and str(name) in sealed.names else None

    def _given_by_header(self, request: web.Request) -> _Given | None:
        scheme, value = _authorization(request)
        user, password = read_basic(value) if scheme == "basic" else ("", "")
        return self._given(user, password) if user and password else None

    def _given_by_form(self, form: dict[str, str]) -> _Given | None:
        match form.get("grant_type"):
            case "password":
                return self._given(form.get("username", ""), form.get("password", ""))
            case "refresh_token":
                return self._given("<token>", form.get("refresh_token", ""))
            case _:
                raise InvalidInput("grant_type is neither password nor refresh_token")

    def _given(self, user: str, secret: str) -> _Given:
        if not user or not secret or len(user) > _MAX_USER or len(secret) > _MAX_SECRET:
            raise InvalidInput(f"a user name of 1 to {_MAX_USER} and a password of 1 to {_MAX_SECRET} characters are expected")
        before, slash, after = user.partition("/")
        upstream = self.upstreams.canonical.get(canonical_registry(before)) if slash and after else None
        return _Given(as_credential(user if upstream is None else after, secret), upstream)

    def _challenge(self, request: web.Request, upstream: str, path: str) -> str:
        """path: of the repository, as the client wrote it; checked before, so that it needs no quoting."""
        url = own_url(request, self.public_url, self.proxies)
        scope = f',scope="repository:{path}:pull"' if path else ""
        return f'Bearer realm="{url}{TOKEN_PATH}",service="{_SERVICE}/{upstream}"{scope}'

    def _names(self, request: web.Request, service: str, scopes: Iterable[str]) -> list[RepositoryName]:
        """The repositories that scopes such as `repository:ghcr.io/team/app:pull` name.

        service: as it was in the challenge: it says which upstream is meant where the path does not, whatever the host.
        """
        named = self.upstreams.canonical.get(service.removeprefix(f"{_SERVICE}/"))
        found = []
        for scope in list(scopes)[:_MAX_SCOPES]:
            kind, _, rest = scope.partition(":")
            if kind == "repository":
                try:
                    found.append(self.upstreams.at(request.host).resolve(rest.rpartition(":")[0], named))
                except (InvalidInput, NotFound):
                    continue
        return found


def _authorization(request: web.Request) -> tuple[str, str]:
    """Scheme in lower case, and value."""
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    return scheme.lower(), value.strip()


def _path_of(request: web.Request) -> str:
    """What is between `/v2/` and the endpoint."""
    return request.match_info["path"].rpartition("/")[0].rpartition("/")[0]


async def _form(request: web.Request) -> dict[str, str]:
    """Raises InvalidInput."""
    if request.content_type != "application/x-www-form-urlencoded":
        raise InvalidInput("a form is expected: application/x-www-form-urlencoded")
    try:
        async with asyncio.timeout(_FORM_SECONDS):
            fields = await request.post()
    except TimeoutError as error:
        raise InvalidInput(f"the form did not come within {_FORM_SECONDS:g} s") from error
    return {key: value for key, value in fields.items() if isinstance(value, str)}
