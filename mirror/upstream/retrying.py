"""Short requests, tried again where that may help at once."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from mirror.upstream.model import UpstreamUnavailable
from mirror.upstream.policy import RetryPolicy, is_transient

T = TypeVar("T")


async def retrying(attempt: Callable[[], Awaitable[T]], policy: RetryPolicy, sleep: Callable[[float], Awaitable[None]]) -> T:
    """What the attempt returns, made as often as the policy says. Raises what its last one raised."""
    failures = 0
    while True:
        try:
            return await attempt()
        except UpstreamUnavailable as error:
            failures += 1
            # The dice only spread the load.
            pause = policy.delay(failures, random.random(), error.retry_after)  # noqa: S311
            if pause is None or not is_transient(error.failure):
                raise
            await sleep(pause)
