"""A small real registry that misbehaves on demand, and counts what it is asked."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs

from aiohttp import web

from mirror.oci.digest import Digest
from mirror.oci.manifest import DOCKER_LIST, OCI_INDEX, OCI_MANIFEST

_PATH = re.compile(r"/v2/(?P<name>.+)/(?P<kind>manifests|blobs|tags|referrers)/(?P<reference>[^/]+)")
_PIECE = 64 * 1024


@dataclass
class Faults:
    """What goes wrong; everything is as it should be by default. Positions and lengths in bytes of the body, times in seconds."""

    status: int | None = None
    """Answer with this status to everything below /v2/."""
    headers: dict[str, str] = field(default_factory=dict)
    """Further headers of such an answer."""
    statuses: list[int] = field(default_factory=list)
    """Answer the next requests with these, one each; 0: as it should be."""
    before_headers: float = 0.0
    between_pieces: float = 0.0
    hold_at: int | None = None
    """Send so much, then wait until `release` is set."""
    cut_at: int | None = None
    """End the connection when the body has come to this position of the blob."""
    cuts: int = 1
    """How often that happens."""
    reset: bool = False
    """Reset the connection rather than close it."""
    wrong_content: bool = False
    """Bytes of the right number, but others."""
    extra_bytes: int = 0
    """More than there should be, in the Content-Length too."""
    no_head_length: bool = False
    """HEAD does not say how long a blob is."""
    chunked: bool = False
    until_close: bool = False
    """No length and no chunks: the end of the connection ends the body, as in HTTP/1.0."""
    content_encoding: str | None = None
    ignore_range: bool = False
    etag: str | None = None
    """Of blobs; `If-Range` is obeyed where there is one."""
    no_head_digest: bool = False
    manifest_headers: dict[str, str] = field(default_factory=dict)
    """Further headers of answers for manifests."""
    content_type: str | None = None
    """Of manifests, instead of their own."""
    honours_accept: bool = False
    """As distribution does, from which Docker Hub comes: who does not take lists gets a list's image for linux/amd64, by tag, and
    who does not take a type of OCI is told that there is no such manifest. Weights and `*` count for nothing."""
    auth: str | None = None
    """bearer or basic."""
    challenge: str | None = None
    """Instead of the right challenge."""
    user: tuple[str, str] | None = None
    """The only user who gets a token or passes; None: everybody gets a token."""
    readers: dict[str, dict[str, str]] = field(default_factory=dict)
    """Repositories that are private: users who may read each, and their passwords; the others are for everybody."""
    identity_tokens: dict[str, str] = field(default_factory=dict)
    """Identity tokens, and the users whose they are."""
    token_uses: int | None = None
    """After so many requests a token is refused."""
    token_lifetime: int = 300
    token_status: int = 200
    token_body: bytes | None = None
    """In place of a token."""
    redirect: str | None = None
    """Redirect blobs to this base URL, path kept."""
    redirect_manifests: bool = False
    """Manifests, too."""
    redirect_loop: bool = False
    tags_per_page: int = 100
    endless_tags: bool = False
    """The last page of tags leads to the first one."""
    next_page: str | None = None
    """Where the first page of tags says that the next one is."""
    no_referrers_api: bool = False


@dataclass(frozen=True)
class Seen:
    """One request."""

    method: str
    path: str
    range: str | None
    authorization: str | None
    accept_encoding: str | None
    query: str
    """As it came, not decoded."""
    if_range: str | None
    accept: str
    """All lines of it."""
    form: dict[str, str] = field(default_factory=dict)
    """Of a POST for a token."""


class FaultyRegistry:
    """An async context manager; `url` leads to it on loopback. It can be killed and started again on the same port."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[bytes, str]] = {}
        self.referrers: dict[str, list[dict[str, object]]] = {}
        self.seen: list[Seen] = []
        self.release = asyncio.Event()
        self.port = 0
        self._runner: web.AppRunner | None = None
        self._transports: set[asyncio.BaseTransport] = set()
        self._tokens: dict[str, int] = {}
        self._holders: dict[str, str | None] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.kill()

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.01)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def kill(self) -> None:
        """End all connections in the middle of whatever they carry."""
        self.release.set()
        for transport in self._transports:
            if isinstance(transport, asyncio.WriteTransport):
                transport.abort()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def add_blob(self, data: bytes) -> Digest:
        digest = Digest.of(data)
        self.blobs[str(digest)] = data
        return digest

    def add_manifest(self, name: str, tag: str, raw: bytes, media_type: str = OCI_MANIFEST) -> Digest:
        digest = Digest.of(raw)
        for reference in (tag, str(digest)):
            self.manifests[name, reference] = (raw, media_type)
        return digest

    def count(self, method: str, kind: str = "") -> int:
        """How many requests with this method had `kind` in their path."""
        return sum(1 for request in self.seen if request.method == method and kind in request.path)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if request.transport is not None:
            self._transports.add(request.transport)
        self.seen.append(
            Seen(
                request.method,
                request.path,
                request.headers.get("Range"),
                request.headers.get("Authorization"),
                request.headers.get("Accept-Encoding"),
                request.rel_url.raw_query_string,
                request.headers.get("If-Range"),
                ", ".join(request.headers.getall("Accept", ())),
            )
        )
        if request.path == "/token":
            if request.method == "POST":
                form = {key: str(value) for key, value in (await request.post()).items()}
                self.seen[-1] = replace(self.seen[-1], form=form)
                return self._token_by_form(form)
            return self._token(request)
        faults = self.faults
        await asyncio.sleep(faults.before_headers)
        status = faults.statuses.pop(0) if faults.statuses else faults.status
        if status:
            return _error(status, "TOOMANYREQUESTS" if status == 429 else "UNKNOWN", "the hub says no", faults.headers)
        if not self._may(request):
            return _error(401, "UNAUTHORIZED", "authentication required", {"WWW-Authenticate": self._challenge(request)})
        match = _PATH.fullmatch(request.path)
        if match is None:
            return web.Response(text="{}")
        return await self._content(request, *match.group("kind", "name", "reference"))

    async def _content(self, request: web.Request, kind: str, name: str, reference: str) -> web.StreamResponse:
        faults = self.faults
        if kind == "manifests" and not faults.redirect_manifests:
            return self._manifest(request, name, reference)
        if kind == "tags":
            return self._tag_list(request, name)
        if kind == "referrers":
            return self._referrers(reference)
        if faults.redirect_loop:
            return web.Response(status=307, headers={"Location": request.path})
        if faults.redirect is not None:
            return web.Response(status=307, headers={"Location": f"{faults.redirect}{request.path}?signature=a%2Fb%3D"})
        return await self._blob(request, reference)

    # Rights

    def _challenge(self, request: web.Request) -> str:
        if self.faults.challenge is not None:
            return self.faults.challenge
        if self.faults.auth == "basic":
            return 'Basic realm="faulty, \\"registry\\""'
        match = _PATH.fullmatch(request.path)
        name = match["name"] if match else ""
        return f'Bearer realm="{self.url}/token",service="faulty",scope="repository:{name}:pull"'

    def _may(self, request: web.Request) -> bool:
        if self.faults.auth is None:
            return True
        scheme, _, value = request.headers.get("Authorization", "").partition(" ")
        if self.faults.auth == "basic":
            return scheme == "Basic" and self._is_user(value)
        if scheme != "Bearer" or value not in self._tokens:
            return False
        self._tokens[value] += 1
        match = _PATH.fullmatch(request.path)
        readers = self.faults.readers.get(match["name"]) if match else None
        if readers is not None and self._holders[value] not in readers:
            return False
        return self.faults.token_uses is None or self._tokens[value] <= self.faults.token_uses

    def _is_user(self, encoded: str) -> bool:
        return self.faults.user is not None and encoded == base64.b64encode(":".join(self.faults.user).encode()).decode()

    def _token(self, request: web.Request) -> web.Response:
        if self.faults.token_status != 200:
            return web.Response(status=self.faults.token_status, headers=self.faults.headers)
        if self.faults.token_body is not None:
            return web.Response(body=self.faults.token_body)
        scheme, _, value = request.headers.get("Authorization", "").partition(" ")
        if self.faults.user is not None and not (scheme == "Basic" and self._is_user(value)):
            return web.Response(status=401)
        user, password = _pair(value) if scheme == "Basic" else (None, "")
        users = {name: word for readers in self.faults.readers.values() for name, word in readers.items()}
        if self.faults.user is None and user is not None and users and users.get(user) != password:
            return web.Response(status=401)
        return self._issue(parse_qs(request.query_string).get("scope", [""])[0], user)

    def _token_by_form(self, form: dict[str, str]) -> web.Response:
        user = self.faults.identity_tokens.get(form.get("refresh_token", ""))
        if form.get("grant_type") != "refresh_token" or not form.get("client_id") or not form.get("service") or user is None:
            return web.json_response({"error": "invalid_grant"}, status=400)
        return self._issue(form["scope"], user)

    def _issue(self, scope: str, user: str | None) -> web.Response:
        token = f"token-{len(self._tokens)}-{scope.replace(':', '-').replace('/', '-')}"
        self._tokens[token] = 0
        self._holders[token] = user
        return web.json_response({"token": token, "expires_in": self.faults.token_lifetime})

    # Content

    def _manifest(self, request: web.Request, name: str, reference: str) -> web.Response:
        found = self.manifests.get((name, reference))
        if found is None:
            return _error(404, "MANIFEST_UNKNOWN", f"no {reference} here")
        raw, media_type = found
        if self.faults.honours_accept:
            accepted = {member.partition(";")[0].strip() for member in self.seen[-1].accept.split(",")}
            if media_type in (OCI_MANIFEST, OCI_INDEX) and media_type not in accepted:
                return _error(404, "MANIFEST_UNKNOWN", "OCI type found, but accept header does not support it")
            if media_type == DOCKER_LIST and media_type not in accepted and ":" not in reference:
                return self._manifest(request, name, _child(raw, "amd64"))
        headers = {"Content-Type": self.faults.content_type or media_type, **self.faults.manifest_headers}
        if not (request.method == "HEAD" and self.faults.no_head_digest):
            headers["Docker-Content-Digest"] = str(Digest.of(raw))
        if self.faults.content_encoding is not None:
            headers["Content-Encoding"] = self.faults.content_encoding
        body = bytes(reversed(raw)) if self.faults.wrong_content else raw
        return web.Response(body=body, headers=headers)

    def _tag_list(self, request: web.Request, name: str) -> web.Response:
        tags = [reference for repository, reference in self.manifests if repository == name and ":" not in reference]
        if not tags:
            return _error(404, "NAME_UNKNOWN", f"no {name} here")
        start = int(request.query.get("from", "0"))
        end = start + self.faults.tags_per_page
        headers = {}
        if end < len(tags) or self.faults.endless_tags:
            target = self.faults.next_page or f"/v2/{name}/tags/list?from={end if end < len(tags) else 0}"
            headers["Link"] = f'<{target}>; rel="next"'
        return web.json_response({"name": name, "tags": tags[start:end]}, headers=headers)

    def _referrers(self, subject: str) -> web.Response:
        if self.faults.no_referrers_api:
            return web.Response(status=404, text="404 page not found")
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": self.referrers.get(subject, [])}
        return web.json_response(document, content_type=OCI_INDEX)

    async def _blob(self, request: web.Request, reference: str) -> web.StreamResponse:
        data = self.blobs.get(reference)
        if data is None:
            return _error(404, "BLOB_UNKNOWN", f"no {reference} here")
        faults = replace(self.faults)
        if faults.wrong_content:
            data = data[:-1] + bytes([data[-1] ^ 1])
        data += bytes(faults.extra_bytes)
        start = self._start(request)
        if start and start >= len(data):
            return web.Response(status=416, headers={"Content-Range": f"bytes */{len(data)}"})
        response = web.StreamResponse(status=206 if start else 200, headers={"Content-Type": "application/octet-stream"})
        if start:
            response.headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        if faults.etag is not None:
            response.headers["ETag"] = faults.etag
        if faults.content_encoding is not None:
            response.headers["Content-Encoding"] = faults.content_encoding
        if faults.until_close and request.method != "HEAD":
            return await self._send_until_close(request, response, data[start:])
        if faults.chunked or faults.until_close or (faults.no_head_length and request.method == "HEAD"):
            response.enable_chunked_encoding()
        else:
            response.content_length = len(data) - start
        await response.prepare(request)
        if request.method != "HEAD":
            with contextlib.suppress(ConnectionError):  # Who asked has left.
                await self._send(request, response, data, start)
        return response

    def _start(self, request: web.Request) -> int:
        """Where in the blob the answer begins."""
        asked = re.fullmatch(r"bytes=([0-9]+)-", request.headers.get("Range", ""))
        is_same = request.headers.get("If-Range", self.faults.etag) == self.faults.etag
        return int(asked[1]) if asked and is_same and not self.faults.ignore_range else 0

    async def _send_until_close(self, request: web.Request, response: web.StreamResponse, body: bytes) -> web.StreamResponse:
        """As an HTTP/1.0 server does it, which aiohttp's own responses cannot."""
        transport = request.transport
        assert isinstance(transport, asyncio.WriteTransport)
        if self.faults.cut_at is not None and self.faults.cuts > 0:
            self.faults.cuts -= 1
            body = body[: self.faults.cut_at]
        fields = "".join(f"{name}: {value}\r\n" for name, value in response.headers.items())
        transport.write(f"HTTP/1.0 {response.status} OK\r\n{fields}\r\n".encode() + body)
        transport.close()
        return response

    async def _send(self, request: web.Request, response: web.StreamResponse, data: bytes, start: int) -> None:
        faults = self.faults
        position = start
        while position < len(data):
            ends = [position + _PIECE, len(data)]
            if faults.cut_at is not None and faults.cuts > 0 and faults.cut_at >= position:
                ends.append(faults.cut_at)
            if faults.hold_at is not None and faults.hold_at > position:
                ends.append(faults.hold_at)
            end = min(ends)
            if end > position:
                await response.write(data[position:end])
            position = end
            if faults.cut_at == position and faults.cuts > 0:
                faults.cuts -= 1
                for _ in range(10):  # Turns of an event loop that may be the reader's too: what has arrived is to be read before.
                    await asyncio.sleep(0.01)
                transport = request.transport
                if transport is not None:
                    (transport.abort if faults.reset else transport.close)()
                return
            if faults.hold_at == position:
                await self.release.wait()
            if faults.between_pieces:
                await asyncio.sleep(faults.between_pieces)


def _child(index: bytes, architecture: str) -> str:
    """The digest of an index's image."""
    listed = json.loads(index)["manifests"]
    return next(str(child["digest"]) for child in listed if child["platform"]["architecture"] == architecture)


def _pair(encoded: str) -> tuple[str, str]:
    user, _, password = base64.b64decode(encoded).decode().partition(":")
    return user, password


def _error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"errors": [{"code": code, "message": message}]}, status=status, headers=headers or {})


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait for something that another task brings about."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)
