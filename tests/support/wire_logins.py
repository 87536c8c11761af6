"""How well-known clients log in and pull what is private: their requests on the wire, header by header, in their order.

As observed with crane 0.20, oras 1.3, docker 28.5 (with its own store of images, and with containerd's) and apptainer 1.4.5.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlencode, urlsplit

from mirror.oci.challenge import find_bearer, parse_challenges
from tests.support.raw_http import RawConnection, Reply
from tests.support.registry_client import Credentials
from tests.support.wire_clients import CLIENTS, Puller, WireClient

_BY_NAME = {client.name: client for client in CLIENTS}
_PING = "/v2/"


@dataclass(frozen=True)
class LoginClient:
    """What one client does with a user name and a password."""

    name: str
    client: WireClient
    login: tuple[str, ...]
    """What it sends to log in: `ping` without anything, `token` for no repository, `again` with that token."""
    login_query: tuple[tuple[str, str], ...] = ()
    """What it says to the token service then, `account` being its user."""
    names_account: bool = False
    """Whether the request for a token to pull has the user in its query, too."""
    posts: bool = False
    """Whether it asks for such a token by a form (grant_type=password), if it has a user."""
    as_two: bool = False
    """Whether two libraries in it ask one after the other, of which only the first names the account."""

    def on(self, way: str) -> LoginClient:
        """The same where names are below this path, such as `/v2/closed.test/{name}`."""
        return replace(self, client=replace(self.client, way=way))


_DOCKER_LOGIN = (("account", ""), ("client_id", "docker"), ("offline_token", "true"))

LOGIN_CLIENTS = (
    LoginClient("crane", _BY_NAME["crane"], login=()),
    LoginClient("oras", _BY_NAME["oras"], login=("ping", "token", "again")),
    LoginClient("docker", _BY_NAME["docker"], ("ping", "token", "again"), _DOCKER_LOGIN, names_account=True),
    LoginClient(
        "docker, containerd image store",
        replace(_BY_NAME["containerd"], agent="docker/28.5.2 go/go1.27.1 containerd-client/2.1.9", namespace=""),
        ("ping", "token", "again"),
        _DOCKER_LOGIN,
        posts=True,
    ),
    LoginClient("apptainer", _BY_NAME["apptainer"], ("ping", "token"), names_account=True, as_two=True),
)


class PrivatePuller(Puller):
    """Pulls as a client does that gets a token where it is told to, with its credentials or without."""

    def __init__(self, client: LoginClient, address: str, credentials: Credentials | None = None) -> None:
        super().__init__(client.client, address)
        self._login = client
        self._host = address
        self._account = credentials
        self._repository = ""
        self._token = ""
        self._pings = 0

    def log_in(self) -> list[int]:
        """What comes once, before any pull; the statuses of the answers."""
        statuses: list[int] = []
        challenged: Reply | None = None
        token = ""
        for step in self._login.login:
            if step == "token":
                assert challenged is not None
                reply = self._ask_token(challenged, self._login.login_query, "")
                token = _token_in(reply)
            else:
                reply = challenged = super().ask("GET", _PING, [("Authorization", f"Bearer {token}")] if token else [])
            statuses.append(reply.status)
        self.close()
        return statuses

    def ask(self, method: str, path: str, headers: Sequence[tuple[str, str]] = ()) -> Reply:
        """One request, with a token if there is one, and once more with one if it is asked for.

        Of a ping that is challenged, the answer is that of the token service: clients are content with it.
        """
        if path == _PING:
            challenged = super().ask(method, path, headers)
            self._pings += 1
            return challenged if challenged.status != 401 else self._get_token(challenged)
        had_token = bool(self._token)
        reply = super().ask(method, path, [*headers, *self._authorization()])
        if reply.status == 401 and not had_token:
            assert self._get_token(reply).status == 200
            reply = super().ask(method, path, [*headers, *self._authorization()])
        return reply

    def of(self, repository: str) -> PrivatePuller:
        """Turn to a repository, for which it has no token yet."""
        self._repository, self._token, self._pings = repository, "", 0
        return self

    def _authorization(self) -> list[tuple[str, str]]:
        return [("Authorization", f"Bearer {self._token}")] if self._token else []

    def _get_token(self, challenged: Reply) -> Reply:
        client = self._login
        scope = f"repository:{client.client.way.removeprefix(_PING).format(name=self._repository)}:pull"
        names_account = client.names_account and not (client.as_two and self._pings > 1)
        query = (("account", ""),) if names_account and self._account is not None else ()
        reply = self._ask_token(challenged, query, scope)
        self._token = _token_in(reply)
        return reply

    def _ask_token(self, challenged: Reply, query: Sequence[tuple[str, str]], scope: str) -> Reply:
        bearer = find_bearer(parse_challenges(challenged.headers.get_all("WWW-Authenticate", [])))
        assert bearer is not None
        assert bearer.service
        user = self._account.user if self._account is not None else ""
        fields = (
            {name: value or user for name, value in query} | ({"scope": scope} if scope else {}) | {"service": bearer.service}
        )
        path = urlsplit(bearer.realm).path
        if self._account is not None and self._login.posts and scope:
            form = {"client_id": "containerd-client", "grant_type": "password", "password": self._account.password}
            return self._post(path, urlencode({**form, **fields, "username": user}))
        basic = [("Authorization", f"Basic {self._account.basic}")] if self._account is not None else []
        return super().ask("GET", f"{path}?{urlencode(fields)}", [*basic, ("Accept-Encoding", "gzip")])

    def _post(self, path: str, form: str) -> Reply:
        head = f"POST {path} HTTP/1.1\r\nHost: {self._host}\r\nUser-Agent: containerd/2.1.9\r\nContent-Length: {len(form)}\r\n"
        head += "Content-Type: application/x-www-form-urlencoded; charset=utf-8\r\nAccept-Encoding: gzip\r\n\r\n"
        with RawConnection(self._host) as connection:
            connection.send((head + form).encode())
            reply = connection.reply("POST")
        assert reply is not None, f"{self._login.name}: no answer to POST {path}"
        return reply


def _token_in(reply: Reply) -> str:
    assert reply.status == 200, (reply.status, reply.body[:300])
    document = json.loads(reply.body)
    assert document["token"] == document["access_token"]
    token: str = document["token"]
    return token
