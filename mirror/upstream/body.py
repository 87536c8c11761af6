"""Reading answers of foreign servers, never more of them than was asked for."""

from __future__ import annotations

import json
from typing import Any

import aiohttp

from mirror.errors import IntegrityError

MAX_ERROR_BYTES = 64 * 1024
MAX_WORDS = 300


async def read_limited(response: aiohttp.ClientResponse, limit: int) -> bytes | None:
    """The whole body, or None if it has more than `limit` bytes. Raises what the HTTP client raises."""
    pieces: list[bytes] = []
    length = 0
    while piece := await response.content.readany():
        length += len(piece)
        if length > limit:
            return None
        pieces.append(piece)
    return b"".join(pieces)


async def upstream_words(response: aiohttp.ClientResponse) -> str:
    """What an error answer says in its body, made fit for a message of ours: empty, or `: <code> <message>`."""
    try:
        body = await read_limited(response, MAX_ERROR_BYTES)
    except (aiohttp.ClientError, TimeoutError, OSError):
        return ""
    try:
        document: Any = json.loads(body or b"")
        first = document["errors"][0]
        words = f"{first.get('code', '')} {first.get('message', '')}"
    except (ValueError, RecursionError, KeyError, IndexError, TypeError, AttributeError):
        return ""
    shown = " ".join("".join(letter if letter.isprintable() else " " for letter in words).split())
    return f": {shown[:MAX_WORDS]}" if shown else ""


def refuse_encoding(response: aiohttp.ClientResponse, upstream: str, what: str) -> None:
    """Raises IntegrityError if the body is encoded: it would not be the bytes of the digest."""
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise IntegrityError(f"upstream {upstream} sends {what} encoded as {encoding[:40]!r}, though asked not to")


def stated_length(response: aiohttp.ClientResponse) -> int | None:
    """Bytes of the body, None if the upstream does not say."""
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
