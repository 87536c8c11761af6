"""How many pulls an upstream still grants. Pure: the clock is the caller's.

Docker Hub sends with each answer for a manifest, HEAD included (which is free), `RateLimit-Limit: 100;w=21600` (so many in so
many seconds), `RateLimit-Remaining: 76;w=21600`, and in `Docker-RateLimit-Source` whose budget it is: an address, or an account.
Source: Docker's documentation, "Docker Hub usage and limits"; the form is that of draft-ietf-httpapi-ratelimit-headers-02.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_ITEM = re.compile(r"\s*([0-9]{1,12})\s*(?:;[^,]*?\bw=([0-9]{1,9})\b)?[^,]*(?:,.*)?", re.ASCII)
_DEFAULT_WINDOW = 6 * 3600.0
"""Docker Hub's, for a limit that names none."""
_LONGEST_SOURCE = 100


@dataclass(frozen=True, slots=True)
class Budget:
    """What an upstream said of it."""

    limit: int
    """Pulls in one window."""
    remaining: int
    window: float
    """Seconds."""
    source: str = ""
    """Whose it is, in the upstream's words."""


def parse_budget(headers: Mapping[str, str]) -> Budget | None:
    """The budget that an answer states; None if it states none that makes sense. headers: looked up whatever their case."""
    limit = _ITEM.fullmatch(headers.get("RateLimit-Limit", ""))
    remaining = _ITEM.fullmatch(headers.get("RateLimit-Remaining", ""))
    if limit is None or remaining is None or not int(limit[1]):
        return None
    window = float(limit[2] or remaining[2] or 0) or _DEFAULT_WINDOW
    source = "".join(letter for letter in headers.get("Docker-RateLimit-Source", "") if letter.isprintable())
    return Budget(int(limit[1]), min(int(remaining[1]), int(limit[1])), window, source[:_LONGEST_SOURCE])


class BudgetWatch:
    """The last budget that was stated, for as long as it says anything: one window."""

    def __init__(self, reserve: float, clock: Callable[[], float], on_news: Callable[[Budget], None] = lambda _: None) -> None:
        """reserve: the share that is kept for clients, 0 to 1. clock: seconds that only grow. on_news: called with each one."""
        self._reserve = reserve
        self._clock = clock
        self._on_news = on_news
        self._known: Budget | None = None
        self._noted = 0.0

    def note(self, headers: Mapping[str, str]) -> None:
        """An answer came with these headers."""
        budget = parse_budget(headers)
        if budget is not None:
            self._known, self._noted = budget, self._clock()
            self._on_news(budget)

    @property
    def known(self) -> Budget | None:
        """What is known of it now."""
        if self._known is not None and self._clock() - self._noted >= self._known.window:
            self._known = None
        return self._known

    @property
    def age(self) -> float:
        """Seconds since it was stated."""
        return self._clock() - self._noted

    @property
    def is_low(self) -> bool:
        """Whether what is left is for clients only."""
        known = self.known
        return known is not None and known.remaining < known.limit * self._reserve
