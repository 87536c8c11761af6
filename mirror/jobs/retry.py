"""When to try again: after a failure, after a publisher that died, and when a refused image is pulled again. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from mirror.jobs.model import State

_MAX_DOUBLINGS = 60


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Bounds of patience; all times in seconds.

    first_pause, longest_pause: between failures; doubled each time from the first to the longest.
    jitter: share by which a pause is stretched at random, so that images that failed together do not come back together.
    attempts: after so many the image rests until somebody pulls it again.
    deaths: from this try on, a publisher that dies with the image makes it a failed one, which waits, so that an image that kills
    publishers does not keep them from the others.
    refused_pause: a refused image that is pulled again after this time is judged again: limits and software may have changed.
    """

    first_pause: float = 15.0
    longest_pause: float = 6 * 3600.0
    jitter: float = 0.25
    attempts: int = 40
    deaths: int = 3
    refused_pause: float = 24 * 3600.0

    def pause(self, attempts: int, luck: float, retry_after: float | None = None) -> float | None:
        """Seconds until the next try, None if there is none.

        attempts: claims so far, at least 1. luck: a random number from 0 to 1. retry_after: what the upstream asked for; it can
        lengthen the pause, up to the longest.
        """
        if attempts >= self.attempts:
            return None
        pause = self.first_pause * 2.0 ** min(attempts - 1, _MAX_DOUBLINGS)
        if retry_after is not None:
            pause = max(pause, retry_after)
        return min(pause, self.longest_pause) * (1 + self.jitter * luck)

    def gives_up_on_lease(self, attempts: int) -> bool:
        """Whether an image whose publisher let the lease run out counts as failed, instead of being claimed again at once."""
        return attempts >= self.deaths

    def queues_again(self, state: State, *, ready_at: float | None, updated_at: float, name_waits: bool, now: float) -> bool:
        """Whether a pull makes an image in this state a job again.

        ready_at: from when it may be claimed anyway. name_waits: the name that was pulled has no public path yet.
        """
        match state:
            case State.PUBLISHED:
                return name_waits
            case State.EXPIRED:
                return True
            case State.REFUSED | State.NOT_AN_IMAGE:
                return now - updated_at >= self.refused_pause
            case State.FAILED:
                return ready_at is None
            case _:
                return False
