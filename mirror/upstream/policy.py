"""Which outcomes of a request are tried again, and when. Pure: the clock and the dice are the caller's.

Sources: RFC 9110, section 10.2.3 (Retry-After: seconds, or a date).
"""

from __future__ import annotations

from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from mirror.upstream.model import Failure

LONGEST_RETRY_AFTER = 86_400.0
"""Seconds; what an upstream asks for beyond a day is cut to it."""

_TRANSIENT = frozenset({Failure.LOST, Failure.ERROR})
_TRANSIENT_STATUSES = frozenset({408, 425, 500, 502, 503, 504})


def is_transient(failure: Failure) -> bool:
    """Whether a short request is worth repeating at once.

    Not where the wait was long already (a time-out) or a repetition makes it worse (throttling), nor without a connection: the
    answer is then the last known one, or an error that lets clients fall back quickly.
    """
    return failure in _TRANSIENT


def is_server_error(status: int) -> bool:
    """Whether an HTTP status says that the upstream, not the request, is at fault."""
    return status in _TRANSIENT_STATUSES or status >= 500


def parse_retry_after(value: str | None, now: float) -> float | None:
    """Seconds from `now` (Unix time) that a Retry-After header asks to wait; None if it is missing or unreadable."""
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), LONGEST_RETRY_AFTER)
    try:
        moment = parsedate_to_datetime(text)
        seconds = moment.timestamp() - now
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and after which pauses something is tried again; times in seconds."""

    attempts: int
    """Tries in all, the first included, without any progress between them."""
    first_delay: float
    longest_delay: float
    factor: float = 2.0

    def delay(self, failures: int, dice: float, retry_after: float | None = None) -> float | None:
        """The pause after the given number of failures in a row, None to give up.

        dice: a random number from 0 to 1; the pause is between half and the whole of the full one. An upstream's Retry-After
        is kept; one that is longer than the longest pause means to give up.
        """
        if failures >= self.attempts or (retry_after is not None and retry_after > self.longest_delay):
            return None
        # The exponent is bounded so that no number of failures can overflow.
        full = min(self.longest_delay, self.first_delay * self.factor ** min(failures - 1, 64))
        return max(full * (0.5 + dice / 2), retry_after or 0.0)


SHORT_REQUESTS = RetryPolicy(attempts=3, first_delay=0.2, longest_delay=2.0)
"""For manifests and for questions about blobs: somebody waits for the answer."""
