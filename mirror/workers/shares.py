"""What of the server's bounds one worker may use. Pure.

An operator sets bounds for the server. A worker cannot see what the others do, so each gets its part, rounded up. Bounds of
memory and of time are for each worker: that is said where they are set.
"""

from __future__ import annotations

from mirror.config.models import Config

_LEAST_SQL_CONNECTIONS = 2
_LEAST_WRONG_PASSWORDS = 3
"""So that who mistypes one is not shut out, however many workers there are."""


def worker_share(config: Config, workers: int) -> Config:
    """The settings of one of so many workers."""
    if workers == 1:
        return config

    def part(bound: int, least: int = 1) -> int:
        return max(-(-bound // workers), least)

    server, fetch, access, state = config.server, config.fetch, config.access, config.state
    upstreams = {
        name: upstream.model_copy(
            update={"max_transfers": part(upstream.max_transfers), "max_requests": part(upstream.max_requests)}
        )
        for name, upstream in config.upstreams.items()
    }
    sections = {
        "server": server.model_copy(update={"max_requests": part(server.max_requests)}),
        "fetch": fetch.model_copy(update={"max_connections": part(fetch.max_connections), "max_fills": part(fetch.max_fills)}),
        "access": access.model_copy(
            update={
                "requests": part(access.requests),
                "rate": access.rate / workers,
                "burst": part(access.burst),
                "wrong_passwords": part(access.wrong_passwords, min(access.wrong_passwords, _LEAST_WRONG_PASSWORDS)),
            }
        ),
        "state": state.model_copy(update={"connections": part(state.connections, _LEAST_SQL_CONNECTIONS)}),
        "upstreams": upstreams,
    }
    return config.model_copy(update=sections)
