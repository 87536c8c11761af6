"""Clients of a soak test: each asks for one thing after the other, and looks hard at every answer."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp

from mirror.oci.digest import Digest
from tests.soak.content import Content, Image

ANSWER_SECONDS = 60.0
"""Longer than the mirror may take for anything here: what lasts longer hangs."""
_CODES = {"UNAVAILABLE": 503, "UPSTREAM_INVALID": 502, "MANIFEST_UNKNOWN": 404, "BLOB_UNKNOWN": 404, "NAME_UNKNOWN": 404}


Act = Callable[[aiohttp.ClientSession, Image], Awaitable[str]]


class Wrong(Exception):
    """An answer that must not be; the text is for a person."""


class Refused(Exception):
    """A clear error: the mirror says in the right words that it cannot."""


class Load:
    """Runs clients against whatever address the mirror has; `tally` counts what came of it, `wrong` says what must not be."""

    def __init__(self, content: Content, address: Callable[[], str], dice: random.Random) -> None:
        self.tally: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._content = content
        self._address = address
        self._dice = dice

    async def run(self, clients: int, until: asyncio.Event) -> None:
        """Return when `until` is set and every client has its last answer."""
        await asyncio.gather(*(self._client(until) for _ in range(clients)))

    async def once(self, what: Act, image: Image) -> str:
        """One request now; what came of it: `ok`, `refused` (a clear error), `cut`, `away` (no connection), or `wrong`."""
        async with _session() as session:
            return await self._judged(what, session, image)

    async def _client(self, until: asyncio.Event) -> None:
        while not until.is_set():
            async with _session() as session:
                for _ in range(self._dice.randrange(1, 30)):
                    if until.is_set():
                        return
                    outcome = await self._judged(self._choose(), session, self._pick())
                    if outcome == "away":
                        await asyncio.sleep(0.1)

    def _pick(self) -> Image:
        content = self._content
        if self._dice.random() < 0.05:
            fresh = content.make_fresh()
            if fresh is not None:
                return fresh
        return self._dice.choice(content.fresh if content.fresh and self._dice.random() < 0.2 else content.lasting)

    def _choose(self) -> Act:
        weights = [(self.manifest_by_tag, 6), (self.manifest_by_digest, 4), (self.blob, 6), (self.part, 5), (self.head, 3)]
        weights += [(self.tags, 1), (self.absent, 1), (self.pull, 2), (self.leave, 3), (self.read_slowly, 1)]
        return self._dice.choices([act for act, _ in weights], [weight for _, weight in weights])[0]

    async def _judged(self, what: Act, session: aiohttp.ClientSession, image: Image) -> str:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                outcome = await what(session, image)
        except Refused:
            outcome = "refused"
        except aiohttp.ClientConnectorError:
            outcome = "away"
        except (aiohttp.ClientError, ConnectionError):
            outcome = "cut"
        except TimeoutError:
            outcome = "wrong"
            self.wrong.append(f"{what.__name__} of {image.repository}:{image.tag} hangs")
        except Wrong as error:
            outcome = "wrong"
            self.wrong.append(f"{what.__name__} of {image.repository}:{image.tag}: {error}")
        self.tally[outcome] += 1
        self.tally[f"{what.__name__} {outcome}"] += 1
        return outcome

    # What clients do; each returns "ok" or raises.

    async def manifest_by_tag(self, session: aiohttp.ClientSession, image: Image) -> str:
        right = self._content.ever[image.repository, image.tag]
        async with self._ask(session, "GET", image, f"manifests/{image.tag}") as response:
            body = await response.read()
            _demand(response.status == 200, f"status {response.status}")
            _demand(body in right, "not what the tag ever led to")
            _demand(response.headers["Docker-Content-Digest"] == str(Digest.of(body)), "the digest of something else")
        return "ok"

    async def manifest_by_digest(self, session: aiohttp.ClientSession, image: Image) -> str:
        known = {"If-None-Match": f'"{image.digest}"'} if self._dice.random() < 0.3 else {}
        async with self._ask(session, "GET", image, f"manifests/{image.digest}", known) as response:
            body = await response.read()
            if known:
                _demand((response.status, body) == (304, b""), f"status {response.status} though it is known")
            else:
                _demand(body == image.manifest, "other bytes than the digest's")
        return "ok"

    async def blob(self, session: aiohttp.ClientSession, image: Image) -> str:
        digest = self._dice.choice(image.blobs)
        data = self._content.data(digest)
        async with self._ask(session, "GET", image, f"blobs/{digest}") as response:
            body = await response.read()
            _demand(response.status == 200, f"status {response.status}")
            _demand(body == data, f"{len(body)} bytes, not those of {digest} ({len(data)}), ended as if complete")
        return "ok"

    async def all_blobs(self, session: aiohttp.ClientSession, image: Image) -> str:
        for digest in image.blobs:
            async with self._ask(session, "GET", image, f"blobs/{digest}") as response:
                _demand(await response.read() == self._content.data(digest), f"other bytes than those of {digest}")
        return "ok"

    async def part(self, session: aiohttp.ClientSession, image: Image) -> str:
        digest = self._dice.choice(image.blobs)
        data = self._content.data(digest)
        start = self._dice.randrange(len(data))
        end = self._dice.choice((len(data), self._dice.randrange(start + 1, len(data) + 1)))
        wanted = {"Range": f"bytes={start}-{end - 1}" if end < len(data) else f"bytes={start}-"}
        async with self._ask(session, "GET", image, f"blobs/{digest}", wanted) as response:
            body = await response.read()
            if response.status == 200 and "Content-Length" not in response.headers:  # Nobody knows yet how long it is.
                _demand(body == data, f"other bytes than those of {digest}")
                return "ok"
            _demand(response.status == 206, f"status {response.status}")
            stated = response.headers["Content-Range"]
            _demand(stated == f"bytes {start}-{end - 1}/{len(data)}", f"Content-Range {stated}")
            _demand(body == data[start:end], f"other bytes than those from {start} to {end} of {digest}")
        return "ok"

    async def head(self, session: aiohttp.ClientSession, image: Image) -> str:
        digest = self._dice.choice(image.blobs)
        for rest, size in (
            (f"blobs/{digest}", len(self._content.data(digest))),
            (f"manifests/{image.digest}", len(image.manifest)),
        ):
            async with self._ask(session, "HEAD", image, rest) as response:
                _demand(response.status == 200, f"status {response.status}")
                _demand(response.headers["Content-Length"] == str(size), "another size")
        return "ok"

    async def tags(self, session: aiohttp.ClientSession, image: Image) -> str:
        async with self._ask(session, "GET", image, "tags/list") as response:
            listed = set(json.loads(await response.read())["tags"])
            known = {tag for repository, tag in self._content.ever if repository == image.repository}
            _demand(bool(listed), "no tags")
            _demand(listed <= known, f"tags that never were: {sorted(listed - known)[:5]}")
        return "ok"

    async def absent(self, session: aiohttp.ClientSession, image: Image) -> str:
        async with session.get(self._url(image, f"manifests/never-{self._dice.random()}")) as response:
            if response.status == 404:
                code = json.loads(await response.read())["errors"][0]["code"]
                _demand(code == "MANIFEST_UNKNOWN", code)
                return "ok"
            await _refused(response)
            raise Wrong(f"status {response.status}")

    async def pull(self, session: aiohttp.ClientSession, image: Image) -> str:
        """As docker and containerd do it: HEAD, GET by digest, config, layers; what is cut is gone on with by Range."""
        async with self._ask(session, "HEAD", image, f"manifests/{image.tag}") as response:
            digest = response.headers["Docker-Content-Digest"]
        async with self._ask(session, "GET", image, f"manifests/{digest}") as response:
            manifest = await response.read()
            _demand(str(Digest.of(manifest)) == digest, "other bytes than the digest's")
        document = json.loads(manifest)
        for descriptor in (document["config"], *document["layers"]):
            await self._resumed(session, image, descriptor["digest"])
        return "ok"

    async def _resumed(self, session: aiohttp.ClientSession, image: Image, digest: str) -> None:
        got = bytearray()
        for _ in range(4):
            wanted = {"Range": f"bytes={len(got)}-"} if got else {}
            try:
                async with self._ask(session, "GET", image, f"blobs/{digest}", wanted) as response:
                    _demand(response.status == (206 if got else 200), f"status {response.status}")
                    async for piece in response.content.iter_any():
                        got += piece
                break
            except (aiohttp.ClientPayloadError, ConnectionError):
                self.tally["resumed"] += 1
        else:
            raise ConnectionError
        _demand(str(Digest.of(bytes(got))) == digest, f"{len(got)} bytes, not those of {digest}")

    async def leave(self, session: aiohttp.ClientSession, image: Image) -> str:
        async with self._ask(session, "GET", image, f"blobs/{image.blobs[-1]}") as response:
            await response.content.read(self._dice.randrange(1, 60_000))
            response.close()
        return "ok"

    async def read_slowly(self, session: aiohttp.ClientSession, image: Image) -> str:
        digest = image.blobs[-1]
        got = bytearray()
        async with self._ask(session, "GET", image, f"blobs/{digest}") as response:
            async for piece in response.content.iter_chunked(64 * 1024):
                got += piece
                await asyncio.sleep(self._dice.random() * 0.2)
        _demand(str(Digest.of(bytes(got))) == str(digest), f"{len(got)} bytes, not those of {digest}")
        return "ok"

    def _url(self, image: Image, rest: str) -> str:
        way = self._dice.choice(("/v2/hub.test/{}/{}", "/v2/{}/{}?ns=hub.test"))
        return f"http://{self._address()}{way.format(image.repository, rest)}"

    @asynccontextmanager
    async def _ask(
        self, session: aiohttp.ClientSession, method: str, image: Image, rest: str, headers: dict[str, str] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer that is no error. Raises Refused for a clear error, Wrong for any other."""
        async with session.request(method, self._url(image, rest), headers=headers) as response:
            if response.status >= 400:
                await _refused(response)
            yield response


async def _refused(response: aiohttp.ClientResponse) -> None:
    """Raise Refused if the error is one of those that the mirror may give here, Wrong if not."""
    body = await response.read()
    if response.method == "HEAD":
        _demand(response.status in {502, 503}, f"status {response.status}")
        raise Refused
    try:
        (error,) = json.loads(body)["errors"]
    except (ValueError, KeyError) as problem:
        raise Wrong(f"status {response.status} without words: {body[:200]!r}") from problem
    _demand(_CODES.get(error["code"]) == response.status, f"status {response.status} with code {error['code']}")
    _demand(response.status in {502, 503}, f"status {response.status}: {error['message']}")
    _demand(bool(error["message"]), "an error without a message")
    if response.status == 503:
        _demand(re.fullmatch("[1-9][0-9]*", response.headers.get("Retry-After", "")) is not None, "503 without Retry-After")
    raise Refused


def _demand(is_so: bool, complaint: str) -> None:
    if not is_so:
        raise Wrong(complaint)


@asynccontextmanager
async def _session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(auto_decompress=False, timeout=aiohttp.ClientTimeout(total=None)) as session:
        yield session
