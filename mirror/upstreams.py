"""Opens the ways to all upstreams: their gates, the mirror's clients, and the anonymous ones that prove what is public."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass

import aiohttp
import structlog

from mirror.config import wiring
from mirror.config.models import Config
from mirror.metrics import Metrics
from mirror.upstream.breaker import CircuitChange
from mirror.upstream.budget import Budget
from mirror.upstream.client import UpstreamClient
from mirror.upstream.gate import Gate
from mirror.upstream.mirrored import MirroredClient, UpstreamMirror
from mirror.upstream.model import Upstream
from mirror.upstream.policy import SHORT_REQUESTS, RetryPolicy
from mirror.upstream.session import open_session
from mirror.upstream.token_cache import TokenCache

log = structlog.get_logger()

_ONCE = RetryPolicy(attempts=1, first_delay=SHORT_REQUESTS.first_delay, longest_delay=SHORT_REQUESTS.longest_delay)
"""Of a mirror: there is somebody else to ask."""


@dataclass(frozen=True, slots=True)
class Upstreams:
    """What the rooms need of them; by name of the upstream."""

    clients: Mapping[str, UpstreamClient]
    """With the mirror's rights."""
    guards: Mapping[str, UpstreamClient]
    """Anonymous ones, of those whose private content is not shared."""
    gates: tuple[Gate, ...]
    """Of upstreams and of their mirrors."""

    async def problem(self) -> str | None:
        """Which of them are left alone now, and why, for the operator; None if none is."""
        return "; ".join(problem for gate in self.gates if (problem := gate.problem) is not None) or None


async def open_upstreams(config: Config, metrics: Metrics, stack: AsyncExitStack, *, user_agent: str) -> Upstreams:
    """All of them, closed with the stack. Raises ConfigError for a password file that cannot be read."""
    known = wiring.upstreams(config)
    places = {name: wiring.mirrors(config, upstream) for name, upstream in known.items()}
    dialled = [*known.values(), *(place for several in places.values() for place, _ in several)]
    session = open_session(dialled, user_agent=user_agent, max_connections=config.fetch.max_connections)
    stack.push_async_callback(session.close)
    opener = _Opener(session, metrics, stack)
    clients: dict[str, UpstreamClient] = {}
    guards: dict[str, UpstreamClient] = {}
    for name, upstream in known.items():
        retry = wiring.upstream_retry(config.upstreams[name])
        gate = opener.gate(upstream)
        clients[name] = opener.client(upstream, gate, retry, [opener.mirror(place, prefix) for place, prefix in places[name]])
        private = config.upstreams[name].private
        if private == "client" or (private == "refuse" and upstream.credential is not None):
            guards[name] = opener.anonymous(upstream, gate, retry)
    return Upstreams(clients, guards, tuple(opener.gates))


class _Opener:
    def __init__(self, session: aiohttp.ClientSession, metrics: Metrics, stack: AsyncExitStack) -> None:
        self.gates: list[Gate] = []
        self._session = session
        self._metrics = metrics
        self._stack = stack
        self._tokens = TokenCache()

    def gate(self, upstream: Upstream) -> Gate:
        gate = Gate(upstream, on_change=_noter(self._metrics, upstream.name))
        self._metrics.watch_upstream(upstream.name, lambda: gate.transfers.taken, lambda: gate.transfers.waiting)
        self.gates.append(gate)
        return gate

    def client(self, upstream: Upstream, gate: Gate, retry: RetryPolicy, mirrors: list[UpstreamMirror]) -> UpstreamClient:
        client = MirroredClient(
            self._session,
            upstream,
            mirrors,
            tokens=self._tokens,
            retry=retry,
            gate=gate,
            on_request=self._metrics.upstream_request,
            on_budget=self._budget_noter(upstream.name),
        )
        self._stack.push_async_callback(client.close)
        return client

    def anonymous(self, upstream: Upstream, gate: Gate, retry: RetryPolicy) -> UpstreamClient:
        count = self._metrics.upstream_request
        client = UpstreamClient(
            self._session, upstream, anonymous=True, tokens=self._tokens, retry=retry, gate=gate, on_request=count
        )
        self._stack.push_async_callback(client.close)
        return client

    def mirror(self, place: Upstream, prefix: str) -> UpstreamMirror:
        return UpstreamMirror(self.anonymous(place, self.gate(place), _ONCE), prefix)

    def _budget_noter(self, name: str) -> Callable[[Budget], None]:
        return lambda budget: self._metrics.upstream_budget(name, budget.limit, budget.remaining)


def _noter(metrics: Metrics, name: str) -> Callable[[CircuitChange], None]:
    def note(change: CircuitChange) -> None:
        metrics.circuit(name, is_open=change.is_open)
        if change.is_open:
            log.warning("upstream_suspended", upstream=name, reason=change.reason, pause=round(change.seconds, 3))
        else:
            log.info("upstream_back", upstream=name)

    return note
