"""Why queued images wait, where it is for more than their turn."""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlalchemy import exists, select
from sqlalchemy.sql.elements import ColumnElement

from mirror.jobs.change import Change
from mirror.jobs.model import State
from mirror.state.engine import Database
from mirror.state.schema import images, names

_QUEUED = images.c.state == State.QUEUED.value


class WaitingReasons:
    """The reason of all queued images. Every method raises Unavailable when the state database cannot be reached."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        """clock: Unix seconds."""
        self._database = database
        self._clock = clock

    async def explain(self, reason: str) -> None:
        """Let all queued images, those that came since the last time too, say why they wait."""
        await self._set(reason, (_QUEUED, images.c.reason.is_distinct_from(reason)))

    async def clear(self) -> None:
        """They wait for nothing but their turn again."""
        await self._set(None, (_QUEUED, images.c.reason.is_not(None)))

    async def _set(self, reason: str | None, wanted: tuple[ColumnElement[bool], ...]) -> None:
        async with self._database.read() as connection:
            if not (await connection.execute(select(exists().where(*wanted)))).scalar_one():
                return
        async with Change.begin(self._database, self._clock()) as change:
            connection = change.connection
            concerned = select(images.c.manifest_digest).where(*wanted)
            await connection.execute(names.update().where(names.c.manifest_digest.in_(concerned)).values(serial=change.serial))
            await connection.execute(images.update().where(*wanted).values(reason=reason))
