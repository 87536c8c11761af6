"""The way to one upstream, shared by all its clients in a process: how many may go at the same time, and whether any may.

Each process of a server has gates of its own: what one has learnt of an outage, the others find out by themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import ceil

from mirror.connecting import trouble
from mirror.errors import MirrorError
from mirror.upstream.breaker import CircuitBreaker, CircuitChange, Verdict
from mirror.upstream.fair_slots import FairSlots
from mirror.upstream.model import Failure, Upstream, UpstreamUnavailable

_WORDS = {
    Failure.UNREACHABLE: "it cannot be reached",
    Failure.TIMEOUT: "it was silent for too long",
    Failure.LOST: "it broke the connection",
    Failure.ERROR: "it answered with a server error",
    Failure.THROTTLED: "it throttles this mirror",
}
"""Without what was asked for: those who hear of it may not be allowed to know."""

_PERSONAL = frozenset({Failure.ERROR, Failure.THROTTLED})
"""Answers that may be about the credential that was used."""


@dataclass(slots=True)
class Attempt:
    """One request on its way through a gate."""

    failure: UpstreamUnavailable | None = None
    """What is wrong with an answer that raises nothing by itself."""


class Gate:
    """Bounds and the breaker of one upstream."""

    def __init__(
        self,
        upstream: Upstream,
        *,
        clock: Callable[[], float] = time.monotonic,
        on_change: Callable[[CircuitChange], None] = lambda _: None,
    ) -> None:
        """clock: seconds that only grow."""
        self.name = upstream.name
        self._patience = upstream.connect_timeout
        self.transfers = FairSlots(upstream.max_transfers)
        self.requests = FairSlots(upstream.max_requests)
        self.breaker = CircuitBreaker(upstream.breaker, clock, on_change)
        self._settled = asyncio.Event()

    @asynccontextmanager
    async def attempt(
        self, what: str, repository: str, *, transfer: bool = False, insist: bool = False, personal: bool = False
    ) -> AsyncIterator[Attempt]:
        """Send one request in the block; its outcome counts. Raises UpstreamUnavailable if it is not to be sent.

        what: names the thing that is asked for. transfer: a blob. insist: ask whatever is known: a client is in the middle of it.
        personal: with one client's own credential: that the upstream throttles or fails then says nothing of others.
        """
        verdict = Verdict.GO if insist else await self._admitted(what, repository, transfer=transfer)
        probe = verdict is Verdict.PROBE
        attempt = Attempt()
        try:
            yield attempt
        except UpstreamUnavailable as error:
            self._failed(error, repository, probe=probe, personal=personal)
            raise
        except MirrorError:
            self.breaker.succeeded(probe=probe, transfer=transfer)
            raise
        except BaseException:
            if probe:
                self.breaker.abandoned()
            raise
        else:
            if attempt.failure is not None:
                self._failed(attempt.failure, repository, probe=probe, personal=personal)
            else:
                self.breaker.succeeded(probe=probe, transfer=transfer)
        finally:
            if probe:
                self._settled.set()
                self._settled = asyncio.Event()

    @property
    def suspension(self) -> Failure | None:
        """Why requests are refused now: SUSPENDED, or THROTTLED, which holds for all but blobs. None: they are not."""
        if not self.breaker.is_open:
            return None
        return Failure.THROTTLED if self.breaker.is_throttled else Failure.SUSPENDED

    @property
    def problem(self) -> str | None:
        """Why the upstream is not asked now, for the operator; None if it is."""
        breaker = self.breaker
        if not breaker.is_open:
            return None
        return f"upstream {self.name} is not asked for {ceil(breaker.seconds_left)} s more: {breaker.reason}"

    async def _admitted(self, what: str, repository: str, *, transfer: bool) -> Verdict:
        verdict = self.breaker.admit(repository, transfer=transfer)
        if verdict is Verdict.WAIT:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._patience):
                    while (verdict := self.breaker.admit(repository, transfer=transfer)) is Verdict.WAIT:
                        await self._settled.wait()
        if verdict in (Verdict.REFUSE, Verdict.WAIT):
            seconds = max(ceil(self.breaker.seconds_left), 1)
            raise UpstreamUnavailable(
                f"upstream {self.name} is not asked for {what} now, but again in {seconds} s: {self.breaker.reason}",
                self.suspension or Failure.SUSPENDED,
                seconds,
            )
        return verdict

    def _failed(self, error: UpstreamUnavailable, repository: str, *, probe: bool, personal: bool) -> None:
        if personal and error.failure in _PERSONAL:
            if probe:
                self.breaker.abandoned()
            return
        reason = _WORDS.get(error.failure, str(error))
        if error.failure is Failure.UNREACHABLE and isinstance(error.__cause__, OSError):
            reason = f"{reason} ({trouble(error.__cause__)})"
        self.breaker.failed(error.failure, reason, repository, probe=probe, retry_after=error.retry_after)
