"""Asking a place what it serves, by HTTP. Places are addresses that the operator named, and no redirect of theirs is followed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp

from mirror.connecting import trouble
from mirror.errors import NotFound, Unavailable
from mirror.redirect.places import Place
from mirror.redirect.published import FILE, LONGEST, Published, parse_published

_HEADERS = {"Accept-Encoding": "identity"}


class PlaceClient:
    """Asks; every method raises Unavailable when there is no proper answer, and InvalidInput for one that makes no sense."""

    def __init__(self, session: aiohttp.ClientSession, seconds: float) -> None:
        """seconds: for one question with its answer."""
        self._session = session
        self._timeout = aiohttp.ClientTimeout(total=seconds)

    async def published(self, place: Place, fqrn: str) -> Published:
        """What the place has of a repository. Raises NotFound if that is nothing."""
        url = place.address(fqrn, FILE)
        with _failures(url):
            async with self._session.get(url, headers=_HEADERS, allow_redirects=False, timeout=self._timeout) as response:
                _check_status(response, url)
                data = await response.content.read(LONGEST)
                while piece := await response.content.read(LONGEST - len(data)):
                    data += piece
        return parse_published(data)

    async def size(self, place: Place, fqrn: str, file: str) -> int | None:
        """Bytes of a file that a GET would get, None if nothing says it. Raises NotFound."""
        url = place.address(fqrn, file)
        with _failures(url):
            async with self._session.head(url, headers=_HEADERS, allow_redirects=False, timeout=self._timeout) as response:
                _check_status(response, url)
                encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
                return response.content_length if encoding in ("", "identity") else None


def open_place_session(user_agent: str, connections: int) -> aiohttp.ClientSession:
    """To be called in a running event loop, and closed by the caller."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections, resolver=aiohttp.ThreadedResolver()),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": user_agent},
    )


def _check_status(response: aiohttp.ClientResponse, url: str) -> None:
    if response.status in (404, 410):
        raise NotFound(f"{url} does not exist")
    if response.status != 200:
        raise Unavailable(f"{url} is answered with status {response.status}")


@contextmanager
def _failures(url: str) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise Unavailable(f"{url} is not answered in time") from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise Unavailable(f"{url} cannot be read: {trouble(error)}") from error
