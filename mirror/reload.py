"""Settings that a running server cannot change: its sockets and its data directory outlive all processes that use them. Pure."""

from __future__ import annotations

from mirror.config.models import Config

_FIXED = ("listen", "data")


def needing_restart(running: Config, wanted: Config) -> list[str]:
    """Those of them that would change, as they are called in the file."""
    return [f"server.{name}" for name in _FIXED if getattr(running.server, name) != getattr(wanted.server, name)]


def with_fixed(running: Config, wanted: Config) -> Config:
    """The wanted settings, but for what cannot change."""
    fixed = {name: getattr(running.server, name) for name in _FIXED}
    return wanted.model_copy(update={"server": wanted.server.model_copy(update=fixed)})


def concern_publisher(running: Config, wanted: Config) -> bool:
    """Whether the publisher must know of what changed: it has no use for what is about clients only."""
    mirrors_own = {"server", "access", "tags", "memory", "metrics"}
    return any(
        getattr(running, section) != getattr(wanted, section)
        for section in type(running).model_fields
        if section not in mirrors_own
    )
