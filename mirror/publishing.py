"""The publisher beside the server, as the settings want it; it is started again when what it has read has changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack

from mirror.background import running
from mirror.config.models import Config
from mirror.data import DataDirectory
from mirror.reload import concern_publisher
from mirror.supervisor import Supervisor

PublisherCommand = Callable[[Config], Sequence[str]]
"""How to start the publisher with these settings."""


class Publishing:
    """At most one publisher at a time."""

    def __init__(self, command: PublisherCommand, parts: dict[str, str | None]) -> None:
        """parts: where to tell, under `publisher`, what is wrong with it."""
        self._command = command
        self._parts = parts
        self._config: Config | None = None
        self._stack = AsyncExitStack()

    async def apply(self, config: Config) -> None:
        """Have a publisher with these settings; one that knows them already is left alone."""
        before, self._config = self._config, config
        if before is not None and not concern_publisher(before, config):
            return
        await self.close()
        if config.publish.enabled and config.publish.supervised:
            log_file = DataDirectory(config.data).logs / "publisher.log"
            supervisor = Supervisor(self._command(config), log_file, grace=config.server.grace, on_change=self._tell)
            self._tell(None)
            await self._stack.enter_async_context(running("publisher", supervisor.run))

    async def close(self) -> None:
        """Stop it."""
        await self._stack.aclose()
        self._parts.pop("publisher", None)

    def _tell(self, trouble: str | None) -> None:
        self._parts["publisher"] = trouble
