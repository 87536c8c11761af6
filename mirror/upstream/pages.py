"""Lists that an upstream gives in pages, read to their end within bounds.

Sources: OCI distribution specification 1.1, end-8 and end-12; the next page is where the `Link` header says, whatever that is
made of, as long as it is below the same upstream.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from yarl import URL

from mirror.errors import IntegrityError

MAX_PAGES = 1000
MAX_BYTES = 32 << 20
"""Of all pages of one list."""


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list: its document, and the target of its link to the next part."""

    raw: bytes
    next: str | None


async def all_pages(ask: Callable[[str, int], Awaitable[Page]], base: URL, first: str, what: str) -> list[bytes]:
    """The documents of all pages.

    ask: for a page by its path and query below the base URL, and for how many bytes at most. what: names the list.
    Raises what `ask` raises, and IntegrityError for a list without end or one that leads elsewhere.
    """
    pages: list[bytes] = []
    seen = {first}
    left = MAX_BYTES
    target: str | None = first
    while target is not None:
        page = await ask(target, left)
        pages.append(page.raw)
        left -= len(page.raw)
        target = _below(base, target, page.next, what) if page.next is not None else None
        if target is not None and (target in seen or len(seen) >= MAX_PAGES):
            raise IntegrityError(f"{what} has no end: it goes on after {len(pages)} pages")
        seen.add(target or "")
    return pages


def _below(base: URL, current: str, link: str, what: str) -> str:
    """The path and query of a link, as they stand behind the base URL. Raises IntegrityError if it leads elsewhere."""
    try:
        url = URL(f"{base}{current}", encoded=True).join(URL(link, encoded=True))
    except ValueError as error:
        raise IntegrityError(f"{what} goes on at {link[:200]!r}, which is no web address") from error
    path = url.raw_path_qs
    if url.origin() != base.origin() or not path.removeprefix(base.raw_path.rstrip("/")).startswith("/v2/"):
        raise IntegrityError(f"{what} goes on at another place: {link[:200]!r}")
    return path.removeprefix(base.raw_path.rstrip("/"))
