"""The circuit breaker of one upstream. Pure: the clock is the caller's.

closed --> so many failures in a row, or a 429 that says when to come back --> open
open   --> its pause is over, and one request goes as a probe: it works --> closed
                                                               `--> it fails --> open again, for twice as long
       `--> a transfer that was running before gets an answer --> closed

What counts as a failure: no connection, silence, a connection that breaks before an answer, server errors and 429. Every other
answer shows that the upstream works, a refusal included. Retry-After (RFC 9110, section 10.2.3) of 429 and 503 makes a pause
longer.
If all failures were server errors about one repository, it may be that repository that is broken: a request about another one is
a probe at once, without waiting for the pause to be over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from mirror.upstream.model import BreakerPolicy, Failure

_COUNTED = frozenset({Failure.UNREACHABLE, Failure.TIMEOUT, Failure.LOST, Failure.ERROR, Failure.THROTTLED})


class Verdict(Enum):
    """What becomes of a request."""

    GO = auto()
    PROBE = auto()
    """It goes, and its outcome decides; the caller has to report it, or that there is none."""
    WAIT = auto()
    """For the probe that is under way."""
    REFUSE = auto()


@dataclass(frozen=True, slots=True)
class CircuitChange:
    """The circuit opened, for so many seconds and this reason, or closed."""

    is_open: bool
    reason: str = ""
    seconds: float = 0.0


class CircuitBreaker:
    """Counts failures, and says who may ask."""

    def __init__(
        self, policy: BreakerPolicy, clock: Callable[[], float], on_change: Callable[[CircuitChange], None] = lambda _: None
    ) -> None:
        """clock: seconds that only grow. on_change: called when the circuit opens or closes, not for each probe."""
        self._policy = policy
        self._clock = clock
        self._on_change = on_change
        self._failures = 0
        self._openings = 0
        self._until: float | None = None
        self._probing = False
        self._throttled = False
        # The only repository that the failures in a row were about, if all of them were server errors.
        self._only: str | None = None
        self.reason = ""
        """The last failure in words."""

    @property
    def is_open(self) -> bool:
        """Whether the upstream counts as unusable, a probe under way or due included."""
        return self._until is not None

    @property
    def is_due(self) -> bool:
        """Whether the next request would be the probe, at least if it is about another repository than those that failed."""
        return self._until is not None and not self._probing and (self._only is not None or self._clock() >= self._until)

    @property
    def is_throttled(self) -> bool:
        """Whether it is open because the upstream said that it is asked too often."""
        return self.is_open and self._throttled

    @property
    def seconds_left(self) -> float:
        """Until a probe is due; 0 if it is, or if the circuit is closed."""
        return max(self._until - self._clock(), 0.0) if self._until is not None else 0.0

    def admit(self, repository: str | None = None, *, transfer: bool = False) -> Verdict:
        """Whether a request about a repository may be sent.

        transfer: it is for a blob: what throttles are requests for manifests, and an image whose manifest was given out has
        to be completed.
        """
        if self._until is None or (transfer and self._throttled):
            return Verdict.GO
        if self._probing:
            return Verdict.WAIT
        if self._clock() < self._until and self._only in (None, repository):
            return Verdict.REFUSE
        self._probing = True
        return Verdict.PROBE

    def succeeded(self, *, probe: bool = False, transfer: bool = False) -> None:
        """The upstream answered."""
        if self._until is not None and self._throttled and transfer and not probe:
            return
        if probe:
            self._probing = False
        self._failures = self._openings = 0
        self._only = None
        if self._until is not None:
            self._until, self._probing = None, False
            self._on_change(CircuitChange(is_open=False))

    def failed(
        self,
        failure: Failure,
        reason: str,
        repository: str | None = None,
        *,
        probe: bool = False,
        retry_after: float | None = None,
    ) -> None:
        """A request about a repository came to nothing. retry_after: seconds that the upstream asks to wait."""
        if failure not in _COUNTED:
            self.succeeded(probe=probe)
            return
        if self._until is not None:
            if probe:
                self._probing = False
                self._note(failure, repository)
                self._open(failure, reason, retry_after)
            return
        self._note(failure, repository)
        told_to_wait = failure is Failure.THROTTLED and retry_after is not None
        if told_to_wait or self._failures >= self._policy.failures:
            self._on_change(CircuitChange(is_open=True, reason=reason, seconds=self._open(failure, reason, retry_after)))

    def abandoned(self) -> None:
        """The probe was given up before it showed anything: the next request is one."""
        self._probing = False

    def _note(self, failure: Failure, repository: str | None) -> None:
        is_first = not self._failures
        self._only = repository if failure is Failure.ERROR and (is_first or repository == self._only) else None
        self._failures += 1

    def _open(self, failure: Failure, reason: str, retry_after: float | None) -> float:
        policy = self._policy
        # The exponent is bounded so that no number of probes can overflow.
        pause = min(policy.pause * 2.0 ** min(self._openings, 32), policy.longest_pause)
        pause = max(pause, min(retry_after or 0.0, policy.longest_retry_after))
        self._openings += 1
        self._until = self._clock() + pause
        self._throttled = failure is Failure.THROTTLED
        self.reason = reason
        return pause
